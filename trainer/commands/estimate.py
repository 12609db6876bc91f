"""`trainer estimate`: the command line of trainer/trials/estimate.py. Parses, calls, prints; no figures of its own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.commands import sft
from trainer.console import log
from trainer.training.recipe import Recipe
from trainer.trials.prices import (
    FASTER,
    SLOWER,
    Prices,
    Quote,
    Range,
    load,
    memory_gb,
    own_quote,
    quotes,
)

if TYPE_CHECKING:
    from trainer.trials.estimate import BreakEven, Here, Lesson, Work

EXAMPLES = """examples:
  trainer estimate --data my_email_dataset.json                   takes ten steps here, which are thrown away
  trainer estimate --data trainer/data/shipped/voices/formal.jsonl --recipe shipped
  trainer estimate --data mine.jsonl --epochs 5 --no-probe        tokens, and GPUs elsewhere: at once
  trainer estimate --data mine.jsonl --prices my_prices.yaml --json
"""
HELP = """What will `trainer sft` with the same options take? Tokens (exact), time and memory on this machine (from ten
real training steps), time and cost on rented GPUs and on a card of your own (by formula, not run there), and after how
many models that card has paid for itself.

Nothing is published. The prediction is kept: `trainer sft` with the same emails and options says afterwards how far
off it was, and the next estimate on this machine is corrected by that."""


@dataclass(frozen=True)
class Found:
    """All that is printed."""

    recipe: Recipe
    work: Work
    here: Here | None
    memory_gb: float
    rented: list[Quote]
    own: Quote
    break_even: BreakEven
    lesson: Lesson


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `trainer estimate` to the trainer's commands; `shared` has --base, --json and --debug."""
    parser = commands.add_parser(
        "estimate",
        parents=[shared],
        help="what will a training take and cost?",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--prices", metavar="FILE", type=Path, help="GPUs and prices (default: trainer/trials/prices.yaml)"
    )
    parser.add_argument("--no-probe", action="store_true", help="take no steps: no time and memory of this machine")
    sft.add_options(parser)
    parser.set_defaults(command=_estimate)


def _estimate(args: argparse.Namespace) -> None:
    prices = load(args.prices)
    run = sft.chosen(args)
    from trainer.trials import estimate

    work, tokenizer = estimate.work(run.examples, run.recipe, run.base, run.device, log)
    here = None if args.no_probe else estimate.here(work, run.base, run.recipe, tokenizer, run.device, log)
    memory = memory_gb(work.size, work.batch, work.longest)
    rented = quotes(prices, work.size, work.tokens, work.steps, memory)
    own = own_quote(prices, work.size, work.tokens, work.steps, memory)
    even = estimate.break_even(prices, rented, own)
    found = Found(run.recipe, work, here, memory, rented, own, even, estimate.lesson(prices, work))
    if stale := prices.staleness(datetime.now(UTC).date()):
        log(f"warning: {stale}")
    print(json.dumps(_as_json(found), indent=2) if args.json else "\n".join(lines(found, prices)))


def lines(found: Found, prices: Prices) -> Iterator[str]:
    """The estimate for a person."""
    work, rows = found.work, found.work.rows
    epochs = "1 epoch" if work.epochs == 1 else f"{work.epochs} epochs"
    yield (
        f"emails    {len(rows.emails):,} to learn from, {rows.practice:,} copies and generated ones beside them, "
        f"{len(rows.heldout):,} held out"
    )
    yield f"tokens    {work.tokens:,} (exact): {work.tokens_an_epoch:,} an epoch, {epochs}, {work.steps:,} steps"
    if found.recipe.early_stop:
        yield "          or fewer: early_stop may end the run before"
    if found.here:
        yield from _here(found.here, found.recipe)
    least, most = prices.setup_hours
    yield ""
    yield (
        f"On GPUs elsewhere, not run there: by a formula, times {FASTER} to {SLOWER}; {least:g} to {most:g} hours of "
        "set-up are paid too."
    )
    yield f"It needs about {found.memory_gb:.1f} GB of a GPU's memory. The cheapest price of each (--json has all):"
    order = list(prices.gpus)
    rented = sorted(_cheapest_of_each(found.rented), key=lambda quote: order.index(quote.gpu))
    yield from _table([*rented, found.own])
    yield ""
    yield _break_even(found.break_even, found.own)
    yield from _lesson(found.lesson, prices)


