"""Changing versions on the real server while people write; the long forms are in tests/soak."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from adapters.models.base_models import BaseModel
from adapters.store.gc import collect
from adapters.store.store import Store
from server.engine.residency import MAX_COLD_LOADS
from tests import bad_adapters, tiny
from tests.serving import RunningServer, memory_mb, running_server
from tests.swarm import PROMPTS, Reigns, Swarm, greedy

pytestmark = pytest.mark.vllm

PROMOTES = 40
SWAPS, KEPT, EVERY = 150, 5, 25
SWAPS_MB = 10
"""A version of the tiny base takes 0.16 MB as a file at rank 16: the last 100, had they stayed, would be seen."""


@dataclass(frozen=True)
class Begun:
    """A server that found all this in its store when it began; a bad version, and ids of three of `formal`."""

    server: RunningServer
    bad: str
    promoted: str
    pinned: str
    other: str


@pytest.fixture(scope="module")
def begun(base_model: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    directory = tmp_path_factory.mktemp("begun")
    store = Store(directory / "store")
    bad = tiny.publish(store, base_model, "a-bad-one", seed=51)
    bad_adapters.spoil("NaN", bad.path)
    promoted, pinned, other = (tiny.publish(store, base_model, "formal", seed).id for seed in (52, 53, 54))
    store.pin(pinned)
    with running_server(base_model, store, 4, directory / "server.log") as server:
        yield Begun(server, bad.id, promoted, pinned, other)


def memory_over_swaps(server: RunningServer, swaps: int) -> list[float]:
    """In MB, after every EVERY swaps but the first; a swap is a new version that is promoted and asked once.

    With one short answer each: vLLM's worker grows by some kilobytes an answer, swaps or none (DECISIONS.md).
    """
    memory = []
    for number in range(1, swaps + 1):
        version = tiny.publish(server.store, server.base, "swapping", seed=number % 6, rank=16)
        server.store.promote(version.id)
        assert server.ask("swapping", max_tokens=2).json()["model"] == version.id
        if number > KEPT:
            server.store.retire(f"swapping@{number - KEPT}")
        if number % EVERY == 0:
            collect(server.store)
            memory.append(memory_mb(server.process.pid))
    # Two more may be there from the beginning.
    asyncio.run(until(lambda: server.metric("mailwright_adapters_resident ") <= KEPT + 2))
    return memory[1:]


def shown(server: RunningServer, reference: str) -> dict:
    return httpx.get(f"{server.url}/v1/adapters/{reference}", timeout=60).raise_for_status().json()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


async def together(*asked: Callable[[], httpx.Response]) -> list[httpx.Response]:
    return await asyncio.gather(*(asyncio.to_thread(one) for one in asked))


def test_no_answer_under_promotes_fails_or_comes_from_a_version_that_was_not_promoted(server: RunningServer):
    versions = [tiny.publish(server.store, server.base, "swapped", seed).id for seed in (41, 42, 43, 44)]
    texts = {(version, prompt): greedy(server.url, version, prompt) for version in versions for prompt in PROMPTS}
    assert len(set(texts.values())) == len(texts)
    reigns = Reigns()
    swarm = Swarm(server.url, reigns, lambda version, prompt: texts.get((version, prompt)), ["swapped"])

    async def promote() -> None:
        with reigns.change("swapped", {versions[0]}):
            await asyncio.to_thread(server.store.promote, versions[0])
        for number in range(PROMOTES):
            answered = swarm.counts["answered"]
            await until(lambda answered=answered: swarm.counts["answered"] >= answered + 4 or bool(swarm.failures))
            version = versions[number % len(versions)]
            with reigns.change("swapped", {version}):
                await asyncio.to_thread(server.store.promote, version)

    asyncio.run(swarm.run(8, promote()))
    assert swarm.failures == []
    assert swarm.counts["answered"] >= 4 * PROMOTES


def test_swaps_leave_no_memory_behind(begun: Begun):
    """`make soak` does it 500 times."""
    memory = memory_over_swaps(begun.server, SWAPS)
    assert max(memory) - memory[0] < SWAPS_MB, f"memory grew: {memory}"


def test_a_stream_ends_on_the_version_that_it_began_with(server: RunningServer):
    first, second = (tiny.publish(server.store, server.base, "steady", seed).id for seed in (45, 46))
    body = {"model": "steady", "prompt": "Go on.", "max_tokens": 400, "temperature": 0, "ignore_eos": True}
    alone = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).json()
    assert alone["model"] == first
    events = []
    with httpx.stream("POST", f"{server.url}/v1/completions", json={**body, "stream": True}, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line.removeprefix("data: ")))
            if len(events) == 1:
                server.store.promote(second)
                assert server.ask("steady").json()["model"] == second
    assert {event["model"] for event in events} == {first}
    assert "".join(event["choices"][0]["text"] for event in events if event["choices"]) == alone["choices"][0]["text"]


@pytest.mark.parametrize("end", ["promote", "rollback"])
def test_a_canary_answers_its_share_under_a_series_of_its_own_until_it_ends(server: RunningServer, end: str):
    name = f"trial-{end}"
    old, new = (tiny.publish(server.store, server.base, name, seed).id for seed in (49, 50))
    people = [f"person {number}" for number in range(24)]

    def writers() -> dict[str, str]:
        return {person: server.ask(name, user=person, max_tokens=2).json()["model"] for person in people}

    def counted() -> list[float]:
        return [server.metric(f'mailwright_requests_total{{adapter="{of}"') for of in (name, f"{name}@canary")]

    server.store.promote(new, percent=40)
    drawn = writers()
    assert writers() == drawn, "one person meets one version"
    shares = Counter(drawn.values())
    assert set(shares) == {old, new}
    assert counted() == [2 * shares[old], 2 * shares[new]]
    after = {"promote": new, "rollback": old}[end]
    server.store.promote(new) if end == "promote" else server.store.roll_back(name)
    assert set(writers().values()) == {after}
    assert counted() == [2 * shares[old] + len(people), 2 * shares[new]]


def test_a_server_begins_with_what_was_promoted_and_pinned_past_a_bad_adapter(begun: Begun):
    """Also after a restart, since all that it knows lies in the store (tests/soak restarts one again and again)."""
    server, warm = begun.server, (begun.promoted, begun.pinned)
    asyncio.run(until(lambda: all(shown(server, version)["loaded"] for version in warm)))
    assert not shown(server, begun.other)["loaded"]
    assert shown(server, begun.bad)["refused"]
    assert server.loads("formal") == 2
    for version in warm:
        assert server.ask(version).json()["model"] == version
    assert server.loads("formal") == 2, "it was warm before it was asked for"


def test_no_block_of_the_old_weights_is_found_in_the_prefix_cache(server: RunningServer, keyed: RunningServer):
    body = {
        "prompt": "A long beginning that every request shares. " * 24,
        "max_tokens": 32,
        "temperature": 0,
        "model": "cached",
        "logprobs": 3,
        "ignore_eos": True,
    }

    def written(url: str, **headers: str) -> dict:
        return httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=120).raise_for_status().json()

    tiny.publish(server.store, server.base, "cached", seed=47)
    old = [written(server.url)]
    before = server.metric("vllm:prefix_cache_hits_total")
    old.append(written(server.url))
    # In tokens: more than the last words of the prompt.
    assert server.metric("vllm:prefix_cache_hits_total") - before > len(body["prompt"]) / 2
    assert old[0]["choices"][0]["text"] == old[1]["choices"][0]["text"]
    server.store.promote(tiny.publish(server.store, server.base, "cached", seed=48).id)
    new = [written(server.url) for _ in range(2)]

    # A server that only ever saw the new weights under that name.
    tiny.publish(keyed.store, keyed.base, "cached", seed=48)
    right = written(keyed.url, Authorization="Bearer sesame")
    assert {answer["choices"][0]["text"] for answer in new} == {right["choices"][0]["text"]}
    assert right["choices"][0]["text"] != old[0]["choices"][0]["text"]
    for answer in new:
        expected = right["choices"][0]["logprobs"]["token_logprobs"]
        assert answer["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=1e-3)


def test_a_retired_version_leaves_the_engine_after_its_last_request(server: RunningServer):
    first, second = (tiny.publish(server.store, server.base, "passing", seed).id for seed in (49, 50))
    server.ask(second)
    assert shown(server, second)["loaded"]
    # Long enough that it is still being written when a slow machine has come to look.
    body = {"model": second, "prompt": "Go on.", "max_tokens": 1900, "n": 8, "ignore_eos": True, "stream": True}
    in_use = []
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120) as answer:
        lines = answer.iter_lines()
        next(lines)
        in_use.append(shown(server, second)["in_use"])
        server.store.retire(second)
        assert server.ask(second).status_code == 404
        rest = list(lines)
    assert in_use == [1]
    assert "data: [DONE]" in rest
    asyncio.run(until(lambda: not shown(server, second)["loaded"]))

    def engine_holds_what_is_shown() -> bool:
        adapters = httpx.get(f"{server.url}/v1/adapters", timeout=60).json()["data"]
        loaded = sum(version["loaded"] for adapter in adapters for version in adapter["versions"])
        return server.metric("mailwright_adapters_resident") == loaded

    asyncio.run(until(engine_holds_what_is_shown))
    assert server.ask(first).status_code == 200


def test_twenty_first_requests_for_a_version_are_one_load(server: RunningServer):
    tiny.publish(server.store, server.base, "sought", seed=51)
    cold = tiny.publish(server.store, server.base, "sought", seed=52).id
    before = server.loads("sought")
    answers = asyncio.run(together(*[lambda: server.ask(cold)] * 20))
    assert {answer.status_code for answer in answers} == {200}
    # The promoted version is loaded ahead, perhaps just now.
    assert server.loads("sought") - before <= 2
    assert server.loads("sought") in (1, 2)


def test_made_up_names_load_nothing_and_add_no_series(server: RunningServer):
    turned_away = 'mailwright_requests_total{adapter="_unknown",outcome="client_error"}'
    before = server.metric(turned_away)
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for number in range(1000):
            body = {"model": f"junk-{number}", "prompt": "Write.", "max_tokens": 1}
            assert client.post("/v1/completions", json=body).status_code == 404
    assert server.metric(turned_away) == before + 1000
    exposed = httpx.get(f"{server.url}/metrics", timeout=60).text
    assert "junk" not in exposed
    assert 'mailwright_adapter_loads_total{adapter="_unknown"' not in exposed


def test_too_many_cold_versions_at_once_are_told_to_come_back(server: RunningServer):
    promoted, *cold = [tiny.publish(server.store, server.base, "crowd", 60).id for _ in range(MAX_COLD_LOADS + 5)]
    # Otherwise the server may begin to load it by itself just then, and that counts.
    assert server.ask(promoted).status_code == 200

    async def scene() -> None:
        # Nothing of the name can be loaded while somebody else has its lock.
        with server.store.locked("crowd"):
            asked = [asyncio.create_task(asyncio.to_thread(server.ask, version)) for version in cold]
            await until(lambda: sum(task.done() for task in asked) == len(cold) - MAX_COLD_LOADS)
            refused = [task.result() for task in asked if task.done()]
            assert {answer.status_code for answer in refused} == {503}
            assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers].count(200) == MAX_COLD_LOADS

    with ThreadPoolExecutor(len(cold) + 2) as pool, asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(pool)
        runner.run(scene())
    assert {server.ask(version).status_code for version in cold} == {200}
    server.store.retire("crowd")
