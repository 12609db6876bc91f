"""Keeps what the engine holds in step with the store: promoted and pinned versions loaded, retired ones unloaded.

After a restart this loads the voices again, in the background; a version that cannot be loaded delays no other. Only
the state of the store counts, so that the command line, the API and other servers all act by changing a pointer.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from adapters.errors import MailwrightError, StoreDamaged
from adapters.store.version import Version
from server.engine.residency import Residency
from server.engine.store_reader import Names, StoreReader

# Between two looks at the store: a stat of one small file an adapter.
LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desired:
    """Versions to keep loaded, the most important first, and the ids of those that may not be."""

    wanted: tuple[Version, ...]
    pinned: frozenset[str]
    retired: frozenset[str]


def desired(reader: StoreReader) -> Desired:
    """Pinned versions first, then the promoted and canary versions, the latest change first. Reads the disk."""
    found: list[Names] = []
    for name in reader.store.names():
        # A damaged adapter keeps what it has loaded.
        with suppress(OSError, StoreDamaged):
            found.append(reader.read(name))
    found.sort(key=lambda names: names.stamp or (0, 0, 0), reverse=True)
    wanted = [version for names in found for version in names.wanted]
    pinned = [version for names in found for version in names.wanted if version.number in names.pointers.pinned]
    return Desired(
        tuple(dict.fromkeys([*pinned, *wanted])),
        frozenset(version.id for version in pinned),
        frozenset(f"{names.name}@{number}" for names in found for number in names.pointers.retired),
    )


async def reconcile(reader: StoreReader, residency: Residency, every: float = LOOK_SECONDS) -> None:
    """Until cancelled."""
    while True:
        try:
            await reconcile_once(await asyncio.to_thread(desired, reader), residency)
        except Exception as exc:  # whatever it was, it may be over at the next look
            logger.warning("the loaded versions could not be reconciled with the store: %s", type(exc).__name__)
        await asyncio.sleep(every)


async def reconcile_once(desired: Desired, residency: Residency) -> None:
    residency.prefer(frozenset(version.id for version in desired.wanted), desired.pinned)
    for version_id in residency.residents().keys() & desired.retired:
        await residency.unload(version_id)
    for version in desired.wanted:
        refused = residency.refusals()
        if version.id in residency.residents() or version.id in refused:
            continue
        # Only a pinned version evicts another before the first request for it.
        if not residency.has_room and version.id not in desired.pinned:
            continue
        try:
            await residency.load(version)
        except MailwrightError as exc:
            logger.warning("%s is not loaded: %s", version.id, exc)
