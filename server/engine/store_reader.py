"""What the names of a store mean, in memory: files are read again only when they have changed."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from adapters.store.pointers import Pointers
from adapters.store.store import POINTERS, Store
from adapters.store.version import Version

Stamp = tuple[int, int, int]


def stamp(file: Path | str) -> Stamp | None:
    """What differs when `file` was replaced; None if there is no such file.

    This is the only look at the disk for a request whose names are known. It stays on the event loop: a stat takes
    6 microseconds and asyncio.to_thread 119 (2 busy cores, ext4, uvloop), which every request would wait for.
    """
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


@dataclass(frozen=True)
class Names:
    """One adapter: `versions` that are not retired, by what may stand after the @, a number or a label."""

    name: str
    stamp: Stamp | None
    pointers: Pointers
    versions: dict[str, Version]

    @property
    def wanted(self) -> list[Version]:
        numbers = map(str, self.pointers.wanted)
        return [self.versions[number] for number in numbers if number in self.versions]

    @property
    def complete(self) -> bool:
        """False while a publish has moved the pointers and its version is not there yet."""
        return len(self.wanted) == len(self.pointers.wanted)


class StoreReader:
    """Reads `store` for one server; to be used from any thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Names] = {}

    async def route(self, reference: str, key: bytes) -> tuple[Version, bool]:
        """What Store.route answers, without reading a file as long as the pointers of that name are the same."""
        name, at, selector = reference.partition("@")
        known = self._known.get(name)
        if known and known.stamp == stamp(self._file(name)):
            number = selector if at else str(known.pointers.meaning(name, key))
            if version := known.versions.get(number):
                return version, not at and version.number != known.pointers.promoted
        return await asyncio.to_thread(self._route_anew, reference, key)

    def read(self, name: str) -> Names:
        """Raises:
        StoreDamaged: the pointers of `name` are not what this program wrote.
        """
        # Before the files are read: a change in between is read the next time.
        now = stamp(self._file(name))
        known = self._known.get(name)
        if not known or known.stamp != now or not known.complete:
            pointers = self.store.pointers(name)
            there = {str(v.number): v for v in self.store.versions(name) if v.number not in pointers.retired}
            labels = {label: there[str(n)] for label, n in pointers.labels.items() if str(n) in there}
            known = self._known[name] = Names(name, now, pointers, there | labels)
        return known

    def _route_anew(self, reference: str, key: bytes) -> tuple[Version, bool]:
        version, canary = self.store.route(reference, key)
        # It may be a new version, which changes no pointer.
        self._known.pop(version.name, None)
        self.read(version.name)
        return version, canary

    def _file(self, name: str) -> str:
        return f"{self.store.directory}/{name}/{POINTERS}"
