"""`trainer evaluate`: the command line of trainer/evaluation/evaluate.py."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.console import table
from adapters.emails.tasks import HELDOUT, MORE_HELDOUT
from adapters.errors import ConfigError
from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.settings import store_directory
from adapters.store.manifest import Comparison, Manifest, Row
from adapters.store.store import Store
from adapters.store.version import Version
from trainer import console
from trainer.console import bar, log
from trainer.evaluation import figures
from trainer.evaluation.results import PRIMARY, Result

if TYPE_CHECKING:
    from trainer.evaluation.evaluate import Outcome, Setup
    from trainer.evaluation.writers import Writer

EXAMPLES = """examples:
  trainer evaluate formal                                          the promoted version, ten minutes at most
  trainer evaluate formal@2 --full --html formal.html              also three seeds at temperature 0.7; a page to show
  trainer evaluate formal@2 --all                                  on 144 tasks instead of 48
  trainer evaluate mine --tasks mine_tests.jsonl --examples mine.jsonl
  trainer evaluate formal@2 --server http://127.0.0.1:8000         through a server that runs
"""
HELP = """Let the base model (with no, one and three examples), the promoted version and this one write every held-out
task, and decide whether this one is better: by the share of emails that could be sent as they stand, and only if the
95 % interval of the difference excludes zero.

