"""The versions of a store in one server: where they lie, which are loaded, and what keeps both in step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from adapters.store.audit import acting_as
from adapters.store.leases import HEARTBEAT_SECONDS, Lease
from adapters.store.store import Store
from adapters.store.version import Version
from server.engine.reconcile import reconcile
from server.engine.residency import Engine, LoadResult, Reasons, Residency
from server.engine.store_reader import StoreReader


class Voices:
    """`judge` and `capacity` are those of Residency; `count` is called on the event loop for every load that ended."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        judge: Callable[[Version], Reasons],
        capacity: int,
        count: Callable[[str, LoadResult, float], None],
    ) -> None:
        self.store = store
        self.reader = StoreReader(store)
        self._lease = Lease(store.directory)
        self._count = count
        self.residency = Residency(judge, engine, self._lease, capacity, self._load_ended)

    async def keep(self) -> None:
        """Keep the lease alive and reconcile what is loaded with the store, until cancelled."""
        with acting_as("server"):
            await asyncio.gather(self._beat(), reconcile(self.reader, self.residency))

    async def _beat(self) -> None:
        while True:
            # A lease survives a lost beat, and the next may succeed.
            with suppress(OSError):
                await asyncio.to_thread(self._lease.beat)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _load_ended(self, version: Version, result: LoadResult, seconds: float) -> None:
        self._count(version.name, result, seconds)
        await asyncio.to_thread(self.store.audit.record, "load", version, result=result)
