"""`trainer sweep`: the command line of trainer/trials/sweep.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from adapters.console import table
from adapters.errors import ConfigError
from trainer import console
from trainer.commands import run_options
from trainer.console import ABOVE, BROKEN, LEVELS, finite, log, sparkline
from trainer.trials.learning_rates import JUST_RIGHT_SHARE, MIN_CHANGE, RATES, Sweep, Trial, format_loss, format_rate

if TYPE_CHECKING:
    from trainer.training.recipe import Recipe

EXAMPLES = """examples:
  trainer sweep --data mine.jsonl
  trainer sweep --data mine.jsonl --rates 3e-4,1e-3,3e-3 --steps 60
  trainer sweep --data mine.jsonl --recipe quick --write mine.yaml     then: trainer sft ... --recipe mine.yaml

exit status: 0, 1 if no learning rate is just right, 2 after an error
"""
HELP = f"""Find the learning rate: short trials of several, all from the same weights, on the same batches. Each is too
slow, just right or too fast by its loss on held-out emails: at least 8, or half of all. Just right comes within
{100 * JUST_RIGHT_SHARE:.0f} % of the best one's gain, if the best took {100 * MIN_CHANGE:.0f} % or more off that loss.
A trial's learning rate rises in the first tenth of the steps and then stays; short trials slightly favour high rates.

The recipe is that of `trainer sft`, with --rates for --learning-rate. A trial ignores its epochs, early-stop and
sample-tokens, and --write keeps them. 6 trials of 30 steps of 8 emails take as long as training on 1,440 emails.
Nothing is published."""
STEPS, MIN_STEPS = 30, 5
MAX_CURVE_CHARACTERS = 24
RATES_HINT = "give two or more numbers between 0 and 1 with commas between them: --rates 1e-4,1e-3"


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "sweep",
        parents=[shared],
        help="which learning rate is too slow, just right, too fast?",
        description=HELP,
        epilog=EXAMPLES,
    )
    option = parser.add_argument
    option("--rates", metavar="N,N", help=f"learning rates to try (default: {','.join(map(format_rate, RATES))})")
    option("--steps", metavar="N", type=int, default=STEPS, help=f"steps of each trial (default: {STEPS})")
    option("--write", metavar="FILE.yaml", type=Path, help="write the recipe with the learning rate that was best")
    option("--force", action="store_true", help="overwrite what --write writes")
    run_options.add_options(parser)
    parser.set_defaults(command=_sweep)


def _sweep(args: argparse.Namespace) -> int:
    if args.learning_rate is not None:
        raise ConfigError(f"--learning-rate {args.learning_rate} is one rate, and a sweep compares several", RATES_HINT)
    if args.steps < MIN_STEPS:
        raise ConfigError(f"--steps {args.steps} shows nothing", f"give {MIN_STEPS} or more; {STEPS} is the default")
    rates = RATES if args.rates is None else _rates(args.rates)
    if args.write:
        console.check_new_file(args.write, args.force)
    run = run_options.chosen(args)
    from trainer.trials.sweep import sweep

    found = sweep(run.examples, run.base, run.recipe, rates, args.steps, log)
    print(json.dumps(_as_dict(found), indent=2) if args.json else "\n".join(_report(found, args.write)))
    if args.write and found.chosen:
        console.write(args.write, recipe_with(run.recipe, found.chosen, found))
    elif args.write:
        log(f"{args.write} was not written: no learning rate is just right")
    return 0 if found.chosen else 1


def _rates(text: str) -> list[float]:
    rates = []
    for part in text.split(","):
        try:
            rate = float(part)
        except ValueError as exc:
            raise ConfigError(f"--rates {text}: {part.strip()!r} is not a number", RATES_HINT) from exc
        if not 0 < rate < 1:
            raise ConfigError(f"--rates {text}: {part.strip()} is not between 0 and 1", RATES_HINT)
        rates.append(rate)
    if len(set(rates)) < 2:
        raise ConfigError(f"--rates {text} leaves nothing to compare", RATES_HINT)
    return rates


def recipe_with(recipe: Recipe, chosen: Trial, sweep: Sweep) -> str:
    """YAML that `trainer sft --recipe` reads: the fields that were given, and the learning rate of `chosen`."""
    import yaml

    given = recipe.model_dump(mode="json", exclude_unset=True, exclude={"recipe", "learning_rate"})
    losses = f"from {format_loss(sweep.heldout_before)} to {format_loss(chosen.heldout)}"
    return (
        f"# The learning rate is the best of {len(sweep.trials)} that `trainer sweep` tried, {sweep.steps} steps each: "
        f"it took the\n# held-out loss {losses}. All else is as it was given.\n"
        + yaml.safe_dump({"learning_rate": chosen.learning_rate} | given, sort_keys=False)
    )


def _report(sweep: Sweep, recipe_file: Path | None) -> Iterator[str]:
    yield table(
        ["learning rate", "training loss", "held-out loss", "loss, step by step", "verdict"],
        [
            (
                format_rate(trial.learning_rate),
                format_loss(trial.losses[-1]),
                format_loss(trial.heldout),
                curve(trial, sweep),
                sweep.verdict(trial),
            )
            for trial in sweep.trials
        ],
    )
    low, high = sweep.scale
    yield (
        f"{sweep.steps} steps of {sweep.batch_size} emails; held out: {sweep.heldout_emails}, loss before the trials "
        f"{format_loss(sweep.heldout_before)}; nats a token, {LEVELS[0]} {format_loss(low)} to {LEVELS[-1]} "
        f"{format_loss(high)}, {ABOVE} above, {BROKEN} NaN or infinite"
    )
    if chosen := sweep.chosen:
        rate = format_rate(chosen.learning_rate)
        yield f"just right: {rate}"
        if recipe_file:
            yield f"use it: trainer sft ... --recipe {recipe_file}"
        else:
            yield f"use it: trainer sft ... --learning-rate {rate}"
            yield "write it: trainer sweep ... --write recipe.yaml, then trainer sft ... --recipe recipe.yaml"
    else:
        yield f"none is just right: no trial took {100 * MIN_CHANGE:.0f} % off the held-out loss"
    if sweep.advice:
        yield sweep.advice


def curve(trial: Trial, sweep: Sweep) -> str:
    """At most MAX_CURVE_CHARACTERS; a character for several steps shows their mean."""
    width = min(MAX_CURVE_CHARACTERS, sweep.steps)
    edges = [round(at * sweep.steps / width) for at in range(width + 1)]
    parts = [trial.losses[start:end] for start, end in pairwise(edges)]
    return sparkline([fmean(part) for part in parts if part], *sweep.scale)


def _as_dict(sweep: Sweep) -> dict[str, Any]:
    kept = asdict(sweep)
    for trial, row in zip(sweep.trials, kept["trials"], strict=True):
        row["losses"] = list(map(finite, trial.losses))
        row["heldout"] = finite(trial.heldout)
        row["verdict"] = sweep.verdict(trial)
    return {"chosen": sweep.chosen and sweep.chosen.learning_rate, "advice": sweep.advice} | kept