The tasks are rows {"task", "email", "facts"}; without --tasks the 48 shipped ones. A Mailwright server that serves this
version writes the answers if one runs here; otherwise they are written in this process, which also measures held-out
loss and forgetting."""
# The columns beside the primary figure; every other figure is in --json and --html.
COLUMNS = ("facts_kept", "all_kept", "facts_invented", "placeholder", "ended", "words")


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "evaluate", parents=[shared], help="is a voice better than the base model?", description=HELP, epilog=EXAMPLES
    )
    option = parser.add_argument
    option("reference", metavar="NAME[@N]")
    option("--tasks", metavar="FILE", type=Path, help="tasks with facts (default: the 48 shipped held-out tasks)")
    option(
        "--examples",
        metavar="FILE",
        type=Path,
        help="the emails that the voice was trained on: examples for the base model, and what may not be copied "
        "(default: the shipped ones of that name, else formal ones as examples)",
    )
    option("--all", action="store_true", help="all 144 shipped tasks: narrower intervals, three times as long")
    option("--full", action="store_true", help="also three seeds at temperature 0.7: four times as long")
    option(
        "--server",
        metavar="URL",
        help="the server that writes, or none (default: MAILWRIGHT_SERVER, else one on this machine if it fits)",
    )
    option("--answers", metavar="FILE", type=Path, help="write every answer there, as JSON")
    option("--html", metavar="FILE", type=Path, help="write a page with tables, intervals and emails side by side")
    option("--card", metavar="FILE", type=Path, help="write a model card, in Markdown")
    parser.set_defaults(command=evaluate)


def evaluate(args: argparse.Namespace) -> None:
    setup = _setup(args)
    for file in filter(None, (args.answers, args.html, args.card)):
        console.check_directory(file)
    writer = _writer(setup, args.server)
    from trainer.evaluation.evaluate import evaluate as run_evaluation

    with bar("writing", setup.work(writer.can_score)) as advance:
        outcome = run_evaluation(setup, writer, advance)
    manifest = setup.version.manifest()
    print(outcome.result.model_dump_json(indent=2) if args.json else "\n".join(report(outcome.result, manifest)))
    _write_files(outcome, manifest, args)


def report(result: Result, manifest: Manifest) -> list[str]:
    headers = ["", *(figures.definition(name).title for name in (PRIMARY, *COLUMNS))]
    lines = [table(headers, map(_cells, result.rows)), ""]
    lines += [sentence(result, comparison) for comparison in result.comparisons if comparison.figure == PRIMARY]
    for part in (result.memorisation, result.forgetting):
        if part:
            lines.append(
                ", ".join(f"{figures.definition(name).title} {figures.format_value(name, part[name])}" for name in part)
            )
    minutes = f"{result.seconds / 60:.1f} minutes"
    lines.append(f"{result.tasks} tasks, {result.decoding}, {result.through}, {minutes}; {result.machine}")
    return [*lines, f"base model {result.base}; {result.version}: {_how(manifest)}"]


def sentence(result: Result, comparison: Comparison) -> str:
    """`formal@2 is better than base (sendable +0.21, 95 % interval 0.10 to 0.33)`, or that no difference was shown."""
    difference = (
        f"{comparison.figure} {comparison.difference:+.2f}, 95 % interval {comparison.low:.2f} to {comparison.high:.2f}"
    )
    if comparison.verdict == "no difference shown":
        return f"no difference shown between {result.version} and {comparison.against} ({difference})"
    return f"{result.version} is {comparison.verdict} than {comparison.against} ({difference})"


def _setup(args: argparse.Namespace) -> Setup:
    from trainer.data.examples import SHIPPED_EMAILS, read_examples

    store = Store(store_directory(args.store))
    version = store.resolve(args.reference)
    shipped = [HELDOUT, MORE_HELDOUT] if args.all else [HELDOUT]
    tasks = read_examples([args.tasks] if args.tasks else shipped)
    if not all(task.facts for task in tasks):
        raise ConfigError(
            f"{args.tasks} has tasks without facts", 'give every row "facts": [["14 May", "May 14"], ...]'
        )
    own = SHIPPED_EMAILS / f"{version.name}.jsonl"
    known = args.examples is not None or own.is_file()
    examples = read_examples([args.examples or (own if known else SHIPPED_EMAILS / "formal.jsonl")])
    promoted = store.promoted(version.name)
    base = base_of(version, args.base)
    if promoted and (promoted == version or promoted.manifest().base_fingerprint != base.fingerprint):
        promoted = None
    from trainer.evaluation.evaluate import Setup

    instructions = {v.id: v.manifest().instruction for v in (version, promoted) if v}
    training = examples if known else []
    return Setup(version, base, tasks, examples, training, promoted, args.full, instructions=instructions)


def base_of(version: Version, asked: str | None) -> BaseModel:
    """The base model that the version was trained on; `asked` is the value of --base.

    Raises:
        ConfigError: `asked` is another base model.
    """
    manifest = version.manifest()
    base = base_models.find(asked or manifest.base, log)
    if manifest.base_fingerprint != base.fingerprint:
        raise ConfigError(
            f"{version.id} was trained on another base model ({manifest.base_name})",
            f"leave --base out, or give --base {shlex.quote(manifest.base)}",
        )
    return base


def _writer(setup: Setup, server: str | None) -> Writer:
    """A server that fits, else this process.

    Raises:
        ConfigError: the server that --server names does not serve it.
    """
    from trainer.evaluation.writers import (
        DEFAULT_SERVER,
        InProcess,
        ThroughServer,
        reason_against_server,
        server_address,
    )

    versions = [version for version in (setup.version, setup.promoted) if version]
    wanted = server or os.environ.get("MAILWRIGHT_SERVER")
    address = server_address(wanted or DEFAULT_SERVER)
    reason = "" if wanted == "none" else reason_against_server(address, versions, setup.base.name)
    if wanted and reason:
        raise ConfigError(reason, "start it with this store and base model, or evaluate in this process: --server none")
    if wanted != "none" and not reason:
        log(f"written through {address}; held-out loss and forgetting are measured in process only (--server none)")
        return ThroughServer(address)
    writer = InProcess(setup.base.path, {version.id: version.path for version in versions})
    log(f"written in process, {writer.device}")
    return writer


def _write_files(outcome: Outcome, manifest: Manifest, args: argparse.Namespace) -> None:
    if args.answers:
        texts = {row: [[answer.text for answer in task] for task in tasks] for row, tasks in outcome.answers.items()}
        console.write(args.answers, json.dumps(texts, indent=1, ensure_ascii=False) + "\n")
    if args.html:
        from trainer.evaluation import page

        console.write(args.html, page.render(outcome.result, manifest.recipe.get("limits") or []))
    if args.card:
        from trainer.evaluation import card

        console.write(args.card, card.render(manifest, outcome.result))


def _cells(row: Row) -> list[str]:
    primary = figures.format_value(PRIMARY, row.figures.get(PRIMARY))
    if PRIMARY in row.low:
        primary += f" ({figures.format_interval(PRIMARY, row.low[PRIMARY], row.high[PRIMARY])})"
    return [row.model, primary, *(figures.format_value(name, row.figures.get(name)) for name in COLUMNS)]


def _how(manifest: Manifest) -> str:
    training = manifest.training
    if not training:
        return "imported"
    return (
        f"recipe {manifest.recipe.get('recipe', 'unnamed')}, {training.examples} emails, "
        f"{training.replay_examples} general examples, {training.epochs} epochs, "
        f"{training.seconds / 60:.1f} minutes"
    )
