"""`trainer sft`: the command line of trainer/training/sft.py and from_scratch.py. Parses, calls, prints."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError
from adapters.settings import store_directory
from adapters.store import describe
from adapters.store.manifest import check_name
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.commands import run_options
from trainer.compute import distributed, threads
from trainer.console import check_new_directory, log
from trainer.training.checkpoints import SAVE_EVERY_SECONDS
from trainer.training.recipe import FILE_ONLY

if TYPE_CHECKING:
    from trainer.compute.device import Device
    from trainer.training.from_scratch import WrittenModel

EXAMPLES = """examples:
  trainer sft --data my_email_dataset.json --name my_email_assistant
  trainer sft --data trainer/data/shipped/voices/formal.jsonl --name formal --recipe quick
  trainer sft --data mine.jsonl --data kept.jsonl --name mine --epochs 5 --learning-rate 5e-4
  trainer sft --data mine.jsonl --name mine --epochs 100 --sample-epochs 1,10,50,100
  trainer sft --data newer.jsonl --name mine --from mine@1          continues training a version
  trainer sft --data mine.jsonl --name mine --resume                after Ctrl-C, a crash or a power cut
  trainer sft --data mine.jsonl --name mine --from-scratch          a whole model, into the directory ./mine
  accelerate launch --multi_gpu --num_processes 2 -m trainer.cli sft --data mine.jsonl --name mine    two on CPUs
"""
HELP = f"""Teach the base model a voice: train a LoRA adapter on emails and publish it as the next version of NAME.

FILE is JSONL or a JSON list; a row is {{"task", "email"}} (also "facts", "previous"), {{"prompt", "completion"}} or
{{"messages"}}. Recipes: quick (four minutes on 2 cores with bf16), shipped (half an hour), article (learning
rate 1e-4, 3 epochs, batches of 4), gpu (for the default base model on a GPU). Where a recipe has criteria (`limits`),
the version is evaluated before it is published, and one that misses one is not promoted. Fields of a recipe are flags
too; these stand in a recipe's file only: {", ".join(FILE_ONLY[1:])}.

The run is saved regularly. Ctrl-C ends it after the current step; --resume continues from there.

--from-scratch shows what the base model is worth: a model of its shape begins with random weights, all of which are
trained. The result is a directory, not an adapter; `server --base DIR` serves it."""
LICENCE = "unstated"
# Options of adapters and of the store, with their values where they are not given.
NOT_FROM_SCRATCH: dict[str, object] = dict.fromkeys(
    ["start", "sample_epochs", "rank", "alpha", "rslora", "dropout", "store"]
) | {"auto": False, "resume": False, "save_every": SAVE_EVERY_SECONDS, "licence": LICENCE}


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `trainer sft` to the trainer's commands; `shared` has --base, --store, --json and --debug."""
    parser = commands.add_parser("sft", parents=[shared], help="teach a voice", description=HELP, epilog=EXAMPLES)
    option = parser.add_argument
    option("--name", required=True, help="the adapter's name")
    option("--licence", default=LICENCE, help=f"licence of the emails, kept in the manifest (default: {LICENCE})")
    option("--resume", action="store_true", help="continue the unfinished run of this name from where it was saved")
    every = f"how often the run is saved (default: {SAVE_EVERY_SECONDS:g})"
    option("--save-every", type=float, metavar="SECONDS", default=SAVE_EVERY_SECONDS, help=every)
    option("--from", dest="start", metavar="NAME[@N]", help="continue training that version, with its rank and scale")
    option("--from-scratch", action="store_true", help="train all weights of the base model's shape, from random ones")
    option("--output", metavar="DIR", type=Path, help="where --from-scratch writes its model (default: ./NAME)")
    option("--explain", action="store_true", help="log the training loop in words, with this run's own numbers")
    option("--auto", action="store_true", help="apply the verdict's remedy and train again, at most twice")
    option("--heldout-data", metavar="FILE", type=Path, help="emails to hold out, instead of a part of --data")
    option("--events", metavar="FILE", type=Path, help="write every step, epoch and the verdict there as JSON lines")
    option("--tensorboard", metavar="DIR", type=Path, help="write the curves there for TensorBoard")
    run_options.add_options(parser)
    parser.set_defaults(command=_sft)


