"""`trainer rerun`: train a version again by its own recipe, and say whether the same adapter came out.

The manifest has the recipe, the seed and the digests of the emails, and no email: those are given again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError
from adapters.settings import store_directory
from adapters.store import Store, Version
from trainer.evaluate_cli import base_of
from trainer.progress import say

if TYPE_CHECKING:
    from adapters.base_model import BaseModel
    from trainer.data import Example
    from trainer.recipe import Recipe

EXAMPLES = """examples:
  trainer rerun mine@2 --data mine.jsonl
  trainer rerun mine@2 --data mine.jsonl --data kept.jsonl --json

exit status: 0 if the adapter has the same bytes, 1 if not, 2 after an error
"""
HELP = """Train a version again, as its manifest says, on the same emails, and compare the bytes of the adapters. On the
same machine with the same versions of torch, transformers, trl and peft they are the same. Nothing is published."""


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `trainer rerun` to the trainer's commands; `shared` has --base, --store, --json and --debug."""
    parser = commands.add_parser(
        "rerun",
        parents=[shared],
        help="does the same run give the same adapter?",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("reference", metavar="NAME@N")
    option("--data", metavar="FILE", type=Path, action="append", required=True, help="its emails, in the same order")
    option(
        "--heldout-data", metavar="FILE", type=Path, help="the emails that were held out, if they had their own file"
    )
    parser.set_defaults(command=_rerun)


def _rerun(args: argparse.Namespace) -> int:
    from trainer.data import read_examples
    from trainer.recipe import Recipe

    store = Store(store_directory(args.store))
    version = store.resolve(args.reference)
    manifest = version.manifest()
    if not manifest.training:
        raise ConfigError(f"{version.id} was imported: nobody here saw its training", "give a version of trainer sft")
    recipe = Recipe.model_validate(manifest.recipe)
    examples = read_examples(args.data)
    heldout = read_examples([args.heldout_data]) if args.heldout_data else None
    start = _start(store, manifest.trained_from)
    base = base_of(version, args.base)
    _check_emails(version, examples, heldout, recipe, base)
    again = _train(version, examples, heldout, recipe, base, start)
    same = again["adapter_sha256"] == manifest.adapter_sha256
    changed = {name: [had, again["versions"].get(name)] for name, had in manifest.training.versions.items()}
    changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
    if args.json:
        print(json.dumps({"id": version.id, "same": same, "changed_versions": changed} | again, indent=2))
    elif same:
        print(f"the same adapter as {version.id}, byte for byte")
    else:
        print(f"another adapter than {version.id}: {_because(changed)}")
    return 0 if same else 1


def _start(store: Store, trained_from: str | None) -> Version | None:
    """The version that the training began with, with the same weights."""
    if not trained_from:
        return None
    reference, _, digest = trained_from.partition(" ")
    start = store.resolve(reference)
    if start.digest != digest:
        raise ConfigError(f"{reference} has other weights than the training began with", "nothing can be compared")
    return start


def _check_emails(
    version: Version, examples: list[Example], heldout: list[Example] | None, recipe: Recipe, base: BaseModel
) -> None:
    from trainer.data import digest
    from trainer.device import choose
    from trainer.mix import rows_of_run

    rows = rows_of_run(examples, recipe, base, choose(), lambda _: None, heldout)
    manifest = version.manifest()
    if (digest(rows.train), digest(rows.heldout) if rows.heldout else None) != (
        manifest.data_sha256,
        manifest.heldout_sha256,
    ):
        raise ConfigError(
            f"these are not the emails that {version.id} was trained on, or not in their order",
            "give the same files in the same order",
        )


def _train(
    version: Version,
    examples: list[Example],
    heldout: list[Example] | None,
    recipe: Recipe,
    base: BaseModel,
    start: Version | None,
) -> dict[str, Any]:
    """The digest of the adapter that comes out, and the versions that made it."""
    from trainer import sft

    # Without limits nothing is evaluated, which does not change what is learnt.
    recipe = recipe.model_copy(update={"limits": ()})
    licence = version.manifest().data_licence
    with tempfile.TemporaryDirectory(prefix="mailwright-rerun-") as scratch:
        store = Store(Path(scratch) / "store")
        again = sft.train(examples, version.name, base, recipe, store, licence, say, heldout=heldout, start=start)
        manifest = again.manifest()
    return {
        "adapter_sha256": manifest.adapter_sha256,
        "versions": manifest.training.versions if manifest.training else {},
    }


def _because(changed: dict[str, list[str]]) -> str:
    if not changed:
        return "with the same versions; was it trained on another machine, or with another number of threads?"
    return ", ".join(f"{name} was {had} and is {now}" for name, (had, now) in changed.items())
