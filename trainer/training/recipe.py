"""The recipe of a training run: every choice with its unit; a named recipe or YAML file first, then flags over it.

A field's type, bounds and description are also those of its flag (trainer/commands/run_options.py) and of its row in
the reference. trainer/training/sft_trainer.py turns a recipe into TRL's settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict

from adapters.errors import ConfigError
from adapters.models.base_models import GPU_DEFAULT
from adapters.models.validate import unservable_features
from adapters.store.manifest import DEFAULT_MAX_RANK
from trainer.evaluation import criteria

RECIPES = Path(__file__).parent / "recipes"
# Marks a field that has no flag: it stands in a recipe's file only.
NO_FLAG: JsonDict = {"flag": False}


class Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field("unnamed", json_schema_extra=NO_FLAG, description="name or path that it was loaded by")
    epochs: int = Field(ge=1, le=1000, description="passes over the emails")
    batch_size: int = Field(ge=1, le=512, description="emails a step")
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="peak learning rate; without one, a prior for the base model's size"
    )
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        json_schema_extra=NO_FLAG,
        description="share of the steps in which the learning rate rises; it falls along a cosine after that",
    )
    rank: int = Field(
        16,
        ge=1,
        le=64,
        description=f"rank of the adapter; above {DEFAULT_MAX_RANK} only `server --max-rank N` serves it",
    )
    alpha: int = Field(32, ge=1, description="the adapter's output is scaled by alpha / rank")
    rslora: bool = Field(
        False, description="scale by alpha / sqrt(rank) instead, for high ranks (rsLoRA, arXiv 2312.03732)"
    )
    loraplus: float = Field(
        1,
        ge=1,
        le=64,
        json_schema_extra=NO_FLAG,
        description="learning rate of the adapter's B, as a multiple of its A's (LoRA+, arXiv 2402.12354; 16 is usual)",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs dropped in training")
    weight_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        json_schema_extra=NO_FLAG,
        description="share of itself that each of the adapter's weights loses a step, times the learning rate",
    )
    neftune: float = Field(
        0.0,
        ge=0,
        le=100,
        json_schema_extra=NO_FLAG,
        description="noise on the embeddings in training (NEFTune's alpha; 5 is usual)",
    )
    early_stop: int = Field(
        0,
        ge=0,
        description="epochs without a lower held-out loss after which the run ends; the best is kept; 0 means never",
    )
    max_length: int = Field(
        1024, ge=64, description="tokens of task and email together; a longer email is refused, never cut"
    )
    practice: int = Field(
        0, ge=0, description="synthetic examples added to an epoch, for the formal and the friendly voice"
    )
    repeats: int = Field(
        1,
        ge=1,
        description="how often each email stands in an epoch: once as it is, then with other names and numbers",
    )
    copy_weight: float = Field(
        1, ge=1, le=100, description="weight of a token that the email copies from its task; other tokens have 1"
    )
    mix: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="share of replay: everyday requests with the base model's own answers, against forgetting; 0.2 is "
        "usual",
    )
    heldout: float = Field(0.05, ge=0, lt=1, description="share of the emails held out to measure the loss on")
    seed: int = Field(0, description="seed of the split, the order and the synthetic examples")
    sample_tokens: int = Field(200, ge=1, description="most tokens of the sample email after an epoch")
    sample_epochs: tuple[int, ...] = Field(
        (),
        description="epochs after which a sample email is written and the model is published as NAME@epoch-N; without "
        "any, an email after every epoch and only the last model",
    )
    limits: tuple[str, ...] = Field(
        (),
        json_schema_extra=NO_FLAG,
        description="what a version's figures must reach for it to be promoted; without any, it is not evaluated",
    )


FLAGS = {name: field for name, field in Recipe.model_fields.items() if field.json_schema_extra != NO_FLAG}


def default(base: str) -> str:
    """The recipe for the base model that `--base` finds by `base`; `quick` is made for the packaged one."""
    return "gpu" if base == GPU_DEFAULT else "quick"


def load(named: str, overrides: dict[str, Any]) -> Recipe:
    """The recipe called `named`, or in the file of that path, with `overrides` (None values left out) over it.

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
        given = {name: value for name, value in overrides.items() if value is not None}
        recipe = Recipe(**{**fields, **given, "recipe": named})
        criteria.parse(recipe.limits)
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
    return f"{field} = {given!r}: {'; '.join(unservable_features({field: given})) or message}"


def learning_rate_prior(hidden_size: int) -> float:
    """A LoRA learning rate for a base model of Llama's kind, two digits: about 1e-3 for a hidden size of 576."""
    # 5e-4 * (2000 / hidden)**0.781 is the tinker-cookbook's formula; times 0.75, because at hidden size 576 its 1.3e-3
    # is an extrapolation, and our runs of 800 examples kept the facts as well at 1e-3. For Qwen the cookbook's exponent
    # is 0.0775, which gives 4.9e-4 at a hidden size of 2560 where this gives 3.1e-4, the careful side.
    return float(f"{0.75 * 5e-4 * (2000 / hidden_size) ** 0.781:.1e}")
