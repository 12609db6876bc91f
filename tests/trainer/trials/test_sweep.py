"""Trials of the real trainer on a tiny random Llama: too slow, just right and too fast, and nothing else differs."""

import math
import tempfile
from pathlib import Path

import pytest

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from tests.trainer.training.test_sft import emails, nobody_listens
from trainer.training.recipe import Recipe
from trainer.trials import sweep as module
from trainer.trials.learning_rates import Sweep
from trainer.trials.sweep import sweep

pytestmark = [pytest.mark.training]
RECIPE = Recipe(epochs=1, batch_size=2, rank=4, alpha=8)
RATES = (1e-1, 1e-4, 2e-2)
STEPS = 12


@pytest.fixture(scope="module")
def found(base_model: BaseModel) -> Sweep:
    return sweep(emails(), base_model, RECIPE, RATES, STEPS, nobody_listens)


def test_there_is_a_rate_that_is_too_slow_one_that_is_just_right_and_one_that_is_too_fast(found: Sweep):
    assert [(trial.learning_rate, found.verdict(trial)) for trial in found.trials] == [
        (1e-4, "too slow"),
        (2e-2, "just right"),
        (1e-1, "too fast"),
    ]
    assert found.chosen
    assert found.chosen.learning_rate == 2e-2
    assert found.chosen.heldout < 0.6 * found.heldout_before


def test_all_trials_begin_with_the_same_loss(found: Sweep):
    assert len({trial.losses[0] for trial in found.trials}) == 1
    assert [len(trial.losses) for trial in found.trials] == [STEPS] * 3


def test_half_of_a_few_emails_are_held_out_to_measure_on(found: Sweep):
    assert (found.heldout_emails, found.steps, found.batch_size) == (6, STEPS, 2)


def test_all_trials_meet_the_same_batches_with_the_same_noise(base_model: BaseModel):
    """Two rates that change next to nothing, over more than one pass, with dropout."""
    recipe = RECIPE.model_copy(update={"dropout": 0.5, "neftune": 5.0, "early_stop": 1, "learning_rate": 0.5})
    first, second = sweep(emails(), base_model, recipe, (1e-8, 2e-8), 7, nobody_listens).trials
    assert first.losses == pytest.approx(second.losses, abs=1e-3)
    assert len({round(loss, 3) for loss in first.losses}) > 4


def test_a_trial_does_not_depend_on_the_ones_before_it(base_model: BaseModel, found: Sweep):
    alone = sweep(emails(), base_model, RECIPE, (2e-2, 3e-2), STEPS, nobody_listens).trials[0]
    after_another = found.trials[1]
    assert alone.learning_rate == after_another.learning_rate
    assert alone.losses == pytest.approx(after_another.losses, rel=1e-4)
    assert alone.heldout == pytest.approx(after_another.heldout, rel=1e-4)


@pytest.mark.usefixtures("loss_becomes_nan")
def test_a_loss_that_is_no_number_ends_its_trial_at_once(base_model: BaseModel):
    broken, also = sweep(emails(), base_model, RECIPE, (1e-3, 1e-2), STEPS, nobody_listens).trials
    assert len(broken.losses) == 3
    assert not math.isfinite(broken.losses[-1])
    assert all(map(math.isfinite, broken.losses[:-1]))
    assert math.isnan(broken.heldout)
    assert also.losses[0] == broken.losses[0]


def test_nothing_is_left_behind_and_no_email_is_said(
    base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said: list[str] = []
    sweep(emails(), base_model, RECIPE, (1e-3, 1e-2), 1, said.append)
    printed = capsys.readouterr()
    assert list(tmp_path.iterdir()) == []
    assert "2 trials of 1 steps of 2 emails, each from the same start" in said
    assert "Dear" not in "".join([*said, printed.out, printed.err])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_too_few_emails_are_refused_before_a_model_is_loaded(
    base_model: BaseModel, monkeypatch: pytest.MonkeyPatch, count: int
):
    monkeypatch.setattr(module, "completion_trainer", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(ConfigError, match=f"^{count} emails are too few") as caught:
        sweep(emails(count), base_model, RECIPE, RATES, STEPS, nobody_listens)
    assert caught.value.hint == "give 8 emails or more that are not nearly the same"
