"""What a training takes and costs on GPUs that are not here: the arithmetic, and the prices that it rests on.

The prices are trainer/trials/prices.yaml, or a file like it: each with a date and where it was read. Nothing was run on
these GPUs, so that every time and cost is a range; runs on another, an H200, are in DECISIONS.md. This file does not
know emails, recipes or the machine it runs on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from adapters.errors import ConfigError
from adapters.store.manifest import Frozen

SHIPPED = Path(__file__).parent / "prices.yaml"
STALE_DAYS = 90
FASTER, SLOWER = 0.6, 1.6
"""Between these, times what the formula says, is the time on a GPU where no step was measured."""

Positive = Annotated[float, Field(gt=0)]
Ends = tuple[Positive, Positive]


class Gpu(Frozen):
    memory_gb: Positive
    peak_tflops: Positive
    efficiency: float = Field(gt=0, le=1)
    """Share of the peak that a training reaches."""


class SmallModel(Frozen):
    parameters: Positive
    """A model is small below so many."""
    efficiency: float = Field(gt=0, le=1)
    """Share of a GPU's efficiency that a small one reaches."""


class Price(Frozen):
    provider: str
    gpu: str
    usd_an_hour: float = Field(ge=0)
    source: str
    date: date


class Own(Frozen):
    """A card of one's own."""

    gpu: str
    usd: Positive
    watts: Positive
    usd_a_kwh: float = Field(ge=0)


class Lesson(Frozen):
    """What the lesson says of one model, least and most."""

    parameters: Positive
    epochs: int = Field(gt=0)
    gpu: str
    """An assumption: the lesson names none."""
    hours: Ends
    usd: Ends
    card_usd: Positive
    break_even: int


class Prices(Frozen):
    gpus: dict[str, Gpu]
    small_model: SmallModel
    step_seconds_a_layer: Positive
    """No step is faster than this times the layers, on any GPU: so long takes the CPU to start what the GPU does."""
    setup_hours: Ends
    rented: tuple[Price, ...] = Field(min_length=1)
    own: Own
    lesson: Lesson

    @model_validator(mode="after")
    def _every_gpu_is_known(self) -> Prices:
        named = {self.own.gpu, self.lesson.gpu, *(price.gpu for price in self.rented)}
        unknown = sorted(named - self.gpus.keys())
        if unknown:
            raise ValueError(f"gpus lacks {', '.join(unknown)}")
        return self

    def staleness(self, today: date) -> str | None:
        """A sentence if the newest price is older than STALE_DAYS."""
        newest = max(self.rented, key=lambda price: price.date)
        days = (today - newest.date).days
        if days <= STALE_DAYS:
            return None
        return (
            f"the prices are old: the newest is of {newest.date}, {days} days ago ({newest.provider} {newest.gpu}, "
            f"{newest.source}); look up today's and give them with --prices FILE, a copy of {SHIPPED}"
        )


def load(file: Path | None = None) -> Prices:
    """The prices in `file`, else the shipped ones.

    Raises:
        ConfigError: it cannot be read, or fields are wrong; every one is listed.
    """
    import yaml

    file = file or SHIPPED
    hint = f"start from a copy of {SHIPPED}"
    try:
        return Prices.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as exc:
        raise ConfigError(f"the prices {file} cannot be read: {exc.strerror}", hint) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the prices {file} are not YAML: {exc}", hint) from exc
    except ValidationError as exc:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in exc.errors())
        raise ConfigError(f"the prices {file} cannot be used: {wrong}", hint) from exc


@dataclass(frozen=True)
class Size:
    """Of a base model and the adapter that is trained on it."""

    parameters: int
    adapter_parameters: int
    layers: int
    hidden: int


@dataclass(frozen=True)
class Range:
    """Least, likeliest, most."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Quote:
    """One training on one GPU; of a card of one's own `usd` is the electricity."""

    provider: str
    gpu: str
    usd_an_hour: float
    hours: Range
    usd: Range
    fits: bool
    source: str
    date: str


