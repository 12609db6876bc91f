"""`trainer sft`: the command line of trainer/training/sft.py, and the options of a run, which other commands share. No
logic."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError
from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.settings import store_directory
from adapters.store import describe
from adapters.store.manifest import DEFAULT_MAX_RANK, check_name
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.compute import distributed
from trainer.console import check_new_directory, log
from trainer.training.checkpoints import SAVE_EVERY

if TYPE_CHECKING:
    from trainer.compute.device import Device
    from trainer.data.examples import Example
    from trainer.training.recipe import Recipe

EXAMPLES = """examples:
  trainer sft --data my_email_dataset.json --name my_email_assistant
  trainer sft --data trainer/data/shipped/voices/formal.jsonl --name formal --recipe quick
  trainer sft --data mine.jsonl --data kept.jsonl --name mine --epochs 5 --learning-rate 5e-4
  trainer sft --data mine.jsonl --name mine --epochs 100 --sample-epochs 1,10,50,100
  trainer sft --data newer.jsonl --name mine --from mine@1          goes on teaching a version
  trainer sft --data mine.jsonl --name mine --resume                after Ctrl-C, a crash or a power cut
  trainer sft --data mine.jsonl --name mine --from-scratch          a whole model, into the directory ./mine
  accelerate launch --multi_gpu --num_processes 2 -m trainer.cli sft --data mine.jsonl --name mine    two on CPUs
"""
HELP = """Teach the base model a voice: train a LoRA adapter on emails and publish it as the next version of NAME.

FILE is JSONL or a JSON list; a row is {"task", "email"} (also "facts", "previous"), {"prompt", "completion"} or
{"messages"}. Recipes: quick (four minutes on 2 cores with bf16), shipped (half an hour), article (the lesson's
numbers), gpu (for the default base model on a GPU). Where a recipe has limits, the version is evaluated before it is
published, and one that misses a limit is not promoted. Fields of a recipe are flags too; these stand in a recipe's
file only: warmup, loraplus, weight_decay, neftune, limits.

The run is saved while it goes on. Ctrl-C ends it after the step that it is in; --resume goes on from there.

