"""How the real server ends: asked to, its time up, its engine killed."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests.serving import RunningServer, running_server

pytestmark = pytest.mark.vllm

LONG = {"model": "formal", "prompt": "Write.", "stream": True, "max_tokens": 1900, "ignore_eos": True, "temperature": 0}
ENDLESS = LONG | {"n": 8, "temperature": 1}
"""Takes the engine longer than any reader takes to see that it has begun."""
SHORT = {"model": "formal", "prompt": "Write.", "max_tokens": 2}


@asynccontextmanager
async def streams(
    server: RunningServer, count: int, request: dict[str, object] = LONG
) -> AsyncIterator[list[asyncio.Task[list[str]]]]:
    """That many long answers, all begun; each task gives its events once it has ended."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        begun = [asyncio.Event() for _ in range(count)]

        async def read(first: asyncio.Event) -> list[str]:
            events = []
            async with client.stream("POST", "/v1/completions", json=request) as answer:
                async for line in answer.aiter_lines():
                    if line:
                        events.append(line.removeprefix("data: "))
                        first.set()
            return events

        reading = [asyncio.create_task(read(first)) for first in begun]
        async with asyncio.timeout(120):
            for first in begun:
                await first.wait()
        yield reading


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


async def status_of_a_new_request(url: str) -> tuple[int, dict] | None:
    """None once nobody answers."""
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            answer = await client.post("/v1/completions", json=SHORT)
            return answer.status_code, answer.json()
    except httpx.TransportError:
        return None


def error_code(event: str) -> str | None:
    return json.loads(event).get("error", {}).get("code") if event.startswith("{") else None


@pytest.fixture
def own(base_model: BaseModel, voices: Store, tmp_path: Path) -> Callable[..., object]:
    """Servers that a test may end as it likes."""

    def start(*arguments: str) -> object:
        return running_server(base_model, voices, 1, tmp_path / "server.log", arguments=arguments)

    return start


def test_asked_to_stop_it_finishes_what_it_has_begun_takes_nothing_new_and_exits_with_0(own: Callable):
    # More than a slow machine needs for the four answers.
    with own("--shutdown-seconds", "200") as server:

        async def scene() -> None:
            async with streams(server, 8) as reading:
                server.process.send_signal(signal.SIGTERM)
                refused = []

                async def is_refused() -> bool:
                    answer = await status_of_a_new_request(server.url)
                    refused.extend([answer] if answer and answer[0] == 503 else [])
                    return bool(refused)

                await until(is_refused)
                assert refused[0][1]["error"]["code"] == "overloaded"
                assert "shutting down" in refused[0][1]["error"]["message"]
                for events in await asyncio.gather(*reading):
                    assert events[-1] == "[DONE]"
                    # Not the number of events: where the engine is faster than its reader, one holds several tokens.
                    assert json.loads(events[-2])["usage"]["completion_tokens"] == LONG["max_tokens"]

        asyncio.run(scene())
        assert server.process.wait(60) == 0


def test_what_takes_longer_than_the_limit_ends_with_an_error_and_not_just_so(own: Callable):
    with own("--shutdown-seconds", "1") as server:

        async def scene() -> None:
            async with streams(server, 8, ENDLESS) as reading:
                server.process.send_signal(signal.SIGTERM)
                ends = [events[-1] for events in await asyncio.gather(*reading)]
                assert {end if end == "[DONE]" else error_code(end) for end in ends} <= {"[DONE]", "overloaded"}
                assert ends.count("[DONE]") < len(ends)

        asyncio.run(scene())
        assert server.process.wait(60) == 0


def test_a_dead_engine_ends_every_stream_with_an_error_and_the_server_with_1(own: Callable):
    with own() as server:

        async def scene() -> None:
            async with streams(server, 8, ENDLESS) as reading:
                for child in psutil.Process(server.process.pid).children(recursive=True):
                    if "EngineCore" in child.name():
                        child.kill()
                answer = await status_of_a_new_request(server.url)
                assert answer is None or (answer[0] >= 500 and answer[1]["error"]["code"])
                ends = [events[-1] for events in await asyncio.gather(*reading)]
                assert {error_code(end) for end in ends} == {"internal_error"}

        asyncio.run(scene())
        assert server.process.wait(60) == 1
        assert "vLLM's engine process ended by itself" in server.log.read_text()


def test_a_killed_server_leaves_no_process(own: Callable):
    with own() as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert any("EngineCore" in child.name() for child in children)
        server.process.kill()
        _, left = psutil.wait_procs(children, timeout=30)
        assert left == []
