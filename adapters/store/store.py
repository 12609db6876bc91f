"""Publish, resolve and point at adapters: immutable directories, and for each name one file that is replaced whole.

    STORE/formal/3-0123456789ab/    adapter_config.json, adapter_model.safetensors, manifest.json, perhaps README.md
                                    (the model card); never changed again
    STORE/formal/pointers.json      promoted, labelled, retired ... (adapters/store/pointers.py)
    STORE/formal/.lock              held while a number is given out, a pointer moves or a version is removed
    STORE/formal/.incoming-*        a publish in progress (locked) or interrupted
    STORE/formal/.new-*             the next pointers.json, for a moment
    STORE/formal/.removing-*        what gc is deleting
    STORE/.leases/                  what servers may have loaded (adapters/store/leases.py)
    STORE/.runs/                    trainings in progress, or that can be resumed (trainer/training/checkpoints.py)
    STORE/audit.jsonl               who changed what (adapters/store/audit.py)
    STORE/keys.json                 API keys of the servers (server/api/keys.py), changed under STORE/.lock

The directory's name carries the weights' digest because vLLM's prefix cache is keyed by (name, path). A crash at any
point leaves the old state or the new one, and at worst leftovers that nothing reads and gc removes. Whether vLLM can
serve a version is checked before a publish, by adapters/models/validate.py.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.errors import AdapterNotFound, ConfigError, StoreDamaged
from adapters.store.audit import Audit
from adapters.store.disk import explained, locked, replace, sync
from adapters.store.manifest import DEFAULT_MAX_RANK, NAME, Manifest, check_name
from adapters.store.pointers import Pointers
from adapters.store.version import CARD, CONFIG, MANIFEST, WEIGHTS, Version

POINTERS = "pointers.json"
KEYS = "keys.json"
RUNS = ".runs"
# Release 0.1.0 wrote the promoted number alone. It counts until the first change writes pointers.json.
OLD_POINTER = "promoted"
INCOMING = ".incoming-"
VERSION_DIRECTORY = re.compile(r"([1-9][0-9]{0,8})-([0-9a-f]{12})")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
Change = Callable[[Pointers, int], Pointers]


class Store:
    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.audit = Audit(self.directory)

    def names(self) -> list[str]:
        """Every published name, also if all its versions are retired or gone."""
        if not self.directory.is_dir():
            return []
        return sorted(e.name for e in os.scandir(self.directory) if NAME.fullmatch(e.name) and e.is_dir())

    def versions(self, name: str) -> list[Version]:
        """Every version of `name` on the disk, retired ones too, oldest first."""
        home = self.directory / name
        if not NAME.fullmatch(name) or not home.is_dir():
            return []
        found = [(VERSION_DIRECTORY.fullmatch(e.name), e.path) for e in os.scandir(home)]
        return sorted((Version(name, int(m[1]), Path(p)) for m, p in found if m), key=lambda version: version.number)

    def pointers(self, name: str) -> Pointers:
        """What `name` points to right now; empty Pointers if there is no such adapter.

        Raises:
            StoreDamaged: pointers.json is not what this program wrote.
        """
        file = self.directory / name / POINTERS
        try:
            return Pointers.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return self._old_pointers(name)
        except (ValidationError, IsADirectoryError) as exc:
            mend = f"`adapters promote {name}@N` writes it anew, without its labels and what was retired"
            raise StoreDamaged(f"{file} is damaged", mend) from exc

    def _old_pointers(self, name: str) -> Pointers:
        with suppress(OSError, UnicodeDecodeError):
            number = (self.directory / name / OLD_POINTER).read_text().strip()
            return Pointers(promoted=int(number) if NUMBER.fullmatch(number) else None)
        return Pointers()

    def promoted(self, name: str) -> Version | None:
        """The promoted version, never a canary; None if none is promoted or its files are gone."""
        number = self.pointers(name).promoted if NAME.fullmatch(name) else None
        return self._version(name, number)

    def resolve(self, reference: str) -> Version:
        """The version that `formal` (the promoted one), `formal@3` or `formal@candidate` (a label) means right now.

        Raises:
            AdapterNotFound: there is none, or it is retired; the hint suggests others.
        """
        return self._look_up(reference, None)[0]

    def route(self, reference: str, key: bytes) -> tuple[Version, bool]:
        """The version that answers the caller `key` who asks for `reference`, and whether it does so as a canary.

        A canary takes its share of the callers. Raises AdapterNotFound like `resolve`.
        """
        return self._look_up(reference, key)

    def publish(
        self, name: str, files: Path, facts: dict[str, Any], card: Callable[[Manifest], str] | None = None
    ) -> Version:
        """Make `files` (a directory with weights and config) the next version of `name`.

        `facts` are the fields of the manifest except name, version, created and adapter_sha256; `card` writes the model
        card. The version is promoted if no other of that name is, it did not fail its evaluation and a server without
        options takes its rank. Concurrent publishes of one name get different numbers.

        Raises:
            StoreUnwritable: no space, or no permission; nothing has changed.
        """
        home = self.directory / check_name(name)
        with self._incoming(name) as incoming:
            for part in (CONFIG, WEIGHTS):
                shutil.copyfile(files / part, incoming / part)
                sync(incoming / part)
            digest = content_digest(incoming)
            with self.locked(name):
                pointers = self._settled(name)
                number = max([*(v.number for v in self.versions(name)), *pointers.retired], default=0) + 1
                manifest = Manifest(
                    name=name, version=number, created=datetime.now(UTC), adapter_sha256=digest, **facts
                )
                (incoming / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
                sync(incoming / MANIFEST)
                if card:
                    (incoming / CARD).write_text(card(manifest), encoding="utf-8")
                    sync(incoming / CARD)
                sync(incoming)
                version = Version(name, number, home / f"{number}-{digest[:12]}")
                good = not manifest.evaluation or manifest.evaluation.passed
                promotes = pointers.promoted is None and good and manifest.lora.rank <= DEFAULT_MAX_RANK
                if promotes:
                    # A promoted version without files counts as none, so the rename publishes and promotes at once.
                    self._replace_pointers(name, pointers.with_promoted(number))
                incoming.rename(version.path)
                sync(home)
                self.audit.record("publish", version, promoted=promotes)
        return version

    def promote(self, reference: str, percent: int | None = None) -> Version:
        """Make the bare name mean `reference` (`name@version` or `name@label`) from the next request on.

        With `percent` only for that share of the callers: a canary, until the next promote or rollback.
        """
        if "@" not in reference:
            raise ConfigError(f"{reference!r} gives no version", f"give one, for example {reference}@1")
        if percent is not None:
            return self._point(reference, lambda p, number: p.with_canary(number, percent), "promote", percent=percent)
        return self._point(reference, Pointers.with_promoted, "promote", mend=True)

    def roll_back(self, name: str) -> Version:
        """End the canary if there is one, else promote the version promoted before; returns the promoted version."""
        with self._changing(name):
            pointers = self._settled(name).rolled_back()
            version = self._version(name, pointers.promoted)
            if version is None:
                raise StoreDamaged(f"the version of {name} that was promoted before is gone", "adapters promote NAME@N")
            self._replace_pointers(name, pointers)
            self.audit.record("rollback", version)
        return version

    def label(self, reference: str, label: str) -> Version:
        """Make `name@label` mean the version of `reference`, whatever it meant before."""
        return self._point(reference, lambda p, number: p.with_label(label, number), "label", label=label)

    def remove_label(self, name: str, label: str) -> None:
        with self._changing(name):
            pointers = self._settled(name)
            self._replace_pointers(name, pointers.without_label(label))
            self.audit.record("unlabel", self._version(name, pointers.labels[label]) or name, label=label)

    def pin(self, reference: str) -> Version:
        """Have every server of this store keep the version of `reference` loaded."""
        return self._point(reference, Pointers.with_pin, "pin")

    def unpin(self, reference: str) -> Version:
        return self._point(reference, Pointers.without_pin, "unpin")

    def retire(self, reference: str) -> list[Version]:
        """Stop serving `formal@3`, or every version of `formal`; `adapters gc` may remove it from now on."""
        name, at, _ = reference.partition("@")
        if at:
            return [self._point(reference, Pointers.with_retired, "retire")]
        with self._changing(name):
            pointers = self._settled(name)
            there = self.versions(name)
            retired = [version for version in there if version.number not in pointers.retired]
            if not retired:
                raise self.not_found(reference)
            self._replace_pointers(name, pointers.all_retired([version.number for version in there]))
            for version in retired:
                self.audit.record("retire", version)
        return retired

    def bring_back(self, reference: str) -> list[Version]:
        """Undo `retire` for what gc has not removed. Promotes nothing."""
        name, at, number = reference.partition("@")
        with self._changing(name):
            pointers = self._settled(name)
            there = [version for version in self.versions(name) if version.number in pointers.retired]
            back = [version for version in there if not at or str(version.number) == number]
            if not back:
                raise ConfigError(f"the store has no retired {reference[:80]!r}", "what gc removed is gone for good")
            self._replace_pointers(name, pointers.brought_back([version.number for version in back]))
            for version in back:
                self.audit.record("unretire", version)
        return back

    def settle(self, name: str) -> None:
        """Undo a promotion whose publish was interrupted before its version was there; call it under the lock."""
        settled = self._settled(name)
        if settled != self.pointers(name):
            self._replace_pointers(name, settled)

    @contextmanager
    def locked(self, name: str, reading: bool = False) -> Iterator[None]:
        """Keep other processes from changing `name`; with `reading` this process changes nothing either."""
        with explained(self.directory), locked(self.directory / name, reading):
            yield

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """`locked`, for a name that must exist."""
        if not self.versions(name):
            raise self.not_found(name)
        with self.locked(name):
            yield

    def _look_up(self, reference: str, key: bytes | None) -> tuple[Version, bool]:
        name, at, selector = reference.partition("@")
        if not NAME.fullmatch(name):
            raise self.not_found(reference)
        pointers = self.pointers(name)
        while True:
            number = self._number(name, pointers, selector if at else None, key)
            version = self._version(name, number)
            # A version that was promoted a moment ago may be retired and removed by now: look again.
            if version is not None or (now := self.pointers(name)) == pointers:
                break
            pointers = now
        if version is None or number in pointers.retired:
            raise self.not_found(reference)
        return version, not at and number != pointers.promoted

    def _number(self, name: str, pointers: Pointers, selector: str | None, key: bytes | None) -> int | None:
        if selector is None:
            return pointers.promoted if key is None else pointers.meaning(name, key)
        return int(selector) if NUMBER.fullmatch(selector) else pointers.labels.get(selector)

    def _settled(self, name: str) -> Pointers:
        """The pointers, without a promoted version that has no files; call it under the lock."""
        pointers = self.pointers(name)
        return pointers if self._version(name, pointers.promoted) else pointers.without_promoted()

    def _version(self, name: str, number: int | None) -> Version | None:
        return next((version for version in self.versions(name) if version.number == number), None)

    def _point(self, reference: str, change: Change, what: str, mend: bool = False, **details: str | int) -> Version:
        """Change the pointers with the version of `reference`, record `what`; `mend` replaces a damaged file."""
        name, _, selector = reference.partition("@")
        if not self.versions(name):
            raise self.not_found(reference)
        with self.locked(name):
            try:
                pointers, version = self._settled(name), self.resolve(reference)
            except StoreDamaged:
                found = self._version(name, int(selector)) if NUMBER.fullmatch(selector) else None
                if not mend or not found:
                    raise
                pointers, version = Pointers(), found
            changed = change(pointers, version.number)
            self._replace_pointers(name, changed)
            if changed != pointers:
                self.audit.record(what, version, **details)
        return version

    def _replace_pointers(self, name: str, pointers: Pointers) -> None:
        """Call it under the lock of `name`."""
        replace(self.directory / name / POINTERS, pointers.model_dump_json() + "\n")

    @contextmanager
    def _incoming(self, name: str) -> Iterator[Path]:
        """A new directory in the home of `name`, locked while this process uses it."""
        home = self.directory / name
        with explained(self.directory), ExitStack() as stack:
            home.mkdir(parents=True, exist_ok=True)
            sync(self.directory)
            with self.locked(name):
                scratch = Path(tempfile.mkdtemp(dir=home, prefix=INCOMING))
                # Once outside the lock, for a scratch that cannot be locked, and once inside, before gc can lock it.
                stack.callback(shutil.rmtree, scratch, ignore_errors=True)
                stack.enter_context(locked(scratch))
                stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            incoming = scratch / "version"
            incoming.mkdir()
            yield incoming

    def not_found(self, reference: str, visible: Callable[[str], bool] = lambda _: True) -> AdapterNotFound:
        """The error for a `reference` that does not exist or is not `visible`: the same, hinting at visible names."""
        name, _, selector = reference.partition("@")
        return AdapterNotFound(f"the model {reference[:80]!r} does not exist", self._suggest(name, selector, visible))

    def _suggest(self, name: str, selector: str, visible: Callable[[str], bool]) -> str:
        seen = bool(NAME.fullmatch(name)) and visible(name)
        pointers = self.pointers(name) if seen else Pointers()
        if selector in map(str, pointers.retired):
            return f"{name}@{selector} is retired"
        usable = [v.id for v in self.versions(name) if v.number not in pointers.retired] if seen else []
        if usable:
            hint = f"it has the versions {', '.join(usable)}"
            return hint if selector else f"{name} has no promoted version; {hint}"
        others = list(filter(visible, self.names()))
        near = difflib.get_close_matches(name, others, n=3)
        if near and name not in others:
            return f"did you mean {' or '.join(near)}?"
        if pointers.retired:
            return f"{name} is retired"
        return f"there are {', '.join(others[:10])}" if others else "the store has no adapters yet"


def content_digest(directory: Path) -> str:
    """SHA-256 over the adapter's config and weights, each preceded by its name."""
    digest = hashlib.sha256(f"{CONFIG}\0".encode() + (directory / CONFIG).read_bytes() + f"{WEIGHTS}\0".encode())
    with (directory / WEIGHTS).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
