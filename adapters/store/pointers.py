"""What the names of one adapter mean: which version is promoted, labelled, a canary, pinned or retired.

Pure values: every change returns new Pointers or raises. adapters/store/store.py keeps them as pointers.json and knows
which versions exist.
"""

from __future__ import annotations

import hashlib
import re

from pydantic import Field, PositiveInt

from adapters.errors import ConfigError
from adapters.store.manifest import Frozen

LABEL = re.compile(r"[a-z][a-z0-9-]{0,62}")
RESERVED_LABELS = frozenset(["canary", "promoted"])
# How many rollbacks in a row are possible.
MAX_HISTORY = 100


class Canary(Frozen):
    """A version that answers `percent` of the requests for the bare name."""

    version: PositiveInt
    percent: int = Field(ge=1, le=99)

    def takes(self, name: str, key: bytes) -> bool:
        """Whether this version answers the caller `key`: always the same for one caller, and monotonic in percent."""
        # Salted with the version, so that the next canary gets other callers.
        digest = hashlib.sha256(f"{name}@{self.version}\0".encode() + key).digest()
        return int.from_bytes(digest[:8], "big") * 100 < self.percent * 2**64


class Pointers(Frozen):
    """`history` lists the versions promoted before, the latest last; `retired` numbers are never used again."""

    promoted: PositiveInt | None = None
    history: tuple[PositiveInt, ...] = ()
    canary: Canary | None = None
    labels: dict[str, PositiveInt] = Field(default_factory=dict)
    pinned: tuple[PositiveInt, ...] = ()
    retired: tuple[PositiveInt, ...] = ()

    def meaning(self, name: str, key: bytes) -> int | None:
        """The version that answers the caller `key` who asks for the bare `name`."""
        if self.canary and self.canary.takes(name, key):
            return self.canary.version
        return self.promoted

    @property
    def wanted(self) -> list[int]:
        """The versions that a server preloads, the most important first."""
        numbers = [self.promoted, self.canary and self.canary.version, *self.pinned]
        return list(dict.fromkeys(number for number in numbers if number))

    def with_promoted(self, number: int) -> Pointers:
        """Ends a canary too."""
        before = [self.promoted] if self.promoted and self.promoted != number else []
        history = (*self.history, *before)[-MAX_HISTORY:]
        return self._with(promoted=number, history=history, canary=None)

    def without_promoted(self) -> Pointers:
        return self._with(promoted=None)

    def with_canary(self, number: int, percent: int) -> Pointers:
        if self.promoted is None:
            raise ConfigError("a canary needs a promoted version to compare with", "promote a version first")
        if number == self.promoted:
            raise ConfigError(f"version {number} is promoted already", "leave --percent out, or give another version")
        if not 1 <= percent <= 99:
            raise ConfigError(f"--percent must be 1 to 99, got {percent}", "leave it out to promote for every request")
        return self._with(canary=Canary(version=number, percent=percent))

    def rolled_back(self) -> Pointers:
        """Without the canary, else with the version promoted before; raises ConfigError if there is neither."""
        if self.canary:
            return self._with(canary=None)
        usable = [number for number in self.history if number not in self.retired]
        while usable and usable[-1] == self.promoted:
            usable.pop()
        if not usable:
            raise ConfigError("no version was promoted before this one", "give the version: adapters promote NAME@N")
        return self._with(promoted=usable[-1], history=tuple(usable[:-1]))

    def with_label(self, label: str, number: int) -> Pointers:
        if not LABEL.fullmatch(label) or label in RESERVED_LABELS:
            raise ConfigError(
                f"{label[:80]!r} is not a valid label",
                "use up to 63 lower-case letters, digits and -, starting with a letter; not canary or promoted",
            )
        return self._with(labels={**self.labels, label: number})

    def without_label(self, label: str) -> Pointers:
        if label not in self.labels:
            raise ConfigError(f"there is no label {label[:80]!r}", f"there are {', '.join(self.labels) or 'none'}")
        return self._with(labels={known: number for known, number in self.labels.items() if known != label})

    def with_pin(self, number: int) -> Pointers:
        return self._with(pinned=tuple(dict.fromkeys([*self.pinned, number])))

    def without_pin(self, number: int) -> Pointers:
        return self._with(pinned=tuple(pinned for pinned in self.pinned if pinned != number))

    def with_retired(self, number: int) -> Pointers:
        """Without its labels and its pin too; raises ConfigError if it is promoted or the canary."""
        if number == self.promoted:
            raise ConfigError(
                f"version {number} is promoted", "promote another version first, or retire the whole name"
            )
        if self.canary and number == self.canary.version:
            raise ConfigError(f"version {number} is the canary", "end the canary first: adapters rollback NAME")
        labels = {label: labelled for label, labelled in self.labels.items() if labelled != number}
        retired = tuple(sorted({*self.retired, number}))
        return self.without_pin(number)._with(labels=labels, retired=retired)

    def all_retired(self, numbers: list[int]) -> Pointers:
        """Every version retired: nothing is promoted, labelled or pinned."""
        return Pointers(retired=tuple(sorted({*self.retired, *numbers})))

    def brought_back(self, numbers: list[int]) -> Pointers:
        return self._with(retired=tuple(number for number in self.retired if number not in numbers))

    def _with(self, **changes: object) -> Pointers:
        return Pointers(**{**self.model_dump(), **changes})
