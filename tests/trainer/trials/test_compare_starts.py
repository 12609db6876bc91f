"""The same minutes from the base model's weights and from random ones, with the real trainer on the tiny model."""

import math
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from tests.trainer.training.test_sft import emails, nobody_listens
from trainer.training import sft_trainer
from trainer.training.recipe import Recipe
from trainer.training.sft_trainer import CompletionTrainer, random_model
from trainer.trials import compare_starts as module
from trainer.trials.compare_starts import EVALUATIONS, Clock, Comparison, compare

RECIPE = Recipe(epochs=1, batch_size=4, learning_rate=1e-2, rank=4, alpha=8, sample_tokens=5)
STEPS = 12


def steps_of_a_second(patch: pytest.MonkeyPatch) -> None:
    """However fast the machine is."""
    patch.setattr(module, "time", SimpleNamespace(monotonic=count().__next__))


@pytest.fixture(scope="module")
def found(base_model: BaseModel) -> Comparison:
    with pytest.MonkeyPatch.context() as patch:
        steps_of_a_second(patch)
        return compare(emails(), base_model, RECIPE, STEPS / 60, nobody_listens)


@pytest.mark.training
def test_one_begins_where_the_base_model_is_and_one_at_blind_chance(found: Comparison):
    assert found.random.before == pytest.approx(math.log(found.vocabulary), abs=0.15)
    assert found.pretrained.before > found.random.before + 0.5  # the tiny model has learnt nothing, and is sure of it
    assert found.pretrained.wrote_before != found.pretrained.wrote
    assert found.random.wrote_before is None


@pytest.mark.training
def test_both_have_the_same_time_and_learn(found: Comparison):
    for start in (found.pretrained, found.random):
        assert (start.seconds, len(start.losses)) == (STEPS, STEPS)
        assert start.after < start.before
        assert [seconds for seconds, _ in start.heldout] == [0, 3, 5, 8, 10, 12]
        assert start.tokens > 0


@pytest.mark.training
def test_all_weights_are_trained_of_the_one_and_the_adapters_of_the_other(found: Comparison, base_model: BaseModel):
    assert found.random.weights == random_model(base_model, 0, None).num_parameters()
    assert found.pretrained.weights < found.random.weights / 5


@pytest.mark.training
def test_the_emails_of_an_epochs_last_batch_are_counted(found: Comparison):
    """6 emails in steps of 4 and 2."""
    for start in (found.pretrained, found.random):
        assert start.emails == 6 * STEPS / 2


@pytest.mark.training
def test_both_meet_the_same_batches(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch):
    read: list[Any] = []
    learn: Callable[..., Any] = CompletionTrainer.training_step

    def training_step(trainer: CompletionTrainer, model: Any, inputs: Any, *rest: Any) -> Any:
        read.append((trainer, inputs["input_ids"].tolist()))
        return learn(trainer, model, inputs, *rest)

    monkeypatch.setattr(CompletionTrainer, "training_step", training_step)
    steps_of_a_second(monkeypatch)
    recipe = RECIPE.model_copy(update={"batch_size": 1, "dropout": 0.5})
    compare(emails(), base_model, recipe, 8 / 60, nobody_listens)
    trainers = list(dict.fromkeys(trainer for trainer, _ in read))
    first, second = ([ids for of, ids in read if of is trainer] for trainer in trainers)
    assert len(first) == 8
    assert first == second


@pytest.mark.training
def test_a_step_is_taken_however_short_the_time_and_nothing_is_left(
    base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    recipe = RECIPE.model_copy(update={"learning_rate": None, "early_stop": 1})
    found = compare(emails(), base_model, recipe, 1e-6, nobody_listens)
    assert [len(start.losses) for start in (found.pretrained, found.random)] == [1, 1]
    assert [start.learning_rate for start in (found.pretrained, found.random)] == [5.5e-3, 1e-3]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
def test_a_loss_that_is_no_number_ends_that_training(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: Any) -> Any:
        model = random_model(*arguments)
        torch.nn.init.constant_(model.model.norm.weight, math.nan)
        return model

    monkeypatch.setattr(sft_trainer, "random_model", broken)
    steps_of_a_second(monkeypatch)
    found = compare(emails(), base_model, RECIPE, 2 / 60, nobody_listens)
    assert [len(start.losses) for start in (found.pretrained, found.random)] == [2, 1]
    assert math.isnan(found.random.after)
    assert math.isfinite(found.pretrained.after)


@pytest.mark.parametrize("few", [1, 7])
def test_too_few_emails_are_refused_before_a_model_is_loaded(
    base_model: BaseModel, monkeypatch: pytest.MonkeyPatch, few: int
):
    monkeypatch.setattr(module, "completion_trainer", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(ConfigError, match=f"^{few} emails are too few for a comparison"):
        compare(emails(few), base_model, RECIPE, 1, nobody_listens)


def test_the_clock_stands_still_while_the_loss_is_measured(monkeypatch: pytest.MonkeyPatch):
    """Steps of a second and measurements of a hundred, in a training of ten."""
    now = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    went_by: list[float] = []
    clock = Clock(10.0, went_by.append)
    clock.on_evaluate(None, None, None, metrics={"eval_loss": 4.0})
    control = SimpleNamespace(should_evaluate=False, should_training_stop=False)
    while not control.should_training_stop:
        now += 1
        clock.on_step_end(None, None, control)
        if control.should_evaluate:
            now += 100
            clock.on_evaluate(None, None, control, metrics={"eval_loss": 3.0})
    assert clock.trained == 10.0
    assert [seconds for seconds, _ in clock.heldout] == [10.0 * part / EVALUATIONS for part in range(EVALUATIONS + 1)]
    assert went_by == [1.0] * 10
