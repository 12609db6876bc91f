"""Bringing what is loaded in step with the store, with a real store and an engine that only counts."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterNotFound
from adapters.store.store import POINTERS, Store
from adapters.store.version import Version
from server.engine.reconcile import desired, reconcile, reconcile_once
from server.engine.residency import Residency
from server.engine.store_reader import StoreReader
from tests.server.fake_engine import FakeEngine, until


def step(store: Store, engine: FakeEngine, residency: Residency) -> Awaitable[None]:
    return reconcile_once(desired(StoreReader(store)), residency)


def play(engine: FakeEngine, scene: Callable[[Residency], Awaitable[None]], **options: int) -> None:
    async def stage() -> None:
        await scene(engine.residency(**options))

    asyncio.run(stage())


def test_promoted_versions_are_loaded_before_anybody_asks(store: Store):
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await step(store, engine, residency)
        assert sorted(engine.held) == ["formal@1", "friendly@1"]
        store.promote("formal@2")
        await step(store, engine, residency)

    play(engine, scene)
    assert sorted(engine.held) == ["formal@1", "formal@2", "friendly@1"]


def test_a_canary_and_a_pinned_version_are_loaded_too(store: Store):
    engine = FakeEngine()
    store.promote("formal@2", percent=10)

    async def scene(residency: Residency) -> None:
        await step(store, engine, residency)

    play(engine, scene)
    assert sorted(engine.held) == ["formal@1", "formal@2", "friendly@1"]


def test_a_pinned_version_comes_first_and_drops_another_if_there_is_no_room(store: Store):
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await step(store, engine, residency)
        assert len(engine.held) == 2
        store.pin("formal@2")
        await step(store, engine, residency)
        await step(store, engine, residency)

    play(engine, scene, capacity=2)
    assert "formal@2" in engine.held
    assert len(engine.held) == 2


def test_nothing_is_dropped_for_a_promoted_version_that_nobody_has_asked_for(store: Store):
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await residency.load(store.resolve("formal@2"))
        await step(store, engine, residency)

    play(engine, scene, capacity=1)
    assert engine.held == ["formal@2"]


def test_a_retired_version_is_unloaded(store: Store):
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await residency.load(store.resolve("formal@2"))
        store.retire("formal@2")
        await step(store, engine, residency)

    play(engine, scene)
    assert "formal@2" not in engine.held


def test_one_bad_adapter_holds_up_nothing_and_is_not_tried_at_every_look(
    store: Store, caplog: pytest.LogCaptureFixture
):
    class Picky(FakeEngine):
        def judge(self, version: Version) -> list[str]:
            super().judge(version)
            return ["it holds NaN"] if version.name == "formal" else []

    engine = Picky()

    async def scene(residency: Residency) -> None:
        for _ in range(3):
            await step(store, engine, residency)

    play(engine, scene)
    assert engine.held == ["friendly@1"]
    assert engine.judge_calls.count("formal@1") == 1
    assert "formal@1 is not loaded" in caplog.text


def test_damaged_pointers_of_one_name_hold_up_nothing(store: Store):
    (store.directory / "formal" / POINTERS).write_text("{")
    assert [version.id for version in desired(StoreReader(store)).wanted] == ["friendly@1"]


def test_the_reader_sees_every_change_and_rereads_only_what_changed(store: Store, monkeypatch: pytest.MonkeyPatch):
    reader = StoreReader(store)
    assert {version.id for version in desired(reader).wanted} == {"formal@1", "friendly@1"}
    read: list[str] = []
    pointers = Store.pointers

    def counted(self: Store, name: str) -> object:
        read.append(name)
        return pointers(self, name)

    monkeypatch.setattr(Store, "pointers", counted)
    assert len(desired(reader).wanted) == 2
    assert read == []
    store.promote("formal@2")
    read.clear()
    assert desired(reader).wanted[0].id == "formal@2"
    assert read == ["formal"]


def test_a_version_that_is_promoted_before_its_directory_is_there_is_seen_once_it_is(store: Store, tmp_path: Path):
    """A publish writes the pointers, then renames the directory into place."""
    there = store.resolve("formal@1").path
    there.rename(tmp_path / there.name)
    reader = StoreReader(store)
    assert [version.id for version in desired(reader).wanted] == ["friendly@1"]
    (tmp_path / there.name).rename(there)
    assert {version.id for version in desired(reader).wanted} == {"formal@1", "friendly@1"}


def test_it_goes_on_after_whatever_goes_wrong(store: Store, monkeypatch: pytest.MonkeyPatch):
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        engine.gone = {"formal@1", "friendly@1"}
        engine.broken = RuntimeError("the disk is away")
        task = asyncio.create_task(reconcile(StoreReader(store), residency, every=0))
        await until(lambda: engine.broken is not None and residency.has_room)
        engine.gone, engine.broken = set(), None
        await until(lambda: sorted(engine.held) == ["formal@1", "friendly@1"])
        task.cancel()

    play(engine, scene)


def test_gone_files_are_not_found(store: Store, tmp_path: Path):
    engine = FakeEngine()
    engine.gone = {"formal@1"}

    async def scene(residency: Residency) -> None:
        with pytest.raises(AdapterNotFound):
            await residency.load(store.resolve("formal"))

    play(engine, scene)
