"""Half an hour of everything at once: clients, publishes, promotes, canaries, rollbacks, labels, retires, gc, exports
and imports by the real `adapters` command, and servers that are stopped, killed and started again."""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from adapters.models.base_models import BaseModel
from adapters.models.validate import reasons_against
from adapters.store.gc import verify
from adapters.store.pointers import Pointers
from adapters.store.store import Store
from tests import tiny
from tests.serving import ROOT, RunningServer, memory_mb, running_server
from tests.soak.conftest import GROWTH_MB, MINUTES, Show
from tests.swarm import PROMPTS, Absence, Reigns, Swarm, greedy

NAMES = ["formal", "friendly", "terse"]
SEEDS = range(1, 7)
CLIENTS = 8
ENDS = [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
"""How servers end, evenly spread over the time."""


class Operator:
    """Does one thing after the other to the store, and tells `reigns` before and after."""

    def __init__(self, store: Store, base: BaseModel, reigns: Reigns, directory: Path) -> None:
        self.store, self.base, self.reigns, self.directory = store, base, reigns, directory
        self.seeds: dict[str, int] = {}
        self.done: Counter[str] = Counter()
        self._choose = random.Random(7)
        self._actions = [
            *([self.publish] * 5 + [self.promote] * 5 + [self.canary] * 2 + [self.roll_back] * 2),
            *([self.retire] * 4 + [self.collect] * 2 + [self.label, self.verify, self.export_and_import]),
        ]

    async def begin(self) -> None:
        """Three versions of every name, the first promoted, the second labelled."""
        for name in NAMES:
            with self.reigns.change(name, {f"{name}@1"}):
                await self.publish(name)
            for _ in range(2):
                await self.publish(name)
            with self.reigns.change(f"{name}@candidate", {f"{name}@2"}):
                self.store.label(f"{name}@2", "candidate")

    async def publish(self, name: str = "") -> None:
        name = name or self._choose.choice(NAMES)
        seed = self._choose.choice(SEEDS)
        version = await asyncio.to_thread(tiny.publish, self.store, self.base, name, seed)
        self.seeds[version.id] = seed

    async def act(self) -> None:
        action = self._choose.choice(self._actions)
        await action()
        self.done[action.__name__] += 1

    async def promote(self) -> None:
        name, number = self._some_version()
        with self._pointing(name, self.store.pointers(name).with_promoted(number)):
            await command("promote", f"{name}@{number}", store=self.store)

    async def canary(self) -> None:
        name, number = self._some_version()
        if number != self.store.pointers(name).promoted:
            with self._pointing(name, self.store.pointers(name).with_canary(number, 30)):
                await command("promote", f"{name}@{number}", "--percent", "30", store=self.store)

    async def roll_back(self) -> None:
        name = self._choose.choice(NAMES)
        pointers = self.store.pointers(name)
        if pointers.canary or any(number not in pointers.retired for number in pointers.history):
            with self._pointing(name, pointers.rolled_back()):
                await command("rollback", name, store=self.store)

    async def label(self) -> None:
        name, number = self._some_version()
        with self.reigns.change(f"{name}@candidate", {f"{name}@{number}"}):
            await command("label", f"{name}@{number}", "candidate", store=self.store)

    async def retire(self) -> None:
        """The oldest that nothing means."""
        name = self._choose.choice(NAMES)
        pointers = self.store.pointers(name)
        meant = {*pointers.wanted, *pointers.labels.values()}
        old = [v for v in self._living(name) if v not in meant][:-2]
        if old:
            await command("retire", f"{name}@{old[0]}", store=self.store)

    async def collect(self) -> None:
        await command("gc", store=self.store)

    async def verify(self) -> None:
        await command("verify", store=self.store)

    async def export_and_import(self) -> None:
        name, number = self._some_version()
        exported = self.directory / f"{name}-{number}-{time.monotonic_ns()}"
        await command("export", f"{name}@{number}", str(exported), store=self.store)
        await command("import", str(exported), "--name", name, store=self.store)
        self.seeds[self.store.versions(name)[-1].id] = self.seeds[f"{name}@{number}"]

    def _living(self, name: str) -> list[int]:
        retired = self.store.pointers(name).retired
        return [version.number for version in self.store.versions(name) if version.number not in retired]

    def _some_version(self) -> tuple[str, int]:
        name = self._choose.choice(NAMES)
        return name, self._choose.choice(self._living(name))

    def _pointing(self, name: str, to: Pointers):
        meant = {to.promoted} | ({to.canary.version} if to.canary else set())
        return self.reigns.change(name, {f"{name}@{number}" for number in meant})


async def command(*arguments: str, store: Store) -> None:
    """The `adapters` command as a process, of the same tree as the server."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "adapters.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "MAILWRIGHT_STORE": str(store.directory)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"adapters {' '.join(arguments)}: {out.decode()} {err.decode()}"


class Servers:
    """One server after the other over one store."""

    def __init__(self, base: BaseModel, store: Store, directory: Path) -> None:
        self._base, self._store, self._directory = base, store, directory
        self._stack = ExitStack()
        self.started = 0
        self.statuses: list[int] = []
        self.now: RunningServer

    def start(self) -> None:
        self.started += 1
        log = self._directory / f"server-{self.started}.log"
        self.now = self._stack.enter_context(running_server(self._base, self._store, 4, log))

    def end(self, how: signal.Signals) -> None:
        if how == signal.SIGKILL:
            os.killpg(self.now.process.pid, how)
        else:
            self.now.process.send_signal(how)
        self.statuses.append(self.now.process.wait(120))
        self._stack.close()

    def close(self) -> None:
        self._stack.close()


@pytest.mark.timeout(MINUTES * 60 + 1200)
def test_half_an_hour_of_everything_at_once(base_model: BaseModel, tmp_path: Path, show: Show):
    store, reigns = Store(tmp_path / "store"), Reigns()
    operator = Operator(store, base_model, reigns, tmp_path)
    servers = Servers(base_model, store, tmp_path)
    memory: list[tuple[float, float]] = []
    began = time.monotonic()

    async def work(swarm: Swarm) -> None:
        for part in range(len(ENDS) + 1):
            until = began + MINUTES * 60 * (part + 1) / (len(ENDS) + 1)
            await asyncio.sleep(5)  # not a condition to wait for: what a server takes at first is no leak
            at_first = memory_mb(servers.now.process.pid)
            while time.monotonic() < until:
                await operator.act()
                assert swarm.failures == []
            memory.append((round(at_first), round(memory_mb(servers.now.process.pid))))
            if part < len(ENDS):
                absence = Absence(time.monotonic(), asked=ENDS[part] == signal.SIGTERM)
                swarm.away.append(absence)
                await asyncio.to_thread(servers.end, ENDS[part])
                await asyncio.to_thread(servers.start)
                swarm.url = servers.now.url
                absence.until = time.monotonic()

    async def everything() -> Swarm:
        await operator.begin()
        known = [tiny.publish(store, base_model, "texts", seed) for seed in SEEDS]
        await asyncio.to_thread(servers.start)
        written = {
            (seed, prompt): greedy(servers.now.url, version.id, prompt)
            for seed, version in zip(SEEDS, known, strict=True)
            for prompt in PROMPTS
        }
        base = {prompt: greedy(servers.now.url, "base", prompt) for prompt in PROMPTS}

        def expected(version: str, prompt: str) -> str | None:
            if version == base_model.name:
                return base[prompt]
            return written.get((operator.seeds.get(version, 0), prompt))

        asked = [*NAMES, *NAMES, *[f"{name}@candidate" for name in NAMES], "base"]
        swarm = Swarm(servers.now.url, reigns, expected, asked)
        await swarm.run(CLIENTS, work(swarm))
        return swarm

    try:
        swarm = asyncio.run(everything())
    finally:
        servers.close()
    damage = [f for f in verify(store, lambda v: reasons_against(v.path, base_model), 0) if not f.removable]
    show(
        "half_hour",
        {
            "minutes": round((time.monotonic() - began) / 60, 1),
            "clients": CLIENTS,
            **dict(sorted(swarm.counts.items())),
            "failed": len(swarm.failures),
            "events": swarm.tokens,
            **{f"commands: {what}": count for what, count in sorted(operator.done.items())},
            "server ends (status)": servers.statuses,
            "memory in MB, first and last of each server": memory,
            "damage found by verify": len(damage),
        },
    )
    assert swarm.failures == []
    assert damage == []
    assert servers.statuses == [0 if how == signal.SIGTERM else -how for how in ENDS]
    assert all(last - first < GROWTH_MB for first, last in memory)
