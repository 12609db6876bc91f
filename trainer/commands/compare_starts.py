"""`trainer compare-starts`: the command line of trainer/trials/compare_starts.py."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adapters.console import table
from adapters.errors import ConfigError
from trainer.commands import run_options
from trainer.console import finite, log
from trainer.trials.learning_rates import format_loss, format_rate

if TYPE_CHECKING:
    from trainer.trials.compare_starts import Comparison, Trained

EXAMPLES = """examples:
  trainer compare-starts --data mine.jsonl
  trainer compare-starts --data mine.jsonl --minutes 20 --recipe quick
  trainer compare-starts --data mine.jsonl --minutes 0.5 --sample-tokens 50 --json
"""
HELP = """See what the base model is worth: train twice for the same minutes on the same emails in the same order, once
a LoRA adapter from the base model's weights, once all weights of a model of its shape from random ones. Shows steps,
losses, and what each writes for one task that neither was trained on.

The recipe is that of `trainer sft`; the time replaces its epochs, and early-stop and sample-epochs are
ignored. A --learning-rate counts for both. At least 8 emails, or half of all, are held out, and at most 32 of them are
read. Loading, measuring and writing come on top of the minutes. Nothing is published."""
MINUTES = 5.0


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "compare-starts",
        parents=[shared],
        help="the same minutes from the base model's weights and from random ones",
        description=HELP,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--minutes", metavar="N", type=float, default=MINUTES, help=f"of training for each (default: {MINUTES:g})"
    )
    run_options.add_options(parser)
    parser.set_defaults(command=_compare_starts)


def _compare_starts(args: argparse.Namespace) -> None:
    if not (math.isfinite(args.minutes) and args.minutes > 0):
        raise ConfigError(f"--minutes must be above 0, got {args.minutes:g}", f"give minutes, such as {MINUTES:g}")
    run = run_options.chosen(args)
    from trainer.trials.compare_starts import compare

    found = compare(run.examples, run.base, run.recipe, args.minutes, log)
    if args.json:
        starts = {start.start: _start_as_dict(start) for start in (found.pretrained, found.random)}
        print(json.dumps(asdict(found) | {"difference": difference(found)} | starts, indent=2))
    else:
        print("\n".join(_report(found)))


def _report(found: Comparison) -> Iterator[str]:
    starts = {"base model, LoRA": found.pretrained, "random weights": found.random}
    left, right = map(_figures, starts.values())
    yield table(["begins with", *starts], [(title, left[title], right[title]) for title in left])
    yield (
        f"{_minutes(found.minutes)} each, {found.batch_size} emails a step; held out: {found.heldout_emails}; nats a "
        f"token, blind chance among {found.vocabulary:,} tokens is {math.log(found.vocabulary):.3f}"
    )
    # A table for each: a step may end at any time, so that the minutes differ.
    for title, start in starts.items():
        yield ""
        minutes = [f"{seconds / 60:.2f}" for seconds, _ in start.heldout]
        yield table(["minutes", *minutes], [[title, *(format_loss(loss) for _, loss in start.heldout)]])
    for title, text in (
        ("the task, which neither was trained on:", found.task),
        (f"{found.base} before training writes:", found.pretrained.wrote_before or ""),
        (f"from its weights, after {_minutes(found.minutes)}:", found.pretrained.wrote),
        (f"from random weights, after {_minutes(found.minutes)}:", found.random.wrote),
    ):
        yield f"\n{title}"
        yield _quoted(text)
    yield f"\n{difference(found)}"


def _figures(start: Trained) -> dict[str, str]:
    return {
        "steps": f"{len(start.losses):,}",
        "emails read": f"{start.emails:,}",
        "weights trained": f"{start.weights:,}",
        "learning rate": format_rate(start.learning_rate),
        "held-out loss before": format_loss(start.before),
        "held-out loss after": format_loss(start.after),
        "training loss at the end": format_loss(start.training_loss),
        "tokens a second": f"{start.tokens / start.seconds:,.0f}",
    }


def difference(found: Comparison) -> str:
    pretrained, random = found.pretrained, found.random
    sentence = (
        f"after {_minutes(found.minutes)} the pretrained start is at {format_loss(pretrained.after)} nats a token and "
        f"the random one at {format_loss(random.after)}; they began at {format_loss(pretrained.before)} and "
        f"{format_loss(random.before)}"
    )
    if random.after > pretrained.before:
        return f"{sentence}, so that the random one is not yet where the pretrained one began"
    return sentence


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def _quoted(text: str) -> str:
    # An untrained model writes any character, also those that control a terminal.
    lines = ("".join(character if character.isprintable() else "·" for character in line) for line in text.split("\n"))
    return "\n".join(f"  | {line}".rstrip() for line in lines)


def _start_as_dict(start: Trained) -> dict[str, Any]:
    return asdict(start) | {
        "steps": len(start.losses),
        "tokens_per_second": start.tokens / start.seconds,
        "before": finite(start.before),
        "after": finite(start.after),
        "training_loss": finite(start.training_loss),
        "losses": list(map(finite, start.losses)),
        "heldout": [[seconds, finite(loss)] for seconds, loss in start.heldout],
    }
