import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adapters.errors import Overloaded
from server.engine import shutdown as shutdown_module
from server.engine.shutdown import Shutdown
from tests.server.fake_engine import until


class FakeClient:
    def __init__(self, errored: bool = False) -> None:
        self.errored = errored
        self.timeouts: list[float] = []

    def shutdown(self, timeout: float) -> None:
        self.timeouts.append(timeout)
        self.errored = True


def play(client: FakeClient, scene: Callable[[Shutdown], Awaitable[None]]) -> Shutdown:
    async def stage() -> Shutdown:
        shutdown = Shutdown()
        shutdown.follow(client)
        await scene(shutdown)
        return shutdown

    return asyncio.run(stage())


async def endless_answer(shutdown: Shutdown) -> asyncio.Task[None]:
    """One that has begun."""

    async def answer() -> None:
        with shutdown.in_flight():
            await asyncio.Event().wait()

    begun = asyncio.create_task(answer())
    await asyncio.sleep(0)
    return begun


def test_from_the_shutdown_of_the_engine_on_nothing_new_begins():
    client = FakeClient()

    async def scene(shutdown: Shutdown) -> None:
        with shutdown.in_flight():
            pass
        client.shutdown(timeout=30)
        with pytest.raises(Overloaded, match="shutting down") as refused, shutdown.in_flight():
            pytest.fail("it began")
        assert refused.value.retry_after > 0

    play(client, scene)
    assert client.timeouts == [30]


def test_what_the_engine_did_not_finish_is_told_so_a_while_after_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutdown_module, "LAST_TOKENS_SECONDS", 0.01)
    client = FakeClient()

    async def scene(shutdown: Shutdown) -> None:
        waiting = await endless_answer(shutdown)
        await asyncio.to_thread(client.shutdown, timeout=1)
        await until(waiting.done)
        assert isinstance(waiting.exception(), Overloaded)

    play(client, scene)


def test_a_request_that_is_cancelled_for_another_reason_stays_cancelled():
    async def scene(shutdown: Shutdown) -> None:
        waiting = await endless_answer(shutdown)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    play(FakeClient(), scene)


def test_what_fails_because_its_engine_is_being_shut_down_is_told_that():
    client = FakeClient()

    def answer(shutdown: Shutdown) -> None:
        with shutdown.in_flight():
            client.shutdown(timeout=1)
            raise RuntimeError("the engine is gone")

    async def scene(shutdown: Shutdown) -> None:
        with pytest.raises(Overloaded):
            answer(shutdown)
        assert not shutdown.engine_died

    play(client, scene)


def test_an_engine_that_was_asked_to_stop_did_not_die():
    client = FakeClient()

    async def scene(shutdown: Shutdown) -> None:
        client.shutdown(timeout=30)
        client.shutdown(timeout=0)

    assert not play(client, scene).engine_died


def test_an_engine_that_had_failed_before_anybody_stopped_it_died():
    client = FakeClient(errored=True)

    async def scene(shutdown: Shutdown) -> None:
        client.shutdown(timeout=0)

    assert play(client, scene).engine_died
