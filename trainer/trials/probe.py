"""Ten real training steps, timed: what a run takes on this machine.

The trainer, the emails and their order are those of the run itself. Nothing is published, and the directory that TRL
writes to is removed however the probe ends. This file does not know what a prediction is used for.
"""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import stdev
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import PreTrainedTokenizerBase, TrainerCallback

from adapters.models.base_models import BaseModel, shaping_config
from trainer.compute.cpu_loss import fused_lora
from trainer.compute.device import Device
from trainer.training.dataset import Rows
from trainer.training.recipe import Recipe, learning_rate_prior
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer, sample_email

STEPS, WARM_UP = 10, 3
"""Steps taken, and how many of them pass before the speed counts: the first ones pack weights and get memory."""
EVALUATED = 32
"""Held-out emails that are read for the time of one evaluation; it grows with the tokens."""
WORK = STEPS + 2
"""What `advance` gets in all: one for a step, one for the evaluation, one for the sample email."""
LEAST_MARGIN = 0.15


@dataclass(frozen=True)
class Probe:
    tokens_an_epoch: int
    step_tokens: tuple[int, ...]
    step_seconds: tuple[float, ...]
    """From the end of the step before; of the first, from the call of the trainer."""
    evaluation_seconds: float
    """Of one reading of all held-out emails; 0 without any."""
    sample_seconds: float
    memory_gib: float
    """Most that this process had until now: main memory, on a GPU of the GPU's."""

    @property
    def seconds_a_token(self) -> float:
        """Over all steps after the warm-up: batches differ in length, so a mean a step would depend on which came."""
        return sum(self.step_seconds[WARM_UP:]) / sum(self.step_tokens[WARM_UP:])

    @property
    def margin(self) -> float:
        """Half the width of the predicted range, as a share: twice the standard error of the steps' speeds, and at
        least LEAST_MARGIN, for what ten steps cannot show."""
        pairs = zip(self.step_seconds[WARM_UP:], self.step_tokens[WARM_UP:], strict=True)
        speeds = [seconds / tokens for seconds, tokens in pairs]
        error = stdev(speeds) / math.sqrt(len(speeds)) / self.seconds_a_token
        return max(LEAST_MARGIN, 2 * error)

    def seconds(self, epochs: int, steps: int) -> float:
        """What `training.seconds` in the manifest of a run of `steps` steps in all will say.

        The steps, what the first ones take longer, one evaluation before and one after each epoch, a sample email
        after each epoch. Not in it, here as there: loading, and the evaluation that a recipe's limits ask for.
        """
        first = min(WARM_UP, steps)
        warm_up = sum(self.step_seconds[:first]) - sum(self.step_tokens[:first]) * self.seconds_a_token
        training = self.tokens_an_epoch * epochs * self.seconds_a_token
        return max(0.0, warm_up) + training + (epochs + 1) * self.evaluation_seconds + epochs * self.sample_seconds


class Stopwatch(TrainerCallback):
    """Notes the time and the tokens so far at the end of every step, and calls `advance`."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self.advance = advance
        self.times = [time.monotonic()]
        self.tokens = [0]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.monotonic())
        self.tokens.append(int(state.num_input_tokens_seen))
        self.advance(1)


def probe(
    rows: Rows,
    base: BaseModel,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    device: Device,
    advance: Callable[[float], None],
) -> Probe:
    """Take STEPS steps of the run, evaluate once, write one sample email."""
    learning_rate = recipe.learning_rate or learning_rate_prior(shaping_config(base.path)["hidden_size"])
    # Nothing is to be kept: an early stop has TRL save a checkpoint after each epoch.
    recipe = recipe.model_copy(update={"early_stop": 0})
    with tempfile.TemporaryDirectory(prefix="mailwright-probe-") as scratch:
        trainer = completion_trainer(rows.train, rows.heldout, base, recipe, learning_rate, tokenizer, device, scratch)
        trainer.args.max_steps = STEPS
        trainer.args.eval_strategy = "no"
        with disable_input_dtype_casting(trainer.model), fused_lora(trainer.model):
            watch = Stopwatch(advance)
            trainer.add_callback(watch)
            trainer.train()
            evaluation = _evaluation_seconds(trainer)
            advance(1)
            sample = _sample_seconds(trainer, rows, recipe)
            advance(1)
        return Probe(
            trainer.tokens_an_epoch,
            _differences(watch.tokens),
            _differences(watch.times),
            evaluation,
            sample,
            _peak_memory_gib(device),
        )


def _evaluation_seconds(trainer: CompletionTrainer) -> float:
    if not trainer.eval_dataset:
        return 0.0
    lengths = [len(row["input_ids"]) for row in trainer.eval_dataset]
    read = trainer.eval_dataset.select(range(min(EVALUATED, len(lengths))))
    started = time.monotonic()
    trainer.evaluate(read)
    return (time.monotonic() - started) * sum(lengths) / sum(lengths[: len(read)])


def _sample_seconds(trainer: CompletionTrainer, rows: Rows, recipe: Recipe) -> float:
    """Of an email as long as that of the example: what a run has learnt, after an epoch, is to end where that ends."""
    example = (rows.heldout or rows.train)[0]
    length = len(trainer.processing_class(example.email)["input_ids"])
    started = time.monotonic()
    sample_email(trainer, example, max(1, min(recipe.sample_tokens, length)))
    return time.monotonic() - started


def _differences(values: list[Any]) -> tuple[Any, ...]:
    return tuple(after - before for before, after in pairwise(values))


def _peak_memory_gib(device: Device) -> float:
    if device.kind == "cuda":
        return float(torch.cuda.max_memory_allocated() / 2**30)
    # In KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
