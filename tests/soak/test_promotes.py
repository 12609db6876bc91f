"""500 new versions, each published and promoted under 8 streaming clients, old ones retired and collected."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from adapters.models.base_models import BaseModel
from adapters.store.gc import collect, verify
from adapters.store.store import Store
from tests import tiny
from tests.server.api.test_swap import SWAPS_MB, memory_over_swaps
from tests.serving import memory_mb, running_server
from tests.soak.conftest import GROWTH_MB, Show
from tests.swarm import PROMPTS, Reigns, Swarm, greedy

PROMOTES, KEPT, SEEDS = 500, 5, range(1, 7)
SETTLED = 100
"""Promotes after which memory is compared: by then every buffer has its size."""


@pytest.mark.timeout(3600)
def test_five_hundred_promotes_under_eight_streaming_clients(base_model: BaseModel, tmp_path: Path, show: Show):
    store = Store(tmp_path / "store")
    seeds = {tiny.publish(store, base_model, "texts", seed).id: seed for seed in SEEDS}
    resident: list[float] = []
    memory: list[float] = []
    with running_server(base_model, store, 4, tmp_path / "server.log") as server:
        texts = {(seed, p): greedy(server.url, version, p) for version, seed in seeds.items() for p in PROMPTS}
        reigns = Reigns()
        swarm = Swarm(
            server.url, reigns, lambda version, prompt: texts.get((seeds.get(version, 0), prompt)), ["formal"]
        )
        began = time.monotonic()

        with reigns.change("formal", {"formal@1"}):
            seeds[tiny.publish(store, base_model, "formal", SEEDS[0]).id] = SEEDS[0]

        async def promote_again_and_again() -> None:
            for number in range(2, PROMOTES + 2):
                seed = SEEDS[number % len(SEEDS)]
                version = await asyncio.to_thread(tiny.publish, store, base_model, "formal", seed)
                seeds[version.id] = seed
                with reigns.change("formal", {version.id}):
                    await asyncio.to_thread(store.promote, version.id)
                answered = swarm.counts["answered"]
                while swarm.counts["answered"] < answered + 4 and not swarm.failures:
                    await asyncio.sleep(0.01)
                if number > KEPT:
                    await asyncio.to_thread(store.retire, f"formal@{number - KEPT}")
                if number % 50 == 0:
                    await asyncio.to_thread(collect, store)
                    resident.append(await asyncio.to_thread(server.metric, "mailwright_adapters_resident "))
                    memory.append(memory_mb(server.process.pid))
                assert swarm.failures == []

        asyncio.run(swarm.run(8, promote_again_and_again()))
    findings = [finding for finding in verify(store, lambda _: [], 0) if not finding.removable]
    settled = memory[SETTLED // 50 - 1 :]
    show(
        "promotes",
        {
            "promotes": PROMOTES,
            "clients": 8,
            "seconds": round(time.monotonic() - began),
            "answers": swarm.counts["answered"],
            "events": swarm.tokens,
            "failed": len(swarm.failures),
            "versions in the engine at most": max(resident),
            "memory in MB, every 50 promotes": json.dumps([round(mb) for mb in memory]),
        },
    )
    assert swarm.failures == []
    assert findings == []
    assert max(resident) <= len(SEEDS) + 3 * KEPT
    assert settled[-1] - settled[0] < GROWTH_MB, f"memory grew: {settled}"


@pytest.mark.timeout(3600)
def test_five_hundred_swaps_leave_no_memory_behind(base_model: BaseModel, tmp_path: Path, show: Show):
    with running_server(base_model, Store(tmp_path / "store"), 4, tmp_path / "server.log") as server:
        memory = memory_over_swaps(server, PROMOTES)
    show("swaps", {"swaps": PROMOTES, "memory in MB": json.dumps([round(mb) for mb in memory])})
    assert max(memory) - memory[0] < SWAPS_MB, f"memory grew: {memory}"
