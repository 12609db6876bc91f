"""The command line of the trainer, and `trainer sft`; the other commands have files of their own. No logic.

Nothing heavy is imported before a command really runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters import base_model
from adapters.cli import run
from adapters.manifest import check_name
from adapters.settings import store_directory
from adapters.store import Store
from trainer import check_cli, evaluate_cli, import_cli
from trainer.progress import say

EXAMPLES = """examples:
  trainer import ~/Mail/Sent.mbox --name anna
  trainer check anna.jsonl --fix cleaned.jsonl
  trainer sft --data my_email_dataset.json --name my_email_assistant
  trainer sft --data trainer/data/formal.jsonl --name formal --recipe quick
  trainer sft --data mine.jsonl --data kept.jsonl --name mine --epochs 5 --learning-rate 5e-4
  trainer evaluate formal
  trainer evaluate formal@2 --tasks my_tasks.jsonl --json
"""
SFT_HELP = """Teach the base model a voice: train a LoRA adapter on emails and publish it as the next version of NAME.

FILE is JSONL or a JSON list; a row is {"task", "email"} (also "facts", "previous"), {"prompt", "completion"} or
{"messages"}. Recipes: quick (about four minutes on 2 cores), shipped (at most 20), article (the lesson's numbers), gpu
(for the default base model on a GPU). Where a recipe has limits, the version is evaluated before it is published, and
one that misses a limit is not promoted."""

PLAIN = argparse.RawDescriptionHelpFormatter


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return run(lambda: args.command(args), args.debug)


def _parser() -> argparse.ArgumentParser:
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--json", action="store_true", help="print the result as JSON")
    every.add_argument("--debug", action="store_true", help="show the traceback of an error")
    based = argparse.ArgumentParser(add_help=False, parents=[every])
    based.add_argument(
        "--base",
        metavar="MODEL",
        help=f"directory or hub id of the base model (default: {base_model.DEFAULT_NAME}, "
        f"on a GPU {base_model.GPU_DEFAULT}; evaluate: the adapter's own)",
    )
    stored = argparse.ArgumentParser(add_help=False, parents=[based])
    stored.add_argument(
        "--store", metavar="DIR", help="the store (default: MAILWRIGHT_STORE, else ~/.local/share/mailwright/store)"
    )
    parser = argparse.ArgumentParser(
        prog="trainer", description="Teach and evaluate voices.", epilog=EXAMPLES, formatter_class=PLAIN
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_sft(commands, stored)
    import_cli.add(commands, every)
    check_cli.add(commands, based)
    evaluate_cli.add(commands, stored)
    return parser


def _add_sft(commands: Any, shared: argparse.ArgumentParser) -> None:
    sft = commands.add_parser(
        "sft", parents=[shared], help="teach a voice", description=SFT_HELP, epilog=EXAMPLES, formatter_class=PLAIN
    )
    sft.add_argument(
        "--data", metavar="FILE", type=Path, action="append", required=True, help="emails; may be given several times"
    )
    sft.add_argument("--name", required=True, help="the adapter's name")
    sft.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="quick, shipped, article, gpu or a YAML file (default: gpu for its base model, else quick)",
    )
    sft.add_argument(
        "--licence", default="unstated", help="licence of the emails, kept in the manifest (default: unstated)"
    )
    for flag, kind, text in (
        ("learning-rate", float, "peak learning rate (default: a prior for the base model's size)"),
        ("epochs", int, "passes over the emails"),
        ("batch-size", int, "emails a step"),
        ("rank", int, "rank of the adapter"),
        ("alpha", int, "the adapter's output is scaled by alpha / rank"),
        ("dropout", float, "share of the adapter's inputs dropped in training"),
        ("weight-decay", float, "weight decay of the adapter"),
        ("neftune", float, "noise on what is read in training; 5 is usual"),
        ("early-stop", int, "ends after so many epochs without a lower held-out loss; the best one is kept"),
        ("max-length", int, "tokens of task and email together; a longer one is refused"),
        ("practice", int, "generated examples added to an epoch, for the formal and friendly voice"),
        ("repeats", int, "how often each email stands in an epoch"),
        ("notes", int, "how often each email stands in an epoch with notes for a task"),
        ("copy-weight", float, "how much more a token counts that the email copies from its task"),
        ("heldout", float, "share of the emails kept back, 0 to 1"),
        ("seed", int, "seed of the split, the order and the practice"),
        ("sample-tokens", int, "most tokens of the sample email after each epoch"),
    ):
        sft.add_argument(f"--{flag}", type=kind, metavar="N", help=text)
    sft.set_defaults(command=_sft)


def _sft(args: argparse.Namespace) -> None:
    from trainer import recipe
    from trainer.data import read_examples

    check_name(args.name)
    overrides = {field: value for field, value in vars(args).items() if field in recipe.Recipe.model_fields}
    examples = read_examples(args.data)
    store = Store(store_directory(args.store))
    from trainer.device import choose

    device = choose()
    wanted = args.base or base_model.default(device.kind == "cuda")
    chosen = recipe.load(args.recipe or recipe.default(wanted), overrides)
    where = "on a GPU" if device.kind == "cuda" else "without a GPU"
    say(f"device {device}")
    say(f"store {store.directory}")
    say(f"base model {wanted}" + ("" if args.base else f", the default {where}; --base gives another"))
    say(f"recipe {chosen.recipe}" + ("" if args.recipe else ", the default for that base model"))
    base = base_model.find(wanted, say)
    from trainer import sft

    version = sft.train(examples, args.name, base, chosen, store, args.licence, say)
    manifest = version.manifest()
    if args.json:
        print(json.dumps({"id": version.id, "path": str(version.path)} | manifest.model_dump(mode="json"), indent=2))
        return
    promoted = store.promoted(version.name)
    seconds = f", trained in {manifest.training.seconds:.0f} s" if manifest.training else ""
    print(f"published {version.id} in {version.path}{seconds}")
    if promoted == version:
        print(f"{version.name} means {version.id}")
    elif promoted:
        print(f"{version.name} still means {promoted.id}; `adapters promote {version.id}` changes that")


if __name__ == "__main__":
    sys.exit(main())