def _sft(args: argparse.Namespace) -> None:
    check_name(args.name)
    _check(args)
    report_to = _report_to(args.tensorboard)
    priority = threads.yield_to_others()
    options = run_options.chosen(args)
    log(f"priority {priority}")
    store = Store(store_directory(args.store))
    from trainer.data.examples import read_examples
    from trainer.training import events, from_scratch, sft
    from trainer.training.retry import train_mended
    from trainer.training.run import TrainingRun

    with events.events_to(args.events, append=args.resume) as emit:
        run = TrainingRun(
            examples=options.examples,
            name=args.name,
            base=options.base,
            recipe=options.recipe,
            device=options.device,
            log=log,
            emit=emit,
            heldout=read_examples([args.heldout_data]) if args.heldout_data else None,
            explain=args.explain,
            report_to=report_to,
            licence=args.licence,
            start=store.resolve(args.start) if args.start else None,
            resume=args.resume,
            save_every=args.save_every,
        )
        if args.from_scratch:
            _print_model(from_scratch.train(run, args.output or Path(args.name)), args.json)
            return
        log(f"store {store.directory}")
        version = train_mended(run, store, sft.train) if args.auto else sft.train(run, store)
    _print_version(version, store, options.device, args.json)


def _print_version(version: Version, store: Store, device: Device, as_json: bool) -> None:
    from trainer.trials import predictions

    manifest = version.manifest()
    predictions.remember(manifest, predictions.machine(device), log)
    if as_json:
        print(json.dumps({"id": version.id, "path": str(version.path)} | manifest.model_dump(mode="json"), indent=2))
        return
    seconds = f", trained in {manifest.training.seconds:.0f} s" if manifest.training else ""
    print(f"published {version.id} in {version.path}{seconds}")
    print(describe.after_publish(store, version))


def _print_model(written: WrittenModel, as_json: bool) -> None:
    if as_json:
        print(json.dumps(written.facts(), indent=2))
        return
    print(f"wrote the model to {written.path}, trained in {written.trained.seconds:.0f} s")
    print(f"try it: server --base {shlex.quote(str(written.path))}, where its name is base")


def _check(args: argparse.Namespace) -> None:
    """Raises:
    ConfigError: options that exclude each other, before anything is read.
    """
    if args.heldout_data and args.heldout is not None:
        raise ConfigError("--heldout and --heldout-data exclude each other", "give one of them")
    if args.start and (args.rank or args.alpha or args.rslora):
        raise ConfigError(
            "--from takes rank and scale of the version that it continues", "leave out --rank, --alpha and --rslora"
        )
    if args.auto and args.resume:
        raise ConfigError("--auto begins new runs, and --resume continues one", "give one of them")
    if distributed.COUNT > 1 and (args.auto or args.from_scratch):
        raise ConfigError(
            f"--auto and --from-scratch take one process, not {distributed.COUNT}", "leave them out, or start one"
        )
    if not args.from_scratch:
        if args.output:
            raise ConfigError(
                "--output is where --from-scratch writes; a version goes into the store", "leave --output out"
            )
        return
    unfit = [field for field, default in NOT_FROM_SCRATCH.items() if getattr(args, field) != default]
    if unfit:
        flags = " and ".join("--from" if field == "start" else f"--{field.replace('_', '-')}" for field in unfit)
        raise ConfigError(
            f"--from-scratch trains a whole model: {flags} would need an adapter, a store or a run that was saved",
            f"leave out {flags}",
        )
    check_new_directory(args.output or Path(args.name))


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
