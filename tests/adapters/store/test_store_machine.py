"""Every command of the store in any order, alone and two at a time, against a model of it in plain Python."""

import atexit
import functools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adapters.errors import AdapterNotFound, ConfigError
from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.models.transfer import export, import_
from adapters.store.gc import collect, verify
from adapters.store.leases import Lease
from adapters.store.store import Store
from adapters.store.version import Version
from tests import tiny

NUMBERS = st.integers(1, 3)
Command = tuple[str, int]


@dataclass(frozen=True)
class Model:
    """What users see of one name: `there` are the versions in the store, `exported` those copied out, in no store."""

    there: frozenset[int] = frozenset()
    last: int = 0
    promoted: int | None = None
    history: tuple[int, ...] = ()
    canary: int | None = None
    labelled: int | None = None
    pinned: frozenset[int] = frozenset()
    retired: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()
    exported: frozenset[int] = frozenset()

    def after(self, command: str, number: int) -> "Model":
        """This model if the command is refused."""
        if command in ("hold", "release"):
            held = self.held - {number} if command == "release" else self.held | ({number} & self.there)
            return replace(self, held=held)
        if command == "collect":
            return replace(self, there=self.there - (self.retired - self.held))
        if command == "publish" or (command == "import" and self.exported):
            new = replace(self, there=self.there | {self.last + 1}, last=self.last + 1)
            return new._promoted(new.last) if new.promoted is None else new
        if command == "roll back":
            return self._rolled_back()
        if command == "remove label":
            return replace(self, labelled=None)
        if command == "retire the name":
            if self.there <= self.retired:
                return self
            gone = self.retired | self.there
            return Model(self.there, self.last, retired=gone, held=self.held, exported=self.exported)
        if command == "bring back":
            return replace(self, retired=self.retired - ({number} & self.there))
        if number not in self.there or number in self.retired:
            return self
        return self._changed(command, number)

    def _changed(self, command: str, number: int) -> "Model":
        """By a command that takes a version which is not retired."""
        if command == "promote":
            return self._promoted(number)
        if command == "canary" and self.promoted not in (None, number):
            return replace(self, canary=number)
        if command == "export":
            return replace(self, exported=self.exported | {number})
        if command == "label":
            return replace(self, labelled=number)
        if command == "pin":
            return replace(self, pinned=self.pinned | {number})
        if command == "unpin":
            return replace(self, pinned=self.pinned - {number})
        if command == "retire" and number not in (self.promoted, self.canary):
            labelled = None if self.labelled == number else self.labelled
            return replace(self, labelled=labelled, pinned=self.pinned - {number}, retired=self.retired | {number})
        return self

    def _rolled_back(self) -> "Model":
        earlier = [n for n in self.history if n not in self.retired]
        if self.canary:
            return replace(self, canary=None)
        while earlier and earlier[-1] == self.promoted:
            earlier.pop()
        return replace(self, promoted=earlier[-1], history=tuple(earlier[:-1])) if earlier else self

    def _promoted(self, number: int) -> "Model":
        before = [self.promoted] if self.promoted and self.promoted != number else []
        return replace(self, promoted=number, history=(*self.history, *before), canary=None)


COMMANDS = st.tuples(
    st.sampled_from(
        [
            *("publish", "promote", "canary", "roll back", "label", "pin", "unpin", "retire", "bring back"),
            *("hold", "release", "collect", "remove label", "retire the name", "export", "import"),
        ]
    ),
    NUMBERS,
)


