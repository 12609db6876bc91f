"""Loading, refusing, using, unloading and making room, with an engine that only counts."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterNotFound, AdapterUnusable, Overloaded
from adapters.store.version import Version
from server.engine.residency import REFUSAL_SECONDS, Residency
from tests.server.fake_engine import FakeEngine, until, version

FORMAL, FRIENDLY, TERSE = version("formal"), version("friendly"), version("terse")


def play(engine: FakeEngine, scene: Callable[[Residency], Awaitable[None]], **options: int) -> None:
    async def stage() -> None:
        await scene(engine.residency(**options))

    asyncio.run(stage())


async def use(residency: Residency, wanted: Version) -> bool:
    """One request, which ends at once; whether it had to wait."""
    async with residency.using(wanted) as waited:
        return waited


def test_twenty_first_requests_load_once():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await asyncio.gather(*(use(residency, FORMAL) for _ in range(20)))
        await use(residency, FORMAL)

    play(engine, scene)
    assert engine.judge_calls == engine.load_calls == ["formal@1"]
    assert engine.leased == engine.held == ["formal@1"]


def test_who_waited_for_the_load_knows_it_and_the_load_is_reported_once():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        assert await asyncio.gather(use(residency, FORMAL), use(residency, FORMAL)) == [True, True]
        assert await use(residency, FORMAL) is False
        assert await use(residency, FRIENDLY) is True

    play(engine, scene)
    assert engine.reported == [("formal", "loaded"), ("friendly", "loaded")]


@pytest.mark.parametrize(
    ("engine", "result", "loads"),
    [
        (FakeEngine(judged=["its rank is 64", "it holds NaN"]), "refused", []),
        (FakeEngine(loaded=["vLLM could not load it"]), "failed", ["formal@1"]),
    ],
)
def test_a_refusal_stands_for_a_while_costs_nothing_and_is_reported_once(
    engine: FakeEngine, result: str, loads: list[str]
):
    async def scene(residency: Residency) -> None:
        answers = await asyncio.gather(*(use(residency, FORMAL) for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [AdapterUnusable] * 5
        with pytest.raises(AdapterUnusable) as refused:
            await use(residency, FORMAL)
        assert refused.value.reasons == engine.judged + engine.loaded == residency.refusals()["formal@1"]

    play(engine, scene)
    assert engine.reported == [("formal", result)]
    assert (engine.judge_calls, engine.load_calls) == (["formal@1"], loads)
    assert engine.leased == []


def test_after_a_while_a_refused_version_is_tried_again():
    engine = FakeEngine(judged=["its disk cannot be read"])

    async def scene(residency: Residency) -> None:
        with pytest.raises(AdapterUnusable):
            await use(residency, FORMAL)
        engine.judged = []
        engine.now += REFUSAL_SECONDS - 1
        with pytest.raises(AdapterUnusable):
            await use(residency, FORMAL)
        engine.now += 1
        assert residency.refusals() == {}
        await use(residency, FORMAL)

    play(engine, scene)
    assert engine.judge_calls == ["formal@1", "formal@1"]


def test_an_engine_that_breaks_is_asked_again_at_the_next_request():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        engine.broken = ConnectionError("the engine is away")
        with pytest.raises(ConnectionError):
            await use(residency, FORMAL)
        assert engine.leased == []
        engine.broken = None
        await use(residency, FORMAL)

    play(engine, scene)
    assert engine.reported == [("formal", "failed"), ("formal", "loaded")]


def test_files_that_are_gone_are_not_found_and_not_refused_for_later():
    engine = FakeEngine()
    engine.gone = {"formal@1"}

    async def scene(residency: Residency) -> None:
        with pytest.raises(AdapterNotFound):
            await use(residency, FORMAL)
        assert residency.refusals() == {}

    play(engine, scene)
    assert (engine.judge_calls, engine.leased, engine.reported) == ([], [], [])


def test_too_many_cold_loads_are_turned_away_but_not_those_who_wait_for_one():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        engine.gate.clear()
        first = asyncio.create_task(use(residency, FORMAL))
        await until(lambda: engine.load_calls == ["formal@1"])
        second = asyncio.create_task(use(residency, FORMAL))
        with pytest.raises(Overloaded) as turned_away:
            await use(residency, FRIENDLY)
        assert turned_away.value.retry_after >= 1
        engine.gate.set()
        await asyncio.gather(first, second)
        await use(residency, FRIENDLY)

    play(engine, scene, max_cold_loads=1)
    assert engine.load_calls == ["formal@1", "friendly@1"]


def test_a_caller_that_hangs_up_does_not_stop_the_load_for_the_others():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        engine.gate.clear()
        impatient, patient = (asyncio.create_task(use(residency, FORMAL)) for _ in range(2))
        await until(lambda: bool(engine.load_calls))
        impatient.cancel()
        engine.gate.set()
        await patient
        assert impatient.cancelled() or impatient.cancelling()

    play(engine, scene)
    assert engine.load_calls == ["formal@1"]


def test_a_version_that_came_back_with_other_files_needs_a_restart():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await use(residency, FORMAL)
        with pytest.raises(AdapterUnusable, match="restart"):
            await use(residency, Version("formal", 1, Path("/store/formal/1-ba9876543210")))

    play(engine, scene)
    assert engine.load_calls == engine.leased == ["formal@1"]


def test_what_was_used_least_recently_makes_room():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        for wanted in (FORMAL, FRIENDLY, FORMAL, TERSE):
            engine.now += 1
            await use(residency, wanted)

    play(engine, scene, capacity=2)
    assert engine.held == engine.leased == ["formal@1", "terse@1"]


def test_what_is_promoted_makes_room_last_and_what_is_pinned_never():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        residency.prefer(wanted=frozenset(["formal@1", "friendly@1"]), pinned=frozenset(["formal@1"]))
        for wanted in (FORMAL, FRIENDLY, TERSE, version("warm"), version("brisk")):
            engine.now += 1
            await use(residency, wanted)
            if wanted == TERSE:
                assert engine.held == ["formal@1", "friendly@1", "terse@1"]
        assert engine.held == ["formal@1", "friendly@1", "brisk@1"]

    play(engine, scene, capacity=3)


def test_one_comes_while_another_goes_which_nobody_can_begin_to_use_meanwhile():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await use(residency, FORMAL)
        engine.gate.clear()
        newcomer = asyncio.create_task(use(residency, FRIENDLY))
        await until(lambda: engine.load_calls[1:] == ["friendly@1"] and engine.held == [])
        assert residency.residents() == {}
        engine.gate.set()
        assert await newcomer is True

    play(engine, scene, capacity=1)
    assert engine.held == engine.leased == ["friendly@1"]


def test_what_has_just_come_is_not_sent_away_before_who_waited_for_it_begins():
    engine, told = FakeEngine(), asyncio.Event()

    async def report(*_: object) -> None:
        await told.wait()

    engine.report = report

    async def scene(residency: Residency) -> None:
        waiting = asyncio.create_task(use(residency, FORMAL))
        await until(lambda: engine.held == ["formal@1"])
        with pytest.raises(Overloaded, match="in use"):
            await use(residency, FRIENDLY)
        told.set()
        assert await waiting is True
        await use(residency, FRIENDLY)

    play(engine, scene, capacity=1)
    assert engine.load_calls == ["formal@1", "friendly@1"]


def test_a_version_in_use_is_never_dropped_and_the_newcomer_is_told_to_come_back():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        async with residency.using(FORMAL):
            with pytest.raises(Overloaded, match="in use"):
                await use(residency, FRIENDLY)
            assert engine.held == engine.leased == ["formal@1"]
        await use(residency, FRIENDLY)
        assert engine.held == engine.leased == ["friendly@1"]

    play(engine, scene, capacity=1)
    assert engine.reported == [("formal", "loaded"), ("friendly", "loaded")]


def test_what_cannot_be_served_costs_no_other_its_place():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await use(residency, FORMAL)
        engine.judged = ["it holds NaN"]
        with pytest.raises(AdapterUnusable):
            await use(residency, FRIENDLY)

    play(engine, scene, capacity=1)
    assert engine.held == ["formal@1"]
    assert engine.load_calls == ["formal@1"]


def test_unloading_waits_for_the_last_request_and_gives_the_files_free():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        async with residency.using(FORMAL):
            async with residency.using(FORMAL):
                assert await residency.unload("formal@1")
            await asyncio.sleep(0)
            assert engine.held == ["formal@1"]
            assert residency.residents()["formal@1"].in_use == 1
        await until(lambda: not engine.leased)
        assert engine.held == []
        assert not await residency.unload("formal@1")
        assert await use(residency, FORMAL) is True

    play(engine, scene)
    assert engine.load_calls == ["formal@1", "formal@1"]


def test_a_version_loaded_again_on_purpose_stays_although_it_was_to_leave():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        async with residency.using(FORMAL):
            await residency.unload("formal@1")
            await residency.load(FORMAL)
        await asyncio.sleep(0)

    play(engine, scene)
    assert engine.held == ["formal@1"]


STEPS = st.lists(st.tuples(st.sampled_from(["begin", "end", "unload", "tick"]), st.integers(0, 5)), max_size=40)


@given(STEPS)
def test_whatever_the_order_what_is_used_is_loaded_and_what_is_loaded_is_leased(steps: list[tuple[str, int]]):
    engine = FakeEngine()
    wanted = [version(f"voice{number}") for number in range(6)]

    async def request(residency: Residency, number: int, done: asyncio.Event, using: list[int]) -> None:
        try:
            async with residency.using(wanted[number]):
                using.append(number)
                await done.wait()
                using.remove(number)
        except Overloaded:
            pass

    async def scene(residency: Residency) -> None:
        using: list[int] = []
        running: list[asyncio.Event] = []
        requests: list[asyncio.Task[None]] = []
        for step, number in steps:
            engine.now += 1
            if step == "begin":
                running.append(asyncio.Event())
                requests.append(asyncio.create_task(request(residency, number, running[-1], using)))
            elif step == "end" and running:
                running.pop(number % len(running)).set()
            elif step == "unload":
                await residency.unload(wanted[number].id)
            await asyncio.sleep(0.0005 if step == "tick" else 0)
            assert {wanted[number].id for number in using} <= set(engine.held)
            # One may come while another goes.
            assert len(engine.held) <= 4
            assert len(residency.residents()) <= 3
        for done in running:
            done.set()
        await asyncio.gather(*requests)
        for resident in list(residency.residents()):
            await residency.unload(resident)
        await until(lambda: not engine.leased)
        assert engine.held == []

    play(engine, scene, capacity=3)