--from-scratch shows what the base model is worth: a model of its shape begins with random weights, all of which are
trained. It is no adapter and comes into a directory, which `server --base DIR` serves."""
LICENCE = "unstated"
NOT_FROM_SCRATCH = {
    "start": None,
    "auto": False,
    "resume": False,
    "save_every": SAVE_EVERY,
    "sample_epochs": None,
    "rank": None,
    "alpha": None,
    "rslora": None,
    "dropout": None,
    "licence": LICENCE,
    "store": None,
}
"""Options of adapters and of the store, with their values where nobody gives them."""


@dataclass(frozen=True)
class Run:
    """What a run is asked to train on, how, and where."""

    examples: list[Example]
    recipe: Recipe
    base: BaseModel
    device: Device


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `trainer sft` to the trainer's commands; `shared` has --base, --store, --json and --debug."""
    parser = commands.add_parser(
        "sft",
        parents=[shared],
        help="teach a voice",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="the adapter's name")
    parser.add_argument(
        "--licence", default=LICENCE, help=f"licence of the emails, kept in the manifest (default: {LICENCE})"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the unfinished run of this name, from where it was saved"
    )
    parser.add_argument(
        "--save-every",
        type=float,
        metavar="SECONDS",
        default=SAVE_EVERY,
        help=f"how often the run is saved (default: {SAVE_EVERY:g})",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="NAME[@N]",
        help="begin with that version's adapter, its rank and scale, instead of a new one",
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="begin with random weights of the base model's shape, and train all"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where --from-scratch writes its model (default: ./NAME)"
    )
    parser.add_argument("--explain", action="store_true", help="tell the loop of learning with this run's own numbers")
    parser.add_argument(
        "--auto", action="store_true", help="apply the verdict's remedy and train again, at most twice; the best counts"
    )
    parser.add_argument(
        "--heldout-data", metavar="FILE", type=Path, help="emails to hold out, instead of a part of --data"
    )
    parser.add_argument(
        "--events", metavar="FILE", type=Path, help="write every step, epoch and the verdict there as JSON lines"
    )
    parser.add_argument("--tensorboard", metavar="DIR", type=Path, help="write the curves there for TensorBoard")
    add_options(parser)
    parser.set_defaults(command=_sft)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The emails and the recipe of a run, for `chosen`."""
    parser.add_argument(
        "--data", metavar="FILE", type=Path, action="append", required=True, help="emails; may be given several times"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="quick, shipped, article, gpu or a YAML file (default: gpu for its base model, else quick)",
    )
    for flag, kind, text in (
        ("learning-rate", float, "peak learning rate (default: a prior for the base model's size)"),
        ("epochs", int, "passes over the emails"),
        ("batch-size", int, "emails a step"),
        ("rank", int, f"rank of the adapter; above {DEFAULT_MAX_RANK} only `server --max-rank N` serves it"),
        ("alpha", int, "the adapter's output is scaled by alpha / rank"),
        ("dropout", float, "share of the adapter's inputs dropped in training"),
        ("early-stop", int, "ends after so many epochs without a lower held-out loss; the best one is kept"),
        ("max-length", int, "tokens of task and email together; a longer one is refused"),
        ("practice", int, "generated examples added to an epoch, for the formal and friendly voice"),
        ("repeats", int, "how often each email stands in an epoch"),
        ("copy-weight", float, "how much more a token counts that the email copies from its task"),
        ("mix", float, "share of general examples, the base model's own answers, against forgetting; 0.2 is usual"),
        ("heldout", float, "share of the emails kept back, 0 to 1"),
        ("seed", int, "seed of the split, the order and the practice"),
        ("sample-tokens", int, "most tokens of the sample email after each epoch"),
    ):
        parser.add_argument(f"--{flag}", type=kind, metavar="N", help=text)
    parser.add_argument(
        "--rslora",
        action="store_const",
        const=True,
        help="scale the adapter's output by alpha / sqrt(rank) instead (rsLoRA), for high ranks",
    )
    parser.add_argument(
        "--sample-epochs",
        type=_numbers,
        metavar="N,N",
        help="write the sample email after these epochs only, and publish the model of each as NAME@epoch-N",
    )


def _numbers(text: str) -> list[int]:
    """The `type` of a flag that takes several."""
    if not all(part.strip().isdecimal() and int(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from 1 on, such as 1,10,50,100")
    return [int(part) for part in text.split(",")]


def chosen(args: argparse.Namespace) -> Run:
    """What the options say, told on stderr as it is found."""
    from trainer.compute.device import choose
    from trainer.data.examples import read_examples
    from trainer.training import recipe

    overrides = {field: value for field, value in vars(args).items() if field in recipe.Recipe.model_fields}
    examples = read_examples(args.data)
    device = choose()
    wanted = args.base or base_models.default(device.kind == "cuda")
    loaded = recipe.load(args.recipe or recipe.default(wanted), overrides)
    where = "on a GPU" if device.kind == "cuda" else "without a GPU"
    log(f"device {device}")
    log(f"base model {wanted}" + ("" if args.base else f", the default {where}; --base gives another"))
    log(f"recipe {loaded.recipe}" + ("" if args.recipe else ", the default for that base model"))
    return Run(examples, loaded, base_models.find(wanted, log), device)


def _sft(args: argparse.Namespace) -> None:
    check_name(args.name)
    _check(args)
    report_to = _report_to(args.tensorboard)
    if args.from_scratch:
        _sft_from_scratch(args, report_to)
        return
    run = chosen(args)
    store = Store(store_directory(args.store))
    log(f"store {store.directory}")
    from trainer.data.examples import read_examples
    from trainer.training import events, sft
    from trainer.training.retry import train_mended
    from trainer.trials import predictions

    heldout = read_examples([args.heldout_data]) if args.heldout_data else None
    start = store.resolve(args.start) if args.start else None
    with events.told_to(args.events, append=args.resume) as tell:

        def train(recipe: Recipe) -> Version:
            return sft.train(
                run.examples,
                args.name,
                run.base,
                recipe,
                store,
                args.licence,
                log,
                resume=args.resume,
                save_every=args.save_every,
                tell=tell,
                heldout=heldout,
                start=start,
                explain=args.explain,
                report_to=report_to,
            )

        version = train_mended(train, run.recipe, store, log) if args.auto else train(run.recipe)
    manifest = version.manifest()
    predictions.remember(manifest, predictions.machine(run.device), log)
    if args.json:
        print(json.dumps({"id": version.id, "path": str(version.path)} | manifest.model_dump(mode="json"), indent=2))
        return
    seconds = f", trained in {manifest.training.seconds:.0f} s" if manifest.training else ""
    print(f"published {version.id} in {version.path}{seconds}")
    print(describe.after_publish(store, version))


def _check(args: argparse.Namespace) -> None:
    """Raises:
    ConfigError: flags that do not go together.
    """
    if args.heldout_data and args.heldout is not None:
        raise ConfigError("--heldout and --heldout-data both say what is held out", "give one of them")
    if args.start and (args.rank or args.alpha or args.rslora):
        raise ConfigError(
            "--from takes rank and scale of the version that it begins with",
            "leave out --rank, --alpha and --rslora",
        )
    if args.auto and args.resume:
        raise ConfigError("--auto begins runs anew, and --resume goes on with one", "give one of them")
    if distributed.COUNT > 1 and (args.auto or args.from_scratch):
        raise ConfigError(
            "--auto and --from-scratch take one process", f"leave them out, or start one, not {distributed.COUNT}"
        )
    if args.output and not args.from_scratch:
        raise ConfigError("--output is where --from-scratch writes; a version goes into the store", "leave it out")


def _report_to(directory: Path | None) -> str:
    """Where the Trainer reports to; it reads the directory of TensorBoard from the environment.

    Raises:
        ConfigError: TensorBoard is not installed, or nothing can be written there.
    """
    if not directory:
        return "none"
    if not find_spec("tensorboard"):
        raise ConfigError("--tensorboard needs TensorBoard, which is not installed", "pip install tensorboard")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"--tensorboard {directory} cannot be written: {exc.strerror}", "give another") from exc
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(directory)
    return "tensorboard"


def _sft_from_scratch(args: argparse.Namespace, report_to: str) -> None:
    unfit = [field for field, default in NOT_FROM_SCRATCH.items() if getattr(args, field) != default]
    if unfit:
        flags = " and ".join("--from" if field == "start" else f"--{field.replace('_', '-')}" for field in unfit)
        raise ConfigError(
            f"--from-scratch trains a whole model: {flags} would need an adapter, a store or a run that was saved",
            f"leave out {flags}",
        )
    output = args.output or Path(args.name)
    check_new_directory(output)
    run = chosen(args)
    from trainer.data.examples import read_examples
    from trainer.training import events, from_scratch

    heldout = read_examples([args.heldout_data]) if args.heldout_data else None
    with events.told_to(args.events, append=False) as tell:
        trained = from_scratch.train(
            *(run.examples, output, run.base, run.recipe, log),
            tell=tell,
            heldout=heldout,
            explain=args.explain,
            report_to=report_to,
        )
    if args.json:
        print(json.dumps(trained.facts(), indent=2))
        return
    print(f"wrote the model to {trained.path}, trained in {trained.seconds:.0f} s")
    print(f"try it: server --base {shlex.quote(str(trained.path))}, where its name is base")
