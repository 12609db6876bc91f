"""The emails, the base model and the recipe of a run, as options that several commands share.

A recipe's flags come from the fields of trainer/training/recipe.py. No logic.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters import options
from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.settings import store_directory
from trainer.console import log
from trainer.training import recipe
from trainer.training.recipe import Recipe

if TYPE_CHECKING:
    from trainer.compute.device import Device
    from trainer.data.examples import Example


@dataclass(frozen=True)
class RunOptions:
    """Emails that fit to train on, and how and on what."""

    examples: list[Example]
    recipe: Recipe
    base: BaseModel
    device: Device


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `chosen` reads."""
    parser.add_argument(
        "--data", metavar="FILE", type=Path, action="append", required=True, help="emails; may be given several times"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="quick, shipped, article, gpu or a YAML file (default: gpu for its base model, else quick)",
    )
    options.add_flags(parser, Recipe, overrides=True, without=recipe.FILE_ONLY)


def chosen(args: argparse.Namespace) -> RunOptions:
    """What the options say, logged and checked before anything slow.

    Raises:
        DataError: emails that cannot be read or are too long, all listed.
        ConfigError: the recipe or the base model is unknown or wrong.
    """
    from trainer.compute.device import choose
    from trainer.data.check import check_before_training
    from trainer.data.examples import read_examples

    device = choose()
    choice = (
        None if args.base else base_models.default(device.kind == "cuda", store_directory(getattr(args, "store", None)))
    )
    wanted = choice.base if choice else args.base
    loaded = recipe.load(args.recipe or recipe.default(wanted), options.given(Recipe, args))
    examples = read_examples(args.data)
    log(f"device {device}")
    log(f"base model {choice}; --base gives another" if choice else f"base model {wanted}")
    log(f"recipe {loaded.recipe}" + ("" if args.recipe else ", the default for that base model"))
    base = base_models.find(wanted, log)
    # The same tokens as AutoTokenizer, which takes 12 s to import on this project's machine, where this takes 2 s.
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(base.path)
    rows = [example.instructed(loaded.instruction) for example in examples]
    check_before_training(rows, tokenizer, loaded.max_length, log)
    return RunOptions(examples, loaded, base, device)
