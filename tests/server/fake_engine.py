"""A stand-in for vLLM's engine and the store's lease: counts what it is asked, and can refuse, fail or be slow."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from adapters.errors import AdapterNotFound
from adapters.store.version import Version
from server.engine.residency import Residency


class FakeEngine:
    """`judged` and `loaded` are what judging and loading answer; loads wait while `gate` is closed."""

    def __init__(self, judged: list[str] | None = None, loaded: list[str] | None = None) -> None:
        self.judged, self.loaded = judged or [], loaded or []
        self.judge_calls: list[str] = []
        self.load_calls: list[str] = []
        self.held: list[str] = []
        self.leased: list[str] = []
        self.gone: set[str] = set()
        self.broken: Exception | None = None
        self.reported: list[tuple[str, str]] = []
        self.now = 0.0
        self.gate = asyncio.Event()
        self.gate.set()

    def residency(self, capacity: int = 4, **options: int) -> Residency:
        return Residency(self.judge, self, self, capacity, self.report, clock=lambda: self.now, **options)

    def judge(self, version: Version) -> list[str]:
        self.judge_calls.append(version.id)
        return self.judged

    async def load(self, version: Version) -> list[str]:
        self.load_calls.append(version.id)
        await self.gate.wait()
        if self.broken:
            raise self.broken
        if not self.loaded:
            assert version.id not in self.held
            self.held.append(version.id)
        return self.loaded

    async def unload(self, version: Version) -> None:
        self.held.remove(version.id)

    def acquire(self, version: Version) -> None:
        if version.id in self.gone:
            raise AdapterNotFound(f"{version.id} is gone")
        self.leased.append(version.id)

    def release(self, version: Version) -> None:
        self.leased.remove(version.id)

    async def report(self, version: Version, result: str, seconds: float) -> None:
        assert seconds >= 0
        self.reported.append((version.name, result))


def version(name: str, number: int = 1) -> Version:
    return Version(name, number, Path(f"/store/{name}/{number}-0123456789ab"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
