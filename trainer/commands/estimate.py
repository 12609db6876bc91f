"""`trainer estimate`: the command line of trainer/trials/estimate.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.console import table
from trainer.commands import run_options
from trainer.console import log
from trainer.trials import prices
from trainer.trials.prices import BreakEven, Prices, Quote, Range

if TYPE_CHECKING:
    from trainer.training.recipe import Recipe
    from trainer.trials.estimate import Estimate, Here

EXAMPLES = """examples:
  trainer estimate --data my_email_dataset.json                   takes ten steps here, which are thrown away
  trainer estimate --data trainer/data/shipped/voices/formal.jsonl --recipe shipped
  trainer estimate --data mine.jsonl --epochs 5 --no-probe        tokens, and GPUs elsewhere: at once
  trainer estimate --data mine.jsonl --prices my_prices.yaml --json
"""
HELP = """What will `trainer sft` with the same options take? Tokens (exact), time and memory on this machine (from ten
real training steps), time and cost on rented GPUs and on a card of your own (by a formula, not run there), and after
how many models that card has paid for itself.

Nothing is published. The prediction is kept: `trainer sft` with the same emails and options compares itself with it,
and the next estimate on this machine is corrected by the difference."""


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "estimate", parents=[shared], help="what will a training take and cost?", description=HELP, epilog=EXAMPLES
    )
    parser.add_argument(
        "--prices", metavar="FILE", type=Path, help="GPUs and prices (default: trainer/trials/prices.yaml)"
    )
    parser.add_argument("--no-probe", action="store_true", help="take no steps: no time and memory of this machine")
    run_options.add_options(parser)
    parser.set_defaults(command=_estimate)


def _estimate(args: argparse.Namespace) -> None:
    known = prices.load(args.prices)
    run = run_options.chosen(args)
    from trainer.trials.estimate import estimate

    found = estimate(run.examples, run.base, run.recipe, run.device, known, not args.no_probe, log)
    if stale := known.staleness(datetime.now(UTC).date()):
        log(f"warning: {stale}")
    print(json.dumps(_as_json(found), indent=2) if args.json else "\n".join(lines(found, known)))


def lines(found: Estimate, known: Prices) -> Iterator[str]:
    work, rows = found.work, found.work.rows
    epochs = "1 epoch" if work.epochs == 1 else f"{work.epochs} epochs"
    yield (
        f"emails    {len(rows.emails):,} to learn from, {rows.replay:,} general examples beside them, "
        f"{len(rows.heldout):,} held out"
    )
    yield f"tokens    {work.tokens:,} (exact): {work.tokens_an_epoch:,} an epoch, {epochs}, {work.steps:,} steps"
    if found.recipe.early_stop:
        yield "          or fewer: early_stop may end the run before"
    if found.here:
        yield from _here(found.here, found.recipe)
    shortest, longest = known.setup_hours
    yield ""
    yield (
        f"On GPUs elsewhere, not run there: by a formula, times {prices.FASTER} to {prices.SLOWER}; {shortest:g} to "
        f"{longest:g} hours of set-up are paid too."
    )
    yield f"It needs about {found.gpu_memory_gb:.1f} GB of a GPU's memory. The cheapest price of each (--json has all):"
    order = list(known.gpus)
    rented = sorted(_cheapest_of_each(found.rented), key=lambda quote: order.index(quote.gpu))
    yield table(["GPU", "where", "$ an hour", "training", "cost", "price of"], map(_cells, [*rented, found.own]))
    yield ""
    yield _break_even(found.break_even, found.own)


def _here(here: Here, recipe: Recipe) -> Iterator[str]:
    seconds = here.seconds
    yield (
        f"time here {_duration(seconds.middle)} ({_range(seconds, _duration)}), {here.tokens_a_second:,.0f} tokens a "
        f"second: ten steps on {here.machine}"
    )
    if here.runs:
        runs = "the last run like it" if here.runs == 1 else f"the median of the last {here.runs} runs like it"
        yield f"          corrected by {here.correction - 1:+.0%}: {runs} on this machine, against its probe"
    limits = " and the evaluation for the recipe's limits" if recipe.limits else ""
    yield f"          without loading{limits}"
    yield f"memory    {here.memory_gib:.1f} GiB of {here.machine_memory_gib:.1f} GiB here, the peak of the probe"


def _cheapest_of_each(rented: Sequence[Quote]) -> list[Quote]:
    """Per GPU the cheapest paid offer, and the free one."""
    dearest_first = sorted(rented, key=lambda quote: quote.usd_an_hour, reverse=True)
    return list({(quote.gpu, quote.usd_an_hour == 0): quote for quote in dearest_first}.values())


def _cells(quote: Quote) -> tuple[str, ...]:
    time, cost = _range(quote.hours, lambda hours: _duration(hours * 3600)), _range(quote.usd, _usd)
    if not quote.fits:
        time, cost = "does not fit", "-"
    hourly = f"{quote.usd_an_hour:.2f}" if quote.usd_an_hour else "free"
    origin = f"{quote.date}, {quote.source}" if quote.date else "electricity, assumed"
    return quote.gpu, quote.provider, hourly, time, cost, origin


def _break_even(even: BreakEven, own: Quote) -> str:
    card = f"A card of your own ({own.gpu}, {even.card_usd:,.0f} dollars, an assumption)"
    if not even.rented:
        return f"{card} cannot be compared: the run does not fit on any rented GPU of the list."
    rented, electricity = even.rented.usd.middle, even.electricity_usd
    against = f"{_usd(rented)} a model rented ({even.rented.provider}, {even.rented.gpu})"
    if even.models is None:
        return f"{card} never pays for itself: its electricity is {_usd(electricity)} a model, against {against}."
    return f"{card} pays for itself after {even.models:,} such models: {against}, {_usd(electricity)} of electricity."


def _range(ends: Range, write: Callable[[float], str]) -> str:
    low, high = write(ends.low), write(ends.high)
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _usd(usd: float) -> str:
    """Fractions of a cent get one digit."""
    return f"${usd:,.2f}" if usd >= 0.01 or not usd else f"${usd:.1g}" if usd >= 0.0001 else "under $0.0001"


def _as_json(found: Estimate) -> dict[str, Any]:
    work, rows = found.work, found.work.rows
    return {
        "emails": len(rows.emails),
        "replay_examples": rows.replay,
        "heldout_examples": len(rows.heldout),
        "epochs": work.epochs,
        "steps": work.steps,
        "tokens": work.tokens,
        "longest": work.longest,
        "size": asdict(work.size),
        "here": asdict(found.here) if found.here else None,
        "gpu_memory_gb": found.gpu_memory_gb,
        "rented": [asdict(quote) for quote in found.rented],
        "own": asdict(found.own),
        "break_even": asdict(found.break_even),
    }
