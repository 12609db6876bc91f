"""Ten real training steps, timed: what a run takes on this machine.

The trainer, the emails and their order are those of the run itself. Nothing is published, and TRL's output directory is
always removed.
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

from adapters.models.base_models import BaseModel
from trainer.compute.device import Device
from trainer.compute.fused_lora import fused_lora
from trainer.training.dataset import Rows
from trainer.training.recipe import Recipe, peak_learning_rate
from trainer.training.sft_trainer import CompletionTrainer, check_memory, completion_trainer, sample_email

STEPS = 10
# The speed counts after these: the first steps pack weights and allocate memory.
WARM_UP_STEPS = 3
# The time of an evaluation grows with the tokens, so that this many emails are enough to time it.
MAX_EVALUATED = 32
# `advance` adds up to this: one for each step, one for the evaluation, one for the sample email.
WORK = STEPS + 2
MIN_MARGIN = 0.15


@dataclass(frozen=True)
class Probe:
    """`evaluation_seconds` are for all held-out emails, 0 without any; `memory_gib` is the peak of this process."""

    tokens_an_epoch: int
    step_tokens: tuple[int, ...]
    step_seconds: tuple[float, ...]
    evaluation_seconds: float
    sample_seconds: float
    memory_gib: float

    @property
    def seconds_a_token(self) -> float:
        # Not a mean of the steps: batches differ in length.
        return sum(self.step_seconds[WARM_UP_STEPS:]) / sum(self.step_tokens[WARM_UP_STEPS:])

    @property
    def margin(self) -> float:
        """Half the width of the predicted range, as a share: twice the standard error of the steps' speeds, and at
        least MIN_MARGIN, for what ten steps cannot show."""
        pairs = zip(self.step_seconds[WARM_UP_STEPS:], self.step_tokens[WARM_UP_STEPS:], strict=True)
        speeds = [seconds / tokens for seconds, tokens in pairs]
        error = stdev(speeds) / math.sqrt(len(speeds)) / self.seconds_a_token
        return max(MIN_MARGIN, 2 * error)

    def seconds(self, epochs: int, steps: int) -> float:
        """Predicts `training.seconds` in the manifest of a run of `steps` steps in all.

        The steps, the extra time of the first ones, one evaluation before the first epoch and after each, a sample
        email after each epoch. Loading and the evaluation for a recipe's limits are in neither.
        """
        first = min(WARM_UP_STEPS, steps)
        warm_up = sum(self.step_seconds[:first]) - sum(self.step_tokens[:first]) * self.seconds_a_token
        training = self.tokens_an_epoch * epochs * self.seconds_a_token
        return max(0.0, warm_up) + training + (epochs + 1) * self.evaluation_seconds + epochs * self.sample_seconds


class Stopwatch(TrainerCallback):
    """Records the time and the tokens so far at the end of every step."""

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
    """Take STEPS steps of the run, evaluate once, write one sample email.

    Raises:
        ConfigError: too little memory is free.
    """
    check_memory(base, recipe, device)
    learning_rate = peak_learning_rate(recipe, base)
    # With an early stop TRL would save a checkpoint after each epoch.
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
    read = trainer.eval_dataset.select(range(min(MAX_EVALUATED, len(lengths))))
    started = time.monotonic()
    trainer.evaluate(read)
    return (time.monotonic() - started) * sum(lengths) / sum(lengths[: len(read)])


def _sample_seconds(trainer: CompletionTrainer, rows: Rows, recipe: Recipe) -> float:
    # A trained model ends its email about where the example ends.
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
