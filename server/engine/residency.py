"""Which versions the engine holds, in use or idle, being loaded or refused; and which one to evict for the next.

vLLM remembers no failure, rolls none back, and silently evicts the least recently used version: then it reads the files
again in the middle of a step. So a version is judged before vLLM sees it, a refusal lasts for a while, and this file
chooses which idle version to evict when the engine is full. It knows neither HTTP nor vLLM nor the store.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from adapters.errors import AdapterUnusable, Overloaded
from adapters.store.leases import Lease
from adapters.store.version import Version

# A cold load stalls every running stream while the engine copies it; callers beyond these had better come back.
MAX_COLD_LOADS = 8
# How long a refusal lasts: the cause may have been the disk, and may have been mended.
REFUSAL_SECONDS = 60.0

Reasons = list[str]
LoadResult = Literal["loaded", "refused", "failed"]


class Engine(Protocol):
    """Holds the weights; `load` returns the reasons if it failed, and then nothing of the version is left.

    One version may be loaded while another is still being unloaded.
    """

    async def load(self, version: Version) -> Reasons: ...

    async def unload(self, version: Version) -> None: ...


@dataclass
class Resident:
    """A version in the engine, `in_use` by so many requests; `leaving`: to be unloaded once these have ended."""

    version: Version
    idle_since: float
    in_use: int = 0
    leaving: bool = False


class Residency:
    """`judge` returns the reasons why a version cannot be served; it runs in a thread.

    `report` is called after every load with the version, the result and its seconds.
    """

    def __init__(
        self,
        judge: Callable[[Version], Reasons],
        engine: Engine,
        lease: Lease,
        capacity: int,
        report: Callable[[Version, LoadResult, float], Awaitable[None]],
        max_cold_loads: int = MAX_COLD_LOADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judge = judge
        self._engine = engine
        self._lease = lease
        self._capacity = capacity
        self._report = report
        self._max_cold_loads = max_cold_loads
        self._clock = clock
        self._residents: dict[str, Resident] = {}
        # The reasons, and until when they count.
        self._refusals: dict[Version, tuple[Reasons, float]] = {}
        self._loading: dict[Version, asyncio.Task[Reasons]] = {}
        # Versions that a waiting request needs; never evict these.
        self._awaited: Counter[str] = Counter()
        self._removals: set[asyncio.Task[None]] = set()
        self._wanted: frozenset[str] = frozenset()
        self._pinned: frozenset[str] = frozenset()
        # Held while the engine's versions change, so that two loads never take the same room.
        self._changing = asyncio.Lock()

    @asynccontextmanager
    async def using(self, version: Version) -> AsyncIterator[bool]:
        """Have `version` loaded as long as the context lasts; gives True if the caller had to wait for that.

        A caller that is cancelled does not stop the load, for which others may wait.

        Raises:
            AdapterUnusable: it fails validation or loading, now or a while ago.
            AdapterNotFound: its files are gone.
            Overloaded: too many other versions are being loaded, or all loaded ones are in use.
        """
        waited = False
        self._awaited[version.id] += 1
        try:
            # Nothing may be awaited between the last look and `in_use`.
            while (resident := self._resident(version)) is None:
                waited = True
                await self._load(version)
            resident.in_use += 1
        finally:
            self._awaited[version.id] -= 1
            if not self._awaited[version.id]:
                del self._awaited[version.id]
        try:
            yield waited
        finally:
            resident.in_use -= 1
            resident.idle_since = self._clock()
            if resident.leaving and not resident.in_use:
                removal = asyncio.create_task(self._remove(resident))
                self._removals.add(removal)
                removal.add_done_callback(self._removals.discard)
                removal.add_done_callback(_retrieve_failure)

    async def load(self, version: Version) -> None:
        """Load `version` ahead of requests; raises what `using` raises."""
        async with self.using(version):
            self._residents[version.id].leaving = False

    async def unload(self, version_id: str) -> bool:
        """Free the engine's memory of a version, at once or when its last request has ended; False if not loaded."""
        resident = self._residents.get(version_id)
        if resident is None:
            return False
        resident.leaving = True
        await self._remove(resident)
        return True

    def prefer(self, wanted: frozenset[str], pinned: frozenset[str]) -> None:
        """The ids of versions to evict last, and never."""
        self._wanted, self._pinned = wanted, pinned

    def residents(self) -> dict[str, Resident]:
        return dict(self._residents)

    def refusals(self) -> dict[str, Reasons]:
        """The reasons why versions are refused now, by their ids."""
        now = self._clock()
        return {version.id: reasons for version, (reasons, until) in self._refusals.items() if until > now}

    @property
    def has_room(self) -> bool:
        return len(self._residents) + len(self._loading) < self._capacity

    def _resident(self, version: Version) -> Resident | None:
        resident = self._residents.get(version.id)
        return resident if resident and resident.version == version else None

    async def _load(self, version: Version) -> None:
        reasons, until = self._refusals.get(version, ([], 0.0))
        if until <= self._clock():
            reasons = await asyncio.shield(self._loading.get(version) or self._start(version))
        if reasons:
            raise AdapterUnusable(version.id, reasons)

    def _start(self, version: Version) -> asyncio.Task[Reasons]:
        if len(self._loading) >= self._max_cold_loads:
            raise Overloaded(f"{len(self._loading)} adapters are being loaded already", retry_after=1)
        task = asyncio.create_task(self._admit(version), name=f"load {version.id}")
        self._loading[version] = task
        task.add_done_callback(lambda _: self._loading.pop(version))
        task.add_done_callback(_retrieve_failure)
        return task

    async def _admit(self, version: Version) -> Reasons:
        """Judge `version`, make room for it and load it; returns the reasons if that failed."""
        # Before the first look at the files: from now on gc does not remove them.
        await asyncio.to_thread(self._lease.acquire, version)
        started = time.monotonic()
        result: LoadResult | None = "failed"
        reasons: Reasons = []
        try:
            reasons = self._clash(version) or await asyncio.to_thread(self._judge, version)
            if reasons:
                result = "refused"
            else:
                async with self._changing:
                    leaving = self._make_room()
                    # Concurrent: both wait for the next engine step, so this takes one step instead of two.
                    _, reasons = await asyncio.gather(self._unload(leaving), self._engine.load(version))
                    if not reasons:
                        result = "loaded"
                        self._residents[version.id] = Resident(version, self._clock())
        except Overloaded:
            result = None
            raise
        finally:
            if result:
                await self._report(version, result, time.monotonic() - started)
            if result != "loaded":
                await asyncio.to_thread(self._lease.release, version)
        self._remember(version, reasons)
        return reasons

    def _remember(self, version: Version, reasons: Reasons) -> None:
        now = self._clock()
        self._refusals = {known: refusal for known, refusal in self._refusals.items() if refusal[1] > now}
        self._refusals.pop(version, None)
        if reasons:
            self._refusals[version] = reasons, now + REFUSAL_SECONDS

    def _clash(self, version: Version) -> Reasons:
        """vLLM knows a version by its name alone: a store emptied and filled again needs a new process."""
        held = self._residents.get(version.id)
        return [f"the server still holds another {version.id}, of {held.version.path.name}; restart it"] if held else []

    def _make_room(self) -> Resident | None:
        """Take the version to evict out of the residents if there is no room; the caller unloads it.

        Raises:
            Overloaded: every version is in use or pinned.
        """
        if len(self._residents) < self._capacity:
            return None
        needed = self._pinned | self._awaited.keys()
        idle = [r for r in self._residents.values() if not r.in_use and r.version.id not in needed]
        if not idle:
            raise Overloaded(f"all {self._capacity} adapters that fit into memory are in use", retry_after=2)
        evicted = min(idle, key=lambda r: (r.version.id in self._wanted, r.idle_since))
        return self._residents.pop(evicted.version.id)

    async def _remove(self, resident: Resident) -> None:
        async with self._changing:
            if not resident.in_use and self._resident(resident.version) is resident and resident.leaving:
                del self._residents[resident.version.id]
                await self._unload(resident)

    async def _unload(self, resident: Resident | None) -> None:
        """To be called under the lock, with a version that is not among the residents any more."""
        if resident:
            await self._engine.unload(resident.version)
            await asyncio.to_thread(self._lease.release, resident.version)


def _retrieve_failure(task: asyncio.Task[Any]) -> None:
    """Otherwise asyncio logs "exception was never retrieved" if all callers have gone."""
    if not task.cancelled():
        task.exception()