def flops_a_token(size: Size) -> float:
    """Floating-point operations for a token of training data.

    2 a parameter forward, 2 for the gradients that pass through it; a frozen base has none of its own, which would be
    another 2, but gradient checkpointing (TRL's default, and ours on a GPU) computes the forward pass twice. 6 a
    parameter of the adapter. NVIDIA's figures agree: NeMo trains a LoRA on 7 billion parameters at 663 TFLOP/s and
    24,824 tokens/s, 4.0 operations a parameter without checkpointing. Left out are attention's own products, and
    held-out emails, which are only read forward.
    """
    return 6 * size.parameters + 6 * size.adapter_parameters


def memory_gb(size: Size, batch: int, longest: int) -> float:
    """Of a GPU, for a batch of `batch` emails of `longest` tokens, with gradient checkpointing.

    16 bits a parameter; for the adapter 32 of weight, gradient and each of AdamW's two moments; the inputs of every
    layer in 16 bits, 34 bytes an element of the one layer that is computed anew; a tile of the fused loss; 10 % and 1
    GB for CUDA.
    """
    elements = batch * longest * size.hidden
    activations = 2 * size.layers * elements + 34 * elements
    loss = 4 * min(batch * longest, 4096) * 32768
    return 1.1 * (2 * size.parameters + 16 * size.adapter_parameters + activations + loss) / 1e9 + 1


def tokens_a_second(prices: Prices, gpu: str, size: Size) -> float:
    card, small = prices.gpus[gpu], prices.small_model
    efficiency = card.efficiency * (small.efficiency if size.parameters < small.parameters else 1)
    return card.peak_tflops * 1e12 * efficiency / flops_a_token(size)


def quotes(prices: Prices, size: Size, tokens: int, steps: int, memory: float) -> list[Quote]:
    """What `tokens` in so many steps take and cost on every rented GPU, of which a run needs `memory` GB."""
    least, most = prices.setup_hours
    found = []
    for price in prices.rented:
        hours = _hours(prices, price.gpu, size, tokens, steps)
        paid = Range(hours.low + least, hours.middle + (least + most) / 2, hours.high + most)
        usd = Range(*(price.usd_an_hour * part for part in (paid.low, paid.middle, paid.high)))
        fits = memory <= prices.gpus[price.gpu].memory_gb
        found.append(
            Quote(price.provider, price.gpu, price.usd_an_hour, hours, usd, fits, price.source, str(price.date))
        )
    return found


def own_quote(prices: Prices, size: Size, tokens: int, steps: int, memory: float) -> Quote:
    """The same on one's own card: only the electricity is paid."""
    own = prices.own
    hours = _hours(prices, own.gpu, size, tokens, steps)
    an_hour = own.watts / 1000 * own.usd_a_kwh
    usd = Range(*(an_hour * part for part in (hours.low, hours.middle, hours.high)))
    fits = memory <= prices.gpus[own.gpu].memory_gb
    return Quote("your own", own.gpu, an_hour, hours, usd, fits, "assumptions in the file of prices", "")


def _hours(prices: Prices, gpu: str, size: Size, tokens: int, steps: int) -> Range:
    computing = tokens / tokens_a_second(prices, gpu, size)
    starting = steps * size.layers * prices.step_seconds_a_layer
    middle = max(computing, starting) / 3600
    return Range(FASTER * middle, middle, SLOWER * middle)


def cheapest(found: Sequence[Quote]) -> Quote | None:
    """The least that is paid for a run which fits; None where none does."""
    return min((quote for quote in found if quote.fits and quote.usd_an_hour), key=lambda q: q.usd.middle, default=None)


def break_even(card_usd: float, rented_usd: float, electricity_usd: float) -> int | None:
    """After how many models a card has paid for itself; None: never, as its electricity costs as much as renting."""
    saved = rented_usd - electricity_usd
    return math.ceil(card_usd / saved) if saved > 0 else None
