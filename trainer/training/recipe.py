"""The recipe of a training run: every choice with its unit; a named recipe or YAML file first, then flags over it.

A field's type, bounds and description are also those of its flag (trainer/commands/run_options.py) and of its row in
the reference. trainer/training/sft_trainer.py turns a recipe into TRL's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from adapters.emails.prompts import INSTRUCTION
from adapters.errors import ConfigError
from adapters.models import base_models, catalog
from adapters.models.validate import unservable_features
from adapters.store.manifest import DEFAULT_MAX_RANK
from trainer.evaluation import criteria

RECIPES = Path(__file__).parent / "recipes"
# Fields without a flag: they stand in a recipe's file.
FILE_ONLY = ("recipe", "warmup", "loraplus", "weight_decay", "neftune", "limits")


class Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field("unnamed", description="name or path that it was loaded by")
    epochs: int = Field(ge=1, le=1000, description="passes over the emails")
    batch_size: int = Field(ge=1, le=512, description="emails a step")
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="peak learning rate; without one, a prior for the base model's size"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the rate rises, then a cosine")
    rank: int = Field(16, ge=1, le=64, description=f"adapter rank; above {DEFAULT_MAX_RANK} needs `server --max-rank`")
    alpha: int = Field(32, ge=1, description="the adapter's output is scaled by alpha / rank")
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank), for high ranks (rsLoRA, arXiv 2312.03732)")
    loraplus: float = Field(
        1, ge=1, le=64, description="how many times faster B learns than A (LoRA+, arXiv 2402.12354; 16 is usual)"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs dropped in training")
    weight_decay: float = Field(0.0, ge=0, lt=1, description="share of a weight lost a step, times the learning rate")
    neftune: float = Field(0.0, ge=0, le=100, description="noise on the embeddings (NEFTune's alpha; 5 is usual)")
    early_stop: int = Field(
        0, ge=0, description="stop after N epochs without a lower held-out loss and keep the best; 0 means never"
    )
    max_length: int = Field(1024, ge=64, description="tokens of task and email together; a longer one is refused")
    mix: float = Field(
        0.0, ge=0, le=0.9, description="share of replay, the base model's own answers, against forgetting; 0.2 is usual"
    )
    instruction: str = Field(
        INSTRUCTION, description="system message before each task, in training and in serving; an empty one for none"
    )
    heldout: float = Field(0.05, ge=0, lt=1, description="share of the emails held out to measure the loss on")
    seed: int = Field(0, description="seed of the split and the order")
    sample_tokens: int = Field(200, ge=1, description="most tokens of the sample email after an epoch")
    sample_epochs: tuple[PositiveInt, ...] = Field(
        (), description="write a sample email only after these epochs, and publish each model as NAME@epoch-N"
    )
    limits: tuple[str, ...] = Field((), description="what a version must reach to be promoted; none: not evaluated")


def default(base: str) -> str:
    """The recipe for the base model that `--base` finds by `base`; `quick` is made for the small one."""
    entry = catalog.of_model(base)
    return "gpu" if entry and entry.name == catalog.GPU else "quick"


def load(named: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe called `named`, or in the file of that path, with `overrides` over it.

    Raises:
        ConfigError: the recipe is unknown, or fields or limits are wrong; every one is listed.
    """
    import yaml

    file = RECIPES / f"{named}.yaml"
    if not file.is_file():
        file = Path(named)
    if not file.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise ConfigError(f"there is no recipe {named!r}", f"use one of {known}, or the path of a YAML file")
    try:
        fields = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if not isinstance(fields, dict):
            raise ConfigError(f"{file} holds a {type(fields).__name__}, and a recipe has `field: value` lines")
        recipe = Recipe(**{**fields, **overrides, "recipe": named})
        criteria.parse_criteria(recipe.limits)
        return recipe
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} is not YAML: {exc}") from exc
    except ValidationError as exc:
        wrong = "; ".join(_wrong(".".join(map(str, e["loc"])), e["input"], e["msg"]) for e in exc.errors())
        raise ConfigError(
            f"recipe {named!r} cannot be used: {wrong}", f"the fields are {', '.join(list(Recipe.model_fields)[1:])}"
        ) from exc


def _wrong(field: str, given: object, message: str) -> str:
    # What vLLM cannot serve says more than a bound that pydantic gives.
    return f"{field} = {given}: {'; '.join(unservable_features({field: given})) or message}"


def peak_learning_rate(recipe: Recipe, base: base_models.BaseModel) -> float:
    return recipe.learning_rate or learning_rate_prior(base_models.shaping_config(base.path)["hidden_size"])


def learning_rate_prior(hidden_size: int) -> float:
    """A LoRA learning rate for a base model of Llama's kind, two digits: about 1e-3 for a hidden size of 576."""
    # 5e-4 * (2000 / hidden)**0.781 is the tinker-cookbook's formula; times 0.75, because at hidden size 576 its 1.3e-3
    # is an extrapolation, and our runs of 800 examples kept the facts as well at 1e-3. For Qwen the cookbook's exponent
    # is 0.0775, which gives 4.9e-4 at a hidden size of 2560 where this gives 3.1e-4, the careful side.
    return float(f"{0.75 * 5e-4 * (2000 / hidden_size) ** 0.781:.1e}")