@functools.cache
def trained() -> tuple[BaseModel, Path]:
    """A base model and an adapter of it, once for all runs."""
    directory = Path(tempfile.mkdtemp(prefix="mailwright-test-"))
    atexit.register(shutil.rmtree, directory)
    base = base_models.find(str(tiny.make_base(directory / "base")))
    return base, tiny.make_adapter(base.path, directory / "adapter", seed=1)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.base, self.files = trained()
        self.facts = tiny.facts(self.base.name, self.base.fingerprint, base_source=self.base.source)
        self.directory = Path(self.scratch.name, "store")
        self.directory.mkdir()
        self.out = Path(self.scratch.name, "exported")
        self.out.mkdir()
        self.lease = Lease(self.directory)
        self.acquiring = threading.Lock()
        self.model = Model()

    def teardown(self) -> None:
        self.lease.close()
        self.scratch.cleanup()

    def run(self, command: str, number: int) -> None:
        """By a Store of its own, as another process has; a refusal changes nothing, and is no error of the test."""
        store, reference = Store(self.directory), f"formal@{number}"
        versions = {version.number: version for version in store.versions("formal")}
        commands: dict[str, Callable[[], object]] = {
            "publish": lambda: store.publish("formal", self.files, self.facts),
            "promote": lambda: store.promote(reference),
            "canary": lambda: store.promote(reference, percent=10),
            "roll back": lambda: store.roll_back("formal"),
            "label": lambda: store.label(reference, "candidate"),
            "pin": lambda: store.pin(reference),
            "unpin": lambda: store.unpin(reference),
            "retire": lambda: store.retire(reference),
            "bring back": lambda: store.bring_back(reference),
            "remove label": lambda: store.remove_label("formal", "candidate"),
            "retire the name": lambda: store.retire("formal"),
            "hold": lambda: self.acquire(versions.get(number)),
            "release": lambda: self.lease.release(Version("formal", number, self.directory)),
            "collect": lambda: collect(store, watch_seconds=0),
            "export": lambda: export(store.resolve(reference), self.out / reference),
            "import": lambda: import_(store, next(self.exported(), self.out / "nothing"), "formal", self.base),
        }
        with suppress(AdapterNotFound, ConfigError):
            commands[command]()

    def acquire(self, version: Version | None) -> None:
        """At most once, as the model has it: a lease counts, and two at a time would need two releases."""
        with self.acquiring:
            if version and not (self.lease.path / version.id).exists():
                self.lease.acquire(version)

    @initialize(published=st.integers(0, 3))
    def some_are_there(self, published: int) -> None:
        for number in range(published):
            self.one(("publish", number))

    @rule(command=COMMANDS)
    def one(self, command: Command) -> None:
        logged, old = self.logged(), self.model
        self.run(*command)
        self.model = old.after(*command)
        assert self.seen() == self.model
        entries = len(self.model.retired ^ old.retired) + len(old.there - self.model.there)
        assert self.logged() - logged == (entries or (self.model != replace(old, held=self.model.held)))

    @rule(first=COMMANDS, second=COMMANDS)
    def two_at_a_time(self, first: Command, second: Command) -> None:
        threads = [threading.Thread(target=self.run, args=command) for command in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = self.seen()
        assert found in (self.model.after(*first).after(*second), self.model.after(*second).after(*first))
        self.model = found

    @invariant()
    def nothing_is_damaged_or_left_over(self) -> None:
        assert verify(Store(self.directory), lambda _: [], watch_seconds=0) == []

    def exported(self) -> Iterator[Path]:
        return self.out.glob("formal@*")

    def logged(self) -> int:
        return len(Store(self.directory).audit.entries(last=10_000))

    def seen(self) -> Model:
        store = Store(self.directory)
        pointers = store.pointers("formal")
        numbers = {version.number for version in store.versions("formal")}
        return Model(
            there=frozenset(numbers),
            last=max([*numbers, *pointers.retired], default=0),
            promoted=pointers.promoted,
            history=pointers.history,
            canary=pointers.canary and pointers.canary.version,
            labelled=pointers.labels.get("candidate"),
            pinned=frozenset(pointers.pinned),
            retired=frozenset(pointers.retired),
            held=frozenset(n for n in range(1, 6) if (self.lease.path / f"formal@{n}").exists()),
            exported=frozenset(int(path.name.partition("@")[2]) for path in self.exported()),
        )


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
