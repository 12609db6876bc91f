"""`trainer compare-starts`: the command line of trainer/trials/compare_starts.py. Parses, calls, prints."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError
from trainer.commands import sft
from trainer.console import log
from trainer.trials.learning_rates import shown, written

if TYPE_CHECKING:
    from trainer.trials.compare_starts import Comparison, Trained

EXAMPLES = """examples:
  trainer compare-starts --data mine.jsonl
  trainer compare-starts --data mine.jsonl --minutes 20 --recipe quick
  trainer compare-starts --data mine.jsonl --minutes 0.5 --sample-tokens 50 --json
"""
HELP = """See what the base model is worth: train twice for the same minutes on the same emails in the same order, once
a LoRA adapter from the base model's weights, once all weights of a model of its shape from random ones. Shows steps,
losses, and what each writes for one task that neither has seen.

The recipe is that of `trainer sft`; the time decides in place of its epochs, and it does without early-stop and
sample-epochs. A --learning-rate counts for both. At least 8 emails, or half of all, are held out, and at most 32 of
them are read. Loading, measuring and writing come on top of the minutes. Nothing is published."""
MINUTES = 5.0
WIDTH = 24
"""Of the titles on the left of the tables."""


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `trainer compare-starts` to the trainer's commands; `shared` has --base, --json and --debug."""
    parser = commands.add_parser(
        "compare-starts",
        parents=[shared],
        help="the same minutes from the base model's weights and from random ones",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", metavar="N", type=float, default=MINUTES, help=f"of training for each (default: {MINUTES:g})"
    )
    sft.add_options(parser)
    parser.set_defaults(command=_compare_starts)


def _compare_starts(args: argparse.Namespace) -> None:
    if not (math.isfinite(args.minutes) and args.minutes > 0):
        raise ConfigError(f"--minutes {args.minutes:g} is no time to train", f"give minutes, such as {MINUTES:g}")
    run = sft.chosen(args)
    from trainer.trials.compare_starts import compare

    found = compare(run.examples, run.base, run.recipe, args.minutes, log)
    print(json.dumps(_as_dict(found), indent=2) if args.json else "\n".join(_report(found)))


def _report(found: Comparison) -> Iterator[str]:
    yield from _table(found)
    yield ""
    yield from _curves(found)
    yield ""
    yield "the task, which neither has seen:"
    yield _quoted(found.task)
    yield f"{found.base} before training writes:"
    yield _quoted(found.pretrained.wrote_before or "")
    yield f"from its weights, after {_minutes(found.minutes)}:"
    yield _quoted(found.pretrained.wrote)
    yield f"from random weights, after {_minutes(found.minutes)}:"
    yield _quoted(found.random.wrote)
    yield difference(found)


def _table(found: Comparison) -> Iterator[str]:
    starts = (found.pretrained, found.random)
    yield f"{'begins with':{WIDTH}}{'base model, LoRA':>18}{'random weights':>18}"
    for title, cells in (
        ("steps", [f"{len(start.losses):,}" for start in starts]),
        ("emails read", [f"{start.emails:,}" for start in starts]),
        ("weights trained", [f"{start.weights:,}" for start in starts]),
        ("learning rate", [written(start.learning_rate) for start in starts]),
        ("held-out loss before", [shown(start.before) for start in starts]),
        ("held-out loss after", [shown(start.after) for start in starts]),
        ("training loss at the end", [shown(start.training_loss) for start in starts]),
        ("tokens a second", [f"{start.tokens / start.seconds:,.0f}" for start in starts]),
    ):
        yield f"{title:{WIDTH}}" + "".join(f"{cell:>18}" for cell in cells)
    yield (
        f"{_minutes(found.minutes)} each, {found.batch_size} emails a step; held out: {found.heldout_emails}; nats a "
        f"token, blind chance among {found.vocabulary:,} tokens is {math.log(found.vocabulary):.3f}"
    )


def _curves(found: Comparison) -> Iterator[str]:
    """The held-out loss against the minutes, a table for each: a step may end at any time."""
    for title, start in (("base model, LoRA", found.pretrained), ("random weights", found.random)):
        yield f"{'minutes':{WIDTH}}" + "".join(f"{seconds / 60:>10.2f}" for seconds, _ in start.heldout)
        yield f"{title:{WIDTH}}" + "".join(f"{shown(loss):>10}" for _, loss in start.heldout)


def difference(found: Comparison) -> str:
    """In one sentence, by this run's held-out losses."""
    pretrained, random = found.pretrained, found.random
    sentence = (
        f"after {_minutes(found.minutes)} the pretrained start is at {shown(pretrained.after)} nats a token and the "
        f"random one at {shown(random.after)}; they began at {shown(pretrained.before)} and {shown(random.before)}"
    )
    if random.after > pretrained.before:
        return f"{sentence}, so that the random one is not yet where the pretrained one began"
    return sentence


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def _quoted(text: str) -> str:
    """Without what a terminal obeys: a model that has learnt little writes any character."""
    lines = ("".join(character if character.isprintable() else "·" for character in line) for line in text.split("\n"))
    return "\n".join(f"  | {line}".rstrip() for line in lines)


def _as_dict(found: Comparison) -> dict[str, Any]:
    """With null for what is no number, which JSON does not have."""
    kept = asdict(found) | {"difference": difference(found)}
    for start in (found.pretrained, found.random):
        kept[start.start] = _start_as_dict(start)
    return kept


def _start_as_dict(start: Trained) -> dict[str, Any]:
    figures = asdict(start)
    figures["steps"] = len(start.losses)
    figures["tokens_per_second"] = start.tokens / start.seconds
    for name, loss in (("before", start.before), ("after", start.after), ("training_loss", start.training_loss)):
        figures[name] = _number(loss)
    figures["losses"] = [_number(loss) for loss in start.losses]
    figures["heldout"] = [[seconds, _number(loss)] for seconds, loss in start.heldout]
    return figures


def _number(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