def _here(here: Here, recipe: Recipe) -> Iterator[str]:
    seconds = here.seconds
    yield (
        f"time here {_duration(seconds.middle)} ({_range(seconds, _duration)}), {here.tokens_a_second:,.0f} tokens a "
        f"second: ten steps on {here.machine}"
    )
    if here.runs:
        runs = "the last run like it" if here.runs == 1 else f"the median of the last {here.runs} runs like it"
        yield f"          corrected by {here.correction - 1:+.0%}: {runs} on this machine, against its probe"
    yield "          loading is not in it" + (
        ", nor the evaluation that the recipe's limits ask for" if recipe.limits else ""
    )
    yield f"memory    {here.memory_gib:.1f} GiB of {here.machine_memory_gib:.1f} GiB here, most that the probe held"


def _cheapest_of_each(rented: Sequence[Quote]) -> list[Quote]:
    """What is free stands beside what is paid for."""
    best: dict[tuple[str, bool], Quote] = {}
    for quote in rented:
        key = (quote.gpu, quote.usd_an_hour == 0)
        if key not in best or quote.usd_an_hour < best[key].usd_an_hour:
            best[key] = quote
    return list(best.values())


def _table(found: Sequence[Quote]) -> Iterator[str]:
    form = "  {:<12} {:<13} {:>9}  {:<20} {:<18} {}"
    yield form.format("GPU", "where", "$ an hour", "training", "cost", "price of")
    for quote in found:
        time, cost = _range(quote.hours, lambda hours: _duration(hours * 3600)), _range(quote.usd, _usd)
        if not quote.fits:
            time, cost = "does not fit", "-"
        hourly = f"{quote.usd_an_hour:.2f}" if quote.usd_an_hour else "free"
        origin = f"{quote.date}, {quote.source}" if quote.date else "electricity, assumed"
        yield form.format(quote.gpu, quote.provider, hourly, time, cost, origin)


def _break_even(even: BreakEven, own: Quote) -> str:
    card = f"A card of your own ({own.gpu}, {even.card_usd:,.0f} dollars, an assumption)"
    if not even.rented:
        return f"{card} cannot be compared: the run fits on no rented GPU of the list."
    rented, electricity = even.rented.usd.middle, even.electricity_usd
    against = f"{_usd(rented)} a model rented ({even.rented.provider}, {even.rented.gpu})"
    if even.models is None:
        return f"{card} never pays for itself: its electricity is {_usd(electricity)} a model, against {against}."
    return f"{card} pays for itself after {even.models:,} such models: {against}, {_usd(electricity)} of electricity."


def _lesson(lesson: Lesson, prices: Prices) -> Iterator[str]:
    billions = f"{prices.lesson.parameters / 1e9:g} billion parameters"
    (least, most), (low, high) = lesson.hours, lesson.usd
    yield (
        f"The lesson says {least:g} to {most:g} hours and {low:g} to {high:g} dollars a model of {billions}, and "
        f"{lesson.break_even} models for a card of {lesson.card_usd:,.0f} dollars: {lesson.card_usd:,.0f} / {high:g} = "
        f"{lesson.computed}."
    )
    yield (
        f"By our formula those hours on a rented {lesson.gpu} are {_range_of(lesson.tokens, 1e6, 1)} million tokens, "
        f"such as {_range_of(lesson.emails, 1000, 0)} thousand emails like these, {prices.lesson.epochs} times each."
    )


def _range_of(ends: tuple[float, float], unit: float, digits: int) -> str:
    return f"{ends[0] / unit:,.{digits}f} to {ends[1] / unit:,.{digits}f}"


def _range(ends: Range, write: Callable[[float], str]) -> str:
    low, high = write(ends.low), write(ends.high)
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _usd(usd: float) -> str:
    """Dollars; of fractions of a cent the first digit."""
    return f"${usd:,.2f}" if usd >= 0.01 or not usd else f"${usd:.1g}" if usd >= 0.0001 else "under $0.0001"


def _as_json(found: Found) -> dict[str, Any]:
    work, rows = found.work, found.work.rows
    return {
        "emails": len(rows.emails),
        "practice_examples": rows.practice,
        "heldout_examples": len(rows.heldout),
        "epochs": work.epochs,
        "steps": work.steps,
        "tokens": work.tokens,
        "longest": work.longest,
        "size": asdict(work.size),
        "here": asdict(found.here) if found.here else None,
        "gpu_memory_gb": found.memory_gb,
        "rented": [asdict(quote) for quote in found.rented],
        "own": asdict(found.own),
        "break_even": asdict(found.break_even),
        "lesson": asdict(found.lesson),
    }
