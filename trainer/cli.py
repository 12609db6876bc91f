"""The command line of the trainer: `trainer sft` and `trainer evaluate`. Parses, calls, prints; no logic.

Nothing heavy is imported before a command really runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters import base_model
from adapters.cli import run
from adapters.errors import ConfigError
from adapters.manifest import Manifest, check_name
from adapters.settings import store_directory
from adapters.store import Store
from adapters.tasks import HELDOUT

EXAMPLES = """examples:
  trainer sft --data my_email_dataset.json --name my_email_assistant
  trainer sft --data trainer/data/formal.jsonl --name formal --recipe quick
  trainer sft --data mine.jsonl --data kept.jsonl --name mine --epochs 5 --learning-rate 5e-4
  trainer evaluate formal
  trainer evaluate formal@2 --tasks my_tasks.jsonl --json
"""
SFT_HELP = """Teach the base model a voice: train a LoRA adapter on emails and publish it as the next version of NAME.

FILE is JSONL or a JSON list; a row is {"task", "email"} (also "facts", "previous"), {"prompt", "completion"} or
{"messages"}. Recipes: quick (about four minutes on 2 cores), shipped (at most 20), article (the lesson's numbers), gpu
(for the default base model on a GPU)."""
EVALUATE_HELP = """Write every held-out task with the base model, with the base model shown one example, and with the
adapter, greedy, and count the facts kept."""

PLAIN = argparse.RawDescriptionHelpFormatter


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return run(lambda: args.command(args), args.debug)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--base",
        metavar="MODEL",
        help=f"directory or hub id of the base model (default: {base_model.DEFAULT_NAME}, "
        f"on a GPU {base_model.GPU_DEFAULT}; evaluate: the adapter's own)",
    )
    shared.add_argument(
        "--store", metavar="DIR", help="the store (default: MAILWRIGHT_STORE, else ~/.local/share/mailwright/store)"
    )
    shared.add_argument("--json", action="store_true", help="print the result as JSON")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="trainer", description="Teach and evaluate voices.", epilog=EXAMPLES, formatter_class=PLAIN
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_sft(commands, shared)
    _add_evaluate(commands, shared)
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
        ("max-length", int, "tokens of task and email together; a longer one is refused"),
        ("practice", int, "generated examples added to an epoch, for the formal and friendly voice"),
        ("repeats", int, "how often each email stands in an epoch"),
        ("heldout", float, "share of the emails kept back, 0 to 1"),
        ("seed", int, "seed of the split, the order and the practice"),
        ("sample-tokens", int, "most tokens of the sample email after each epoch"),
    ):
        sft.add_argument(f"--{flag}", type=kind, metavar="N", help=text)
    sft.set_defaults(command=_sft)


def _add_evaluate(commands: Any, shared: argparse.ArgumentParser) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        parents=[shared],
        help="facts kept, against the base model",
        description=EVALUATE_HELP,
        formatter_class=PLAIN,
    )
    evaluate.add_argument("reference", metavar="NAME[@N]")
    evaluate.add_argument(
        "--tasks", metavar="FILE", type=Path, help="tasks with facts (default: the 48 shipped held-out tasks)"
    )
    evaluate.add_argument(
        "--examples", metavar="FILE", type=Path, help="emails that the one shown to the base model is taken from"
    )
    evaluate.add_argument("--answers", metavar="FILE", type=Path, help="write every answer there, as JSON")
    evaluate.set_defaults(command=_evaluate)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


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
    _say(f"device {device}")
    _say(f"store {store.directory}")
    _say(f"base model {wanted}" + ("" if args.base else f", the default {where}; --base gives another"))
    _say(f"recipe {chosen.recipe}" + ("" if args.recipe else ", the default for that base model"))
    base = base_model.find(wanted, _say)
    from trainer import sft

    version = sft.train(examples, args.name, base, chosen, store, args.licence, _say)
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


def _evaluate(args: argparse.Namespace) -> None:
    from trainer.data import DATA, read_examples

    version = Store(store_directory(args.store)).resolve(args.reference)
    tasks = read_examples([args.tasks or HELDOUT])
    if not all(task.facts for task in tasks):
        raise ConfigError(
            f"{args.tasks} has tasks without facts", 'give every row "facts": [["14 May", "May 14"], ...]'
        )
    shipped = DATA / f"{version.name}.jsonl"
    examples = read_examples([args.examples or (shipped if shipped.is_file() else DATA / "formal.jsonl")])
    manifest = version.manifest()
    base = base_model.find(args.base or manifest.base, _say)
    if manifest.base_fingerprint != base.fingerprint:
        raise ConfigError(
            f"{version.id} was trained on another base model ({manifest.base_name})",
            f"leave --base out, or give --base {shlex.quote(manifest.base)}",
        )
    from tqdm import tqdm

    from trainer.device import choose
    from trainer.evaluate import evaluate

    _say(f"device {choose()}")
    with tqdm(total=3 * len(tasks), desc="writing", unit="email", file=sys.stderr, dynamic_ncols=True) as bar:
        summaries, answers = evaluate(version.path, version.id, base.path, tasks, examples, bar.update)
    if args.answers:
        args.answers.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [summary.as_dict() for summary in summaries]
    if args.json:
        print(json.dumps({"base": base.name, "recipe": manifest.recipe, "rows": rows}, indent=2))
        return
    for line in _table(rows):
        print(line)
    print(f"{len(tasks)} tasks, base model {base.name}, greedy; {version.id}: {_how(manifest)}")


def _how(manifest: Manifest) -> str:
    training = manifest.training
    if not training:
        return "imported"
    return (
        f"recipe {manifest.recipe.get('recipe', 'unnamed')}, {training.examples} emails, "
        f"{training.practice_examples} varied or generated, {training.epochs} epochs, "
        f"{training.seconds / 60:.1f} minutes"
    )


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'':20} facts kept   all kept   placeholders   ends by itself   words"]
    for row in rows:
        lines.append(
            f"{row['model']:20} {row['facts_kept']:10.0%} {row['all_kept']:10.0%} {row['placeholders']:14.0%} "
            f"{row['ends_by_itself']:16.0%} {row['words']:7.0f}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
