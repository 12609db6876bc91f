"""What a training takes and costs on GPUs that are not here: a formula, and the prices that it uses.

The prices are trainer/trials/prices.yaml, or a file like it: each with a date and a source. Nothing was run on these
GPUs, so every time and cost is a range; runs on another one, an H200, are in DECISIONS.md.
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
from trainer.compute.memory import Size

SHIPPED = Path(__file__).parent / "prices.yaml"
STALE_DAYS = 90
# The time on a GPU where no step was measured is the formula's, times a number between these.
FASTER, SLOWER = 0.6, 1.6

Positive = Annotated[float, Field(gt=0)]
Ends = tuple[Positive, Positive]


class Gpu(Frozen):
    memory_gb: Positive
    peak_tflops: Positive
    # Share of the peak that a training reaches.
    efficiency: float = Field(gt=0, le=1)


class SmallModel(Frozen):
    """A model with fewer `parameters` reaches only the share `efficiency` of a GPU's efficiency."""

    parameters: Positive
    efficiency: float = Field(gt=0, le=1)


class Price(Frozen):
    provider: str
    gpu: str
    usd_an_hour: float = Field(ge=0)
    source: str
    date: date


class Own(Frozen):
    """A card that the user buys."""

    gpu: str
    usd: Positive
    watts: Positive
    usd_a_kwh: float = Field(ge=0)


class Prices(Frozen):
    gpus: dict[str, Gpu]
    small_model: SmallModel
    # The CPU needs this long to start the work of a layer, so no step on any GPU is faster than this times the layers.
    step_seconds_a_layer: Positive
    setup_hours: Ends
    rented: tuple[Price, ...] = Field(min_length=1)
    own: Own

    @model_validator(mode="after")
    def _every_gpu_is_known(self) -> Prices:
        if unknown := sorted({self.own.gpu, *(price.gpu for price in self.rented)} - self.gpus.keys()):
            raise ValueError(f"gpus lacks {', '.join(unknown)}")
        return self

    def staleness(self, today: date) -> str | None:
        """A warning if the newest price is older than STALE_DAYS."""
        newest = max(self.rented, key=lambda price: price.date)
        days = (today - newest.date).days
        if days <= STALE_DAYS:
            return None
        return (
            f"the prices are old: the newest is from {newest.date}, {days} days ago ({newest.provider} {newest.gpu}, "
            f"{newest.source}); look up today's and pass them with --prices FILE, a copy of {SHIPPED}"
        )


def load(file: Path | None = None) -> Prices:
    """The prices in `file`, else the shipped ones.

    Raises:
        ConfigError: the file cannot be read, or has wrong fields; all of them are listed.
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
class Range:
    low: float
    middle: float
    high: float

    def __mul__(self, factor: float) -> Range:
        return Range(self.low * factor, self.middle * factor, self.high * factor)


@dataclass(frozen=True)
class Quote:
    """One training on one GPU; for the user's own card `usd` is the electricity."""

    provider: str
    gpu: str
    usd_an_hour: float
    hours: Range
    usd: Range
    fits: bool
    source: str
    date: str


@dataclass(frozen=True)
class BreakEven:
    """After how many `models` a card is cheaper than renting the cheapest GPU that the run fits on, if there is one."""

    card_usd: float
    rented: Quote | None
    electricity_usd: float
    # None: never, or no rented GPU fits.
    models: int | None


def flops_a_token(size: Size) -> float:
    """Floating-point operations for a token of training data.

    For each parameter of the frozen base, 2 forward and 2 for the gradients that pass through it; its own gradients,
    another 2, are not computed, but gradient checkpointing (TRL's default, and ours on a GPU) runs the forward pass
    twice. 6 for each parameter of the adapter. NVIDIA's figures agree: NeMo trains a LoRA on 7 billion parameters at
    663 TFLOP/s and 24,824 tokens/s, 4.0 operations a parameter without checkpointing. Not counted: attention's own
    products, and held-out emails, which only need the forward pass.
    """
    return 6 * size.parameters + 6 * size.adapter_parameters


def memory_gb(size: Size, batch: int, longest: int) -> float:
    """GPU memory for a batch of `batch` emails of `longest` tokens, with gradient checkpointing.

    16 bits a parameter; for the adapter 32 for the weight, the gradient and each of AdamW's two moments; the inputs of
    every layer in 16 bits, 34 bytes an element of the one layer that is recomputed; a tile of the fused loss; 10 % and
    1 GB for CUDA.
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
    """The time and cost of a run of `tokens` in `steps` on every rented GPU; it needs `memory` GB."""
    shortest, longest = prices.setup_hours
    found = []
    for price in prices.rented:
        hours = _hours(prices, price.gpu, size, tokens, steps)
        paid = Range(hours.low + shortest, hours.middle + (shortest + longest) / 2, hours.high + longest)
        fits = memory <= prices.gpus[price.gpu].memory_gb
        origin = price.source, str(price.date)
        found.append(
            Quote(price.provider, price.gpu, price.usd_an_hour, hours, paid * price.usd_an_hour, fits, *origin)
        )
    return found


def own_quote(prices: Prices, size: Size, tokens: int, steps: int, memory: float) -> Quote:
    """The same on the user's own card, which costs electricity."""
    own = prices.own
    hours = _hours(prices, own.gpu, size, tokens, steps)
    usd_an_hour = own.watts / 1000 * own.usd_a_kwh
    fits = memory <= prices.gpus[own.gpu].memory_gb
    source = "assumptions in the file of prices"
    return Quote("your own", own.gpu, usd_an_hour, hours, hours * usd_an_hour, fits, source, date="")


def _hours(prices: Prices, gpu: str, size: Size, tokens: int, steps: int) -> Range:
    computing = tokens / tokens_a_second(prices, gpu, size)
    starting = steps * size.layers * prices.step_seconds_a_layer
    return Range(FASTER, 1, SLOWER) * (max(computing, starting) / 3600)


def break_even(card_usd: float, rented: Sequence[Quote], own: Quote) -> BreakEven:
    paid = [quote for quote in rented if quote.fits and quote.usd_an_hour]
    best = min(paid, key=lambda quote: quote.usd.middle, default=None)
    saved = best.usd.middle - own.usd.middle if best else 0
    return BreakEven(card_usd, best, own.usd.middle, math.ceil(card_usd / saved) if saved > 0 else None)
