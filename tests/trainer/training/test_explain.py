"""The five steps of the loop, with the numbers of a real run of the tiny model."""

import re

import pytest
import torch

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests import tiny
from tests.trainer.training.test_sft import RECIPE, run_of
from trainer.training import sft
from trainer.training.explain import distance, per_layer

BEGINNINGS = ["1 show", "2 guess", "3 error", "4 blame", "5 adjust", "repeat", "repeat"]


@pytest.mark.training
def test_the_five_steps_are_told_in_order_and_the_guess_gets_better(base_model: BaseModel, store: Store):
    said: list[str] = []
    # With a warm-up, whose first step moves nothing.
    recipe = RECIPE.model_copy(update={"warmup": 0.2, "heldout": 0})
    version = sft.train(run_of(base_model, recipe, log=said.append, explain=True), store)
    told = [line for line in said if line.startswith(tuple(BEGINNINGS))]
    assert [next(b for b in BEGINNINGS if line.startswith(b)) for line in told] == BEGINNINGS
    show, guess, error, layers, adjust, *repeats = told
    assert re.search(r"the task has \d+ tokens, the email that belongs to it \d+$", show)
    assert guess.count('" ') >= 3
    assert len(layers.rsplit(": ")[1]) == tiny.LAYERS
    assert "at a learning rate of 5.0e-03" in adjust
    assert not adjust.endswith("by 0 % of its size")

    errors = [float(re.search(r"([0-9.]+) nats", line)[1]) for line in (error, *repeats)]
    assert errors == sorted(errors, reverse=True)
    moved = [float(re.search(r"by ([0-9.]+) %", line)[1]) for line in (adjust, *repeats)]
    assert moved == sorted(moved)
    assert version.id == "mine@1"


@pytest.mark.training
def test_what_is_said_does_not_change_what_is_learnt(base_model: BaseModel, store: Store):
    recipe = RECIPE.model_copy(update={"dropout": 0.1, "epochs": 1})
    digests = {sft.train(run_of(base_model, recipe, explain=explain), store).digest for explain in (True, False)}
    assert len(digests) == 1


def test_each_layer_is_told_the_norm_of_its_gradients():
    gradients = {
        "model.layers.10.q.lora_A": torch.tensor([3.0]),
        "model.layers.2.q.lora_A": torch.tensor([1.0]),
        "model.layers.10.q.lora_B": torch.tensor([4.0]),
        "model.layers.2.q.lora_B": None,
        "lm_head": torch.tensor([9.0]),
    }
    assert per_layer(gradients) == [1.0, 5.0]


def test_weights_move_by_a_share_of_their_size():
    before = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2)}
    assert distance(before, {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.3, 0.4])}) == pytest.approx(0.1)
    assert distance(before, before) == 0
    assert distance({"a": torch.zeros(1)}, {"a": torch.ones(1)}) == 0
