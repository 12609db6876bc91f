"""What a training run will take, before it starts: tokens, time and memory here, time and cost on GPUs elsewhere.

Tokens are exact. The time here is that of ten real steps (trainer/trials/probe.py), corrected by what runs like this
one took beyond theirs (trainer/trials/predictions.py); elsewhere it is a formula's (trainer/trials/prices.py). This
file does not know flags or how results are printed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adapters.models.base_models import BaseModel, shaping_config
from trainer.console import Log, bar
from trainer.data.check import check_before_training, token_counter
from trainer.data.examples import Example, digest
from trainer.training.dataset import Rows
from trainer.training.mix import rows_of_run
from trainer.training.recipe import Recipe
from trainer.trials import predictions, prices
from trainer.trials.predictions import Prediction
from trainer.trials.prices import Prices, Quote, Range, Size

if TYPE_CHECKING:
    from trainer.compute.device import Device


@dataclass(frozen=True)
class Work:
    """What a run is asked to do."""

    rows: Rows
    tokens_an_epoch: int
    epochs: int
    steps: int
    batch: int
    longest: int
    """Tokens of the longest of its emails with its task."""
    size: Size

    @property
    def tokens(self) -> int:
        """Of the whole run: what the manifest will say, unless it is ended early."""
        return self.tokens_an_epoch * self.epochs


@dataclass(frozen=True)
class Here:
    """`seconds` are those of `training.seconds` in the manifest; `correction` and over how many `runs` is in them."""

    machine: str
    seconds: Range
    tokens_a_second: float
    correction: float
    runs: int
    memory_gib: float
    """Most that the probe held; on a GPU of the GPU's memory."""
    machine_memory_gib: float


@dataclass(frozen=True)
class Lesson:
    """The lesson's figures, and what they mean on `gpu` by the formula that ours are by."""

    gpu: str
    hours: tuple[float, float]
    usd: tuple[float, float]
    card_usd: float
    break_even: int
    """The lesson's own; `computed` is ours for the upper end of its cost, electricity left out as it does."""
    computed: int | None
    tokens: tuple[float, float]
    """Read in its hours by its model."""
    emails: tuple[float, float]
    """Of the mean length of those of this run, over the lesson's epochs."""


@dataclass(frozen=True)
class BreakEven:
    card_usd: float
    rented: Quote | None
    """The cheapest rented GPU on which the run fits."""
    electricity_usd: float
    models: int | None
    """None: never, or nothing to compare with."""


def work(examples: Sequence[Example], recipe: Recipe, base: BaseModel, device: Device, log: Log) -> tuple[Work, Any]:
    """What `trainer sft` would do, and the tokenizer; the emails are checked as there.

    Raises:
        DataError: emails that are too long, all listed.
    """
    # Of the same tokens as AutoTokenizer, which takes 12 s to import on this project's machine, where this takes 2 s.
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(base.path)
    check_before_training(examples, tokenizer, recipe.max_length, log)
    rows = rows_of_run(examples, recipe, base, device, log)
    counts = token_counter(tokenizer)(rows.train)
    steps = recipe.epochs * math.ceil(len(rows.train) / recipe.batch_size)
    size = size_of(base, recipe.rank)
    batch = min(recipe.batch_size, len(counts))
    return Work(rows, sum(counts), recipe.epochs, steps, batch, max(counts), size), tokenizer


def size_of(base: BaseModel, rank: int) -> Size:
    """From the headers of the files: no weight is read. The adapter is on every linear layer but the output's."""
    from safetensors import safe_open

    parameters = adapter = 0
    for file in base.path.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                shape = tensors.get_slice(name).get_shape()
                parameters += math.prod(shape)
                if ".layers." in name and len(shape) == 2:
                    adapter += rank * sum(shape)
    shape_of = shaping_config(base.path)
    return Size(parameters, adapter, shape_of["num_hidden_layers"], shape_of["hidden_size"])


def here(wanted: Work, base: BaseModel, recipe: Recipe, tokenizer: Any, device: Device, log: Log) -> Here:
    """Take the probe, correct what it says, and keep the prediction for when the run is done."""
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
    ends = Range(seconds * (1 - probed.margin), seconds, seconds * (1 + probed.margin))
    rate = prediction.tokens_a_second / ratio
    return Here(prediction.machine, ends, rate, ratio, runs, probed.memory_gib, _memory_gib(device))


def break_even(known: Prices, rented: Sequence[Quote], own: Quote) -> BreakEven:
    """After how many models like this one a card of one's own is cheaper than the cheapest rented GPU."""
    best = prices.cheapest(rented)
    models = prices.break_even(known.own.usd, best.usd.middle, own.usd.middle) if best else None
    return BreakEven(known.own.usd, best, own.usd.middle, models)


def lesson(known: Prices, wanted: Work) -> Lesson:
    says = known.lesson
    # Its adapter is left out: next to its parameters it is nothing.
    rate = prices.tokens_a_second(known, says.gpu, Size(int(says.parameters), 0, 0, 0))
    low, high = (rate * 3600 * hours for hours in says.hours)
    an_email = wanted.tokens_an_epoch / len(wanted.rows.train) * says.epochs
    return Lesson(
        gpu=says.gpu,
        hours=says.hours,
        usd=says.usd,
        card_usd=says.card_usd,
        break_even=says.break_even,
        computed=prices.break_even(says.card_usd, says.usd[1], 0),
        tokens=(low, high),
        emails=(low / an_email, high / an_email),
    )


def _memory_gib(device: Device) -> float:
    if device.kind == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[1] / 2**30)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
