"""What ten steps say of a run: arithmetic on steps made up here, and the real trainer on a tiny random Llama."""

from dataclasses import replace

import pytest

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests.trainer.training.test_sft import RECIPE, emails, nobody_listens, run_of
from trainer.compute.device import choose
from trainer.training import sft
from trainer.trials import estimate, predictions
from trainer.trials.probe import MIN_MARGIN, STEPS, WARM_UP_STEPS, WORK, Probe, probe

STEADY = Probe(
    tokens_an_epoch=1000,
    step_tokens=(100,) * STEPS,
    step_seconds=(5.0, 3.0, 3.0, *(2.0,) * (STEPS - WARM_UP_STEPS)),
    evaluation_seconds=4.0,
    sample_seconds=1.5,
    memory_gib=1.0,
)


def test_the_speed_is_by_the_token_and_leaves_the_warm_up_out():
    uneven = replace(STEADY, step_tokens=(9, 9, 9, 100, 200, 300, 100, 100, 100, 100))
    assert STEADY.seconds_a_token == pytest.approx(0.02)
    assert uneven.seconds_a_token == pytest.approx(14 / 1000)


def test_the_time_is_steps_warm_up_evaluations_and_samples():
    steps, warm_up, evaluations, samples = 3 * 1000 * 0.02, 11 - 6, 4 * 4, 3 * 1.5
    assert STEADY.seconds(epochs=3, steps=30) == pytest.approx(steps + warm_up + evaluations + samples)


def test_a_first_step_that_is_fast_takes_nothing_off():
    fast = replace(STEADY, step_seconds=(0.1, 0.1, 0.1, *(2.0,) * 7), evaluation_seconds=0, sample_seconds=0)
    assert fast.seconds(epochs=1, steps=10) == pytest.approx(1000 * 0.02)


def test_the_range_is_wider_where_the_steps_differ():
    unsteady = replace(STEADY, step_seconds=(5, 3, 3, 1, 4, 1, 4, 1, 4, 1))
    assert STEADY.margin == MIN_MARGIN
    assert unsteady.margin > 0.3


def test_an_early_stop_without_held_out_emails_is_refused_as_before_a_training(base_model: BaseModel):
    recipe = RECIPE.model_copy(update={"early_stop": 1, "heldout": 0.0})
    with pytest.raises(ConfigError, match="early_stop"):
        estimate.work(emails(), recipe, base_model, choose(), nobody_listens)


@pytest.mark.training
def test_a_probe_takes_ten_steps_of_the_run_and_leaves_nothing(
    base_model: BaseModel, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    recipe = RECIPE.model_copy(update={"early_stop": 1})
    work, tokenizer = estimate.work(emails(), recipe, base_model, choose(), nobody_listens)
    advanced: list[float] = []
    probed = probe(work.rows, base_model, recipe, tokenizer, choose(), advanced.append)
    assert len(probed.step_tokens) == len(probed.step_seconds) == STEPS
    # Six steps of two emails or one are an epoch; four more are of the second.
    assert sum(probed.step_tokens[:6]) == probed.tokens_an_epoch == work.tokens_an_epoch
    assert min(probed.step_seconds) > 0
    assert probed.evaluation_seconds > 0
    assert probed.sample_seconds > 0
    assert 0.01 < probed.memory_gib < 1000
    assert sum(advanced) == WORK
    assert list(scratch.iterdir()) == []


@pytest.mark.training
def test_a_probe_that_is_interrupted_leaves_nothing(
    base_model: BaseModel, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    work, tokenizer = estimate.work(emails(), RECIPE, base_model, choose(), nobody_listens)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(work.rows, base_model, RECIPE, tokenizer, choose(), interrupt)
    assert list(scratch.iterdir()) == []


@pytest.mark.training
def test_tokens_and_steps_are_those_of_the_run_which_corrects_the_next_estimate(
    base_model: BaseModel, store: Store, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
    recipe = RECIPE
    work, tokenizer = estimate.work(emails(), recipe, base_model, choose(), nobody_listens)
    first = estimate.here(work, base_model, recipe, tokenizer, choose(), nobody_listens)
    assert (first.correction, first.runs) == (1.0, 0)
    assert 0 < first.seconds.low < first.seconds.middle < first.seconds.high

    manifest = sft.train(run_of(base_model, recipe), store).manifest()
    assert manifest.training is not None
    assert (work.tokens, work.steps) == (manifest.training.tokens, manifest.training.steps)
    said: list[str] = []
    predictions.remember(manifest, predictions.machine(choose()), said.append)
    assert said[0].startswith(f"predicted {first.seconds.middle:.0f} s, took {manifest.training.seconds:.0f} s (")

    second = estimate.here(work, base_model, recipe, tokenizer, choose(), nobody_listens)
    assert second.runs == 1
    assert second.correction == pytest.approx(manifest.training.seconds / first.seconds.middle)
