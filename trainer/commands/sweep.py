"""`trainer sweep`: the command line of trainer/trials/sweep.py. Parses, calls, prints; the rules are
trainer/trials/learning_rates.py's."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError
from trainer import console
from trainer.commands import sft
from trainer.console import ABOVE, BROKEN, LEVELS, log, sparkline
from trainer.trials.learning_rates import MOVED, RATES, WITHIN, Sweep, Trial, shown, written

if TYPE_CHECKING:
    from trainer.training.recipe import Recipe

EXAMPLES = """examples:
  trainer sweep --data mine.jsonl
  trainer sweep --data mine.jsonl --rates 3e-4,1e-3,3e-3 --steps 60
  trainer sweep --data mine.jsonl --recipe quick --write mine.yaml     then: trainer sft ... --recipe mine.yaml

exit status: 0, 1 where no learning rate is just right, 2 after an error
"""
HELP = f"""Find the speed of learning: short trials of learning rates, all from the same weights, on the same batches.
Each is too slow, just right or too fast by its loss on emails that are held out: at least 8, or half of all. Just
right is what comes within {100 * WITHIN:.0f} % of the best one's gain, if the best took {100 * MOVED:.0f} % or more off
that loss.
A trial's learning rate rises in the first tenth of the steps and then stays; short trials favour fast rates a little.

The recipe is that of `trainer sft`, with --rates for --learning-rate. A trial does without its epochs, early-stop and
sample-tokens, and --write keeps them. 6 trials of 30 steps of 8 emails take as long as training on 1,440 emails.
Nothing is published."""
STEPS, FEWEST = 30, 5
CURVE = 24
"""Most characters of a curve in the terminal."""
MORE = "give two or more numbers between 0 and 1 with commas between them: --rates 1e-4,1e-3"


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `trainer sweep` to the trainer's commands; `shared` has --base, --json and --debug."""
    parser = commands.add_parser(
        "sweep",
        parents=[shared],
        help="which learning rate is too slow, just right, too fast?",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--rates", metavar="N,N", help=f"learning rates to try (default: {','.join(map(written, RATES))})")
    option("--steps", metavar="N", type=int, default=STEPS, help=f"steps of each trial (default: {STEPS})")
    option("--write", metavar="FILE.yaml", type=Path, help="write the recipe with the learning rate that was best")
    option("--force", action="store_true", help="overwrite what --write writes")
    sft.add_options(parser)
    parser.set_defaults(command=_sweep)


def _sweep(args: argparse.Namespace) -> int:
    if args.learning_rate is not None:
        raise ConfigError(f"--learning-rate {args.learning_rate:g} is one rate, and a sweep compares several", MORE)
    if args.steps < FEWEST:
        raise ConfigError(f"--steps {args.steps} shows nothing", f"give {FEWEST} or more; {STEPS} is the default")
    rates = RATES if args.rates is None else _rates(args.rates)
    if args.write:
        _check_file(args.write, args.force)
    run = sft.chosen(args)
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
            raise ConfigError(f"--rates {text}: {part.strip()!r} is no number", MORE) from exc
        if not 0 < rate < 1:
            raise ConfigError(f"--rates {text}: {part.strip()} is not between 0 and 1", MORE)
        rates.append(rate)
    if len(set(rates)) < 2:
        raise ConfigError(f"--rates {text} leaves nothing to compare", MORE)
    return rates


def _check_file(file: Path, force: bool) -> None:
    console.check_directory(file)
    if file.is_dir():
        raise ConfigError(f"{file} cannot be written: it is a directory", "name a file in it")
    if file.exists() and not force:
        raise ConfigError(f"{file} is there already", "--force overwrites it, or name another file")


def recipe_with(recipe: Recipe, chosen: Trial, sweep: Sweep) -> str:
    """YAML that `trainer sft --recipe` reads: the fields that were given, and the learning rate of `chosen`."""
    import yaml

    given = recipe.model_dump(mode="json", exclude_unset=True, exclude={"recipe", "learning_rate"})
    losses = f"from {shown(sweep.heldout_before)} to {shown(chosen.heldout)}"
    return (
        f"# The learning rate is the best of {len(sweep.trials)} that `trainer sweep` tried, {sweep.steps} steps each: "
        f"it took the\n# held-out loss {losses}. All else is as it was given.\n"
        + yaml.safe_dump({"learning_rate": chosen.learning_rate} | given, sort_keys=False)
    )


def _report(sweep: Sweep, recipe_file: Path | None) -> Iterator[str]:
    yield f"{'learning rate':15}{'training loss':>13}{'held-out loss':>16}   {'loss, step by step':{CURVE}}   verdict"
    for trial in sweep.trials:
        figures = f"{shown(trial.losses[-1]):>13}{shown(trial.heldout):>16}"
        yield f"{written(trial.learning_rate):15}{figures}   {curve(trial, sweep):{CURVE}}   {sweep.verdict(trial)}"
    low, high = sweep.scale
    yield (
        f"{sweep.steps} steps of {sweep.batch_size} emails; held out: {sweep.heldout_emails}, their loss was "
        f"{shown(sweep.heldout_before)} before; nats a token, {LEVELS[0]} {shown(low)} to {LEVELS[-1]} {shown(high)}, "
        f"{ABOVE} above, {BROKEN} NaN or infinite"
    )
    if chosen := sweep.chosen:
        rate = written(chosen.learning_rate)
        yield f"just right: {rate}"
        if recipe_file:
            yield f"use it: trainer sft ... --recipe {recipe_file}"
        else:
            yield f"use it: trainer sft ... --learning-rate {rate}"
            yield "write it: trainer sweep ... --write recipe.yaml, then trainer sft ... --recipe recipe.yaml"
    else:
        yield f"none is just right: no trial took {100 * MOVED:.0f} % off the held-out loss"
    if sweep.advice:
        yield sweep.advice


def curve(trial: Trial, sweep: Sweep) -> str:
    """At most CURVE characters; one that stands for several steps shows their mean."""
    width = min(CURVE, sweep.steps)
    edges = [round(at * sweep.steps / width) for at in range(width + 1)]
    parts = [trial.losses[start:end] for start, end in pairwise(edges)]
    return sparkline([fmean(part) for part in parts if part], *sweep.scale)


def _as_dict(sweep: Sweep) -> dict[str, Any]:
    """With null for what is no number, which JSON does not have."""
    kept = asdict(sweep)
    for trial, row in zip(sweep.trials, kept["trials"], strict=True):
        row["losses"] = [loss if math.isfinite(loss) else None for loss in trial.losses]
        row["heldout"] = trial.heldout if math.isfinite(trial.heldout) else None
        row["verdict"] = sweep.verdict(trial)
    return {"chosen": sweep.chosen and sweep.chosen.learning_rate, "advice": sweep.advice} | kept
