"""Loading, refusing and the bound on cold loads, with a fake loader; what makes a version unusable, with real files."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from adapters.base_model import BaseModel, find
from adapters.errors import AdapterUnusable, Overloaded
from adapters.store import Store, Version
from server.residency import Residency, reasons_to_refuse
from tests import tiny

FORMAL = Version("formal", 1, Path("/store/formal/1-0123456789ab"))
FRIENDLY = Version("friendly", 1, Path("/store/friendly/1-0123456789ab"))


class FakeEngine:
    """Counts what it is asked, answers `reasons`, and holds loads back while `gate` is closed."""

    def __init__(self, judged: list[str] | None = None, loaded: list[str] | None = None) -> None:
        self.judged, self.loaded = judged or [], loaded or []
        self.judge_calls: list[str] = []
        self.load_calls: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def judge(self, version: Version) -> list[str]:
        self.judge_calls.append(version.id)
        return self.judged

    async def load(self, version: Version) -> list[str]:
        self.load_calls.append(version.id)
        await self.gate.wait()
        return self.loaded


def play(engine: FakeEngine, scene: Callable[[Residency], Awaitable[None]], **options: int) -> list[tuple[str, str]]:
    """The loads that were reported: adapter and result."""
    reported: list[tuple[str, str]] = []

    def report(name: str, result: str, seconds: float) -> None:
        assert seconds >= 0
        reported.append((name, result))

    async def stage() -> None:
        await scene(Residency(engine.judge, engine.load, report, **options))

    asyncio.run(stage())
    return reported


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_twenty_first_requests_load_once():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        await asyncio.gather(*(residency.ensure(FORMAL) for _ in range(20)))
        await residency.ensure(FORMAL)

    play(engine, scene)
    assert engine.judge_calls == engine.load_calls == ["formal@1"]


def test_who_waited_for_the_load_knows_it_and_the_load_is_reported_once():
    async def scene(residency: Residency) -> None:
        assert await asyncio.gather(residency.ensure(FORMAL), residency.ensure(FORMAL)) == [True, True]
        assert await residency.ensure(FORMAL) is False
        assert await residency.ensure(FRIENDLY) is True

    assert play(FakeEngine(), scene) == [("formal", "loaded"), ("friendly", "loaded")]


@pytest.mark.parametrize(
    ("engine", "result"),
    [(FakeEngine(judged=["its rank is 64"]), "refused"), (FakeEngine(loaded=["vLLM could not load it"]), "failed")],
)
def test_a_refusal_and_a_failed_load_are_reported_once_as_what_they_are(engine: FakeEngine, result: str):
    async def scene(residency: Residency) -> None:
        for _ in range(2):
            with pytest.raises(AdapterUnusable):
                await residency.ensure(FORMAL)

    assert play(engine, scene) == [("formal", result)]


def test_what_is_judged_unusable_never_reaches_vllm_and_is_remembered():
    engine = FakeEngine(judged=["its rank is 64", "it holds NaN"])

    async def scene(residency: Residency) -> None:
        for _ in range(3):
            with pytest.raises(AdapterUnusable) as refused:
                await residency.ensure(FORMAL)
            assert refused.value.reasons == ["its rank is 64", "it holds NaN"]

    play(engine, scene)
    assert engine.judge_calls == ["formal@1"]
    assert engine.load_calls == []


def test_what_vllm_refuses_is_not_tried_again():
    engine = FakeEngine(loaded=["vLLM could not load it"])

    async def scene(residency: Residency) -> None:
        answers = await asyncio.gather(*(residency.ensure(FORMAL) for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [AdapterUnusable] * 5
        with pytest.raises(AdapterUnusable):
            await residency.ensure(FORMAL)

    play(engine, scene)
    assert engine.load_calls == ["formal@1"]


def test_a_loader_that_breaks_is_tried_again_at_the_next_request():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        load, residency._load = residency._load, broken
        with pytest.raises(ConnectionError):
            await residency.ensure(FORMAL)
        residency._load = load
        await residency.ensure(FORMAL)

    async def broken(version: Version) -> list[str]:
        raise ConnectionError("the engine is away")

    assert play(engine, scene) == [("formal", "failed"), ("formal", "loaded")]
    assert engine.load_calls == ["formal@1"]


def test_too_many_cold_loads_are_turned_away_but_not_those_who_wait_for_one():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        engine.gate.clear()
        first = asyncio.create_task(residency.ensure(FORMAL))
        await until(lambda: engine.load_calls == ["formal@1"])
        second = asyncio.create_task(residency.ensure(FORMAL))
        with pytest.raises(Overloaded) as turned_away:
            await residency.ensure(FRIENDLY)
        assert turned_away.value.retry_after >= 1
        engine.gate.set()
        await asyncio.gather(first, second)
        await residency.ensure(FRIENDLY)

    play(engine, scene, max_cold_loads=1)
    assert engine.load_calls == ["formal@1", "friendly@1"]


def test_a_caller_that_hangs_up_does_not_stop_the_load_for_the_others():
    engine = FakeEngine()

    async def scene(residency: Residency) -> None:
        engine.gate.clear()
        impatient, patient = (asyncio.create_task(residency.ensure(FORMAL)) for _ in range(2))
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
        await residency.ensure(FORMAL)
        with pytest.raises(AdapterUnusable, match="restart"):
            await residency.ensure(Version("formal", 1, Path("/store/formal/1-ba9876543210")))

    play(engine, scene)
    assert engine.load_calls == ["formal@1"]


def test_a_published_adapter_has_nothing_against_it(store: Store, base_model: BaseModel):
    assert reasons_to_refuse(store.resolve("formal"), base_model, max_rank=16) == []


def test_another_base_model_is_a_reason(store: Store, base_model: BaseModel):
    other = BaseModel("other", base_model.path, "sha256:" + "1" * 64, "hub/other")
    [reason] = reasons_to_refuse(store.resolve("formal"), other, max_rank=16)
    assert reason == (
        f"it was trained on tiny-llama ({base_model.fingerprint[:19]}...), and this server serves other "
        f"(sha256:111111111111...): serve it with `server --base {base_model.path}`"
    )


def test_a_base_model_of_another_shape_is_one_reason_and_not_one_for_each_tensor(store: Store, tmp_path: Path):
    # Not hundreds of tensors that do not fit: they would bury what to do.
    smaller = find(str(tiny.make_base(tmp_path / "smaller", seed=3)))
    config = smaller.path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 1}))
    [reason, too_wide] = reasons_to_refuse(store.resolve("formal"), find(str(smaller.path)), max_rank=4)
    assert "trained on tiny-llama" in reason
    assert "rank is 8" in too_wide


def test_an_adapter_of_the_first_manifests_names_its_base_model(store: Store, base_model: BaseModel, tmp_path: Path):
    files = tiny.make_adapter(base_model.path, tmp_path / "adapter", seed=5)
    version = store.publish("old", files, tiny.facts("smollm2-135m-instruct", "sha256:" + "2" * 64))
    manifest = version.path / "manifest.json"
    fields = json.loads(manifest.read_text())
    del fields["base_source"]
    manifest.write_text(json.dumps(fields))
    [reason] = reasons_to_refuse(version, base_model, max_rank=16)
    assert reason.endswith("serve it with `server --base smollm2-135m-instruct`")


def test_a_rank_above_the_servers_is_a_reason(store: Store, base_model: BaseModel):
    [reason] = reasons_to_refuse(store.resolve("formal"), base_model, max_rank=4)
    assert "rank is 8" in reason


def copied(version: Version, directory: Path) -> Version:
    shutil.copytree(version.path, directory)
    return Version(version.name, version.number, directory)


def test_changed_files_are_a_reason(store: Store, base_model: BaseModel, tmp_path: Path):
    version = copied(store.resolve("formal"), tmp_path / "1-0123456789ab")
    config = version.path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 17}))
    assert reasons_to_refuse(version, base_model, max_rank=16) == ["its files are not the ones that were published"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("{}")])
def test_a_missing_or_broken_manifest_is_a_reason(
    store: Store, base_model: BaseModel, tmp_path: Path, damage: Callable[[Path], object]
):
    version = copied(store.resolve("formal"), tmp_path / "1-0123456789ab")
    damage(version.path / "manifest.json")
    [reason] = reasons_to_refuse(version, base_model, max_rank=16)
    assert "manifest" in reason
