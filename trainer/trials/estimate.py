"""What a training run will take, before it starts: tokens, time and memory here, time and cost on GPUs elsewhere.

Tokens are exact. The time here comes from ten real steps (trainer/trials/probe.py), corrected by how far off the last
predictions for similar runs were (trainer/trials/predictions.py); elsewhere from a formula (trainer/trials/prices.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adapters.models.base_models import BaseModel
from trainer.compute.memory import Size, size_of
from trainer.console import Log, bar
from trainer.data.check import token_counter
from trainer.data.examples import Example, digest
from trainer.training.dataset import Rows, training_set
from trainer.training.recipe import Recipe
from trainer.trials import predictions, prices
from trainer.trials.predictions import Prediction
from trainer.trials.prices import BreakEven, Prices, Quote, Range

if TYPE_CHECKING:
    from trainer.compute.device import Device


@dataclass(frozen=True)
class Work:
    rows: Rows
    tokens_an_epoch: int
    epochs: int
    steps: int
    batch: int
    # Tokens of the longest email with its task.
    longest: int
    size: Size

    @property
    def tokens(self) -> int:
        """Of the whole run, as the manifest records it unless the run ends early."""
        return self.tokens_an_epoch * self.epochs


@dataclass(frozen=True)
class Here:
    """`seconds` predicts the manifest's `training.seconds`; `correction`, a median over `runs`, is in it."""

    machine: str
    seconds: Range
    tokens_a_second: float
    correction: float
    runs: int
    # The peak of the probe; on a GPU of the GPU's memory.
    memory_gib: float
    machine_memory_gib: float


@dataclass(frozen=True)
class Estimate:
    """`here` is None without a probe."""

    recipe: Recipe
    work: Work
    here: Here | None
    gpu_memory_gb: float
    rented: list[Quote]
    own: Quote
    break_even: BreakEven


def estimate(
    examples: Sequence[Example], base: BaseModel, recipe: Recipe, device: Device, known: Prices, probed: bool, log: Log
) -> Estimate:
    """Raises:
    DataError: emails that are too long, all listed.
    """
    wanted, tokenizer = work(examples, recipe, base, device, log)
    measured = here(wanted, base, recipe, tokenizer, device, log) if probed else None
    memory = prices.memory_gb(wanted.size, wanted.batch, wanted.longest)
    rented = prices.quotes(known, wanted.size, wanted.tokens, wanted.steps, memory)
    own = prices.own_quote(known, wanted.size, wanted.tokens, wanted.steps, memory)
    return Estimate(recipe, wanted, measured, memory, rented, own, prices.break_even(known.own.usd, rented, own))


def work(examples: Sequence[Example], recipe: Recipe, base: BaseModel, device: Device, log: Log) -> tuple[Work, Any]:
    """What `trainer sft` would do, and the tokenizer."""
    # Gives the same tokens as AutoTokenizer, whose import takes 12 s on 2 cores, where this one takes 2 s.
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(base.path)
    rows = training_set(examples, recipe, base, device, log)
    counts = token_counter(tokenizer)(rows.train)
    steps = recipe.epochs * math.ceil(len(rows.train) / recipe.batch_size)
    size = size_of(base.path, recipe.rank)
    batch = min(recipe.batch_size, len(counts))
    return Work(rows, sum(counts), recipe.epochs, steps, batch, max(counts), size), tokenizer


def here(wanted: Work, base: BaseModel, recipe: Recipe, tokenizer: Any, device: Device, log: Log) -> Here:
    """Probe, correct the result, and keep the prediction for the comparison with the finished run."""
    log("a probe of ten training steps:")
    from trainer.trials import probe

    with bar("probing", probe.WORK) as advance:
        probed = probe.probe(wanted.rows, base, recipe, tokenizer, device, advance)
    seconds = probed.seconds(wanted.epochs, wanted.steps)
    prediction = Prediction(
        date=datetime.now(UTC),
        machine=predictions.machine(device),
        dtype=device.dtype,
        base_fingerprint=base.fingerprint,
        recipe=recipe.model_dump(mode="json"),
        data_sha256=digest(wanted.rows.train),
        heldout_sha256=digest(wanted.rows.heldout) if wanted.rows.heldout else None,
        tokens=wanted.tokens,
        steps=wanted.steps,
        tokens_a_second=1 / probed.seconds_a_token,
        probed_seconds=seconds,
        seconds=seconds,
    )
    ratio, runs = predictions.correction(prediction, predictions.read(log))
    seconds *= ratio
    predictions.keep(prediction.model_copy(update={"seconds": seconds}), log)
    ends = Range(1 - probed.margin, 1, 1 + probed.margin) * seconds
    rate = prediction.tokens_a_second / ratio
    return Here(prediction.machine, ends, rate, ratio, runs, probed.memory_gib, _memory_gib(device))


def _memory_gib(device: Device) -> float:
    if device.kind == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[1] / 2**30)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
