"""Keeps what the engine holds in step with the store: promoted and pinned versions warm, retired ones out.

After a restart this is what brings the voices back, in the background: nobody waits for it, and a version that cannot
be loaded holds up no other. Only the state of the store counts, not how it came about, so that the command line, the
API and another server's operator all do the same by changing a pointer. This file knows neither HTTP nor vLLM.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import MailwrightError, StoreDamaged
from adapters.store.pointers import Pointers
from adapters.store.store import POINTERS, Store
from adapters.store.version import Version
from server.engine.residency import Residency

LOOK_SECONDS = 1.0
"""Between two looks at the store: a stat of one small file an adapter."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desired:
    """What the store asks for: versions to keep loaded, the most important first, and the ids that may not be."""

    wanted: tuple[Version, ...]
    pinned: frozenset[str]
    retired: frozenset[str]


class StoreReader:
    """Reads all pointers of a store again and again; only those that changed are read from the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[Path, tuple[tuple[int, int], Pointers, tuple[Version, ...]]] = {}

    def desired(self) -> Desired:
        """Pinned versions first, then the promoted and those on trial, the latest change first."""
        pinned, wanted, retired, seen = [], [], set(), {}
        for name in self._store.names():
            file = self._store.directory / name / POINTERS
            try:
                stat = file.stat()
                stamp = (stat.st_mtime_ns, stat.st_ino)
                known = self._seen.get(file)
                if known is None or known[0] != stamp:
                    pointers = self._store.pointers(name)
                    known = (stamp, pointers, tuple(self._named(name, pointers.wanted)))
            except (OSError, StoreDamaged):
                # Nothing promoted yet, or damaged: what is loaded stays as it is.
                continue
            pointers = known[1]
            # A publish moves the pointers before its version is there: then the next look has to come back to it.
            if len(known[2]) == len(pointers.wanted):
                seen[file] = known
            pinned += [version for version in known[2] if version.number in pointers.pinned]
            wanted += [(stamp[0], version) for version in known[2]]
            retired |= {f"{name}@{number}" for number in pointers.retired}
        self._seen = seen
        latest_first = [version for _, version in sorted(wanted, key=lambda entry: -entry[0])]
        return Desired(
            tuple(dict.fromkeys([*pinned, *latest_first])), frozenset(v.id for v in pinned), frozenset(retired)
        )

    def _named(self, name: str, numbers: list[int]) -> list[Version]:
        there = {version.number: version for version in self._store.versions(name)}
        return [there[number] for number in numbers if number in there]


async def reconcile(store: Store, residency: Residency, every: float = LOOK_SECONDS) -> None:
    """Until cancelled."""
    reader = StoreReader(store)
    while True:
        try:
            await reconcile_once(await asyncio.to_thread(reader.desired), residency)
        except Exception as exc:  # whatever it was, the next look must come: it may be over by then
            logger.warning("what is loaded could not be brought in step with the store: %s", type(exc).__name__)
        await asyncio.sleep(every)


async def reconcile_once(desired: Desired, residency: Residency) -> None:
    residency.prefer(frozenset(version.id for version in desired.wanted), desired.pinned)
    for version_id in residency.residents().keys() & desired.retired:
        await residency.unload(version_id)
    for version in desired.wanted:
        refused = residency.refusals()
        if version.id in residency.residents() or version.id in refused:
            continue
        # Nothing is dropped for what nobody has asked for yet, unless somebody pinned it.
        if not residency.has_room and version.id not in desired.pinned:
            continue
        try:
            await residency.load(version)
        except MailwrightError as exc:
            logger.warning("%s is not loaded: %s", version.id, exc)
