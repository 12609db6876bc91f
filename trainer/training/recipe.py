"""The recipe of a training run: every choice with its unit; a named recipe or YAML file first, then flags over it.

This file does not know TRL; trainer/training/sft_trainer.py turns a recipe into TRL's settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import ConfigError
from adapters.models.base_models import GPU_DEFAULT
from adapters.models.validate import unservable_features
from trainer.evaluation import criteria

RECIPES = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = "unnamed"
    """The name or path that it was loaded by."""
    epochs: int = Field(ge=1, le=1000)
    """Passes over the emails."""
    batch_size: int = Field(ge=1, le=512)
    """Emails a step."""
    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    """Peak; None = the prior for the base model's size."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; it falls along a cosine after that."""
    rank: int = Field(default=16, ge=1, le=64)
    alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by alpha / rank."""
    rslora: bool = False
    """Scaled by alpha / sqrt(rank) instead, so that a high rank learns as much (rsLoRA, arXiv 2312.03732)."""
    loraplus: float = Field(default=1, ge=1, le=64)
    """How many times faster the adapter's B learns than its A (LoRA+, arXiv 2402.12354; 16 is usual there)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, lt=1)
    """How much of itself each of the adapter's weights loses a step, times the learning rate."""
    neftune: float = Field(default=0.0, ge=0, le=100)
    """Noise on what is read in training (NEFTune's alpha; 5 is usual)."""
    early_stop: int = Field(default=0, ge=0)
    """Ends the run after so many epochs without a lower held-out loss, and keeps the best epoch; 0: never."""
    max_length: int = Field(default=1024, ge=64)
    """Tokens of task and email together; a longer one is refused, never cut."""
    practice: int = Field(default=0, ge=0)
    """Generated examples added to every epoch, for emails in a voice that trainer/data/synthetic.py knows."""
    repeats: int = Field(default=1, ge=1)
    """How often each email stands in an epoch: once as it is, then with other names and numbers
    (trainer/data/augment.py)."""
    copy_weight: float = Field(default=1, ge=1, le=100)
    """How much more than another token one counts that the email copies from its task
    (trainer/compute/copy_weights.py)."""
    mix: float = Field(default=0.0, ge=0, le=0.9)
    """Share of what is trained on that are everyday requests with the base model's own answers
    (trainer/training/mix.py)."""
    heldout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the emails kept back to measure the held-out loss."""
    seed: int = 0
    sample_tokens: int = Field(default=200, ge=1)
    """Most tokens of the sample email after each epoch."""
    sample_epochs: tuple[int, ...] = ()
    """After which epochs a sample email is written and the model is kept as a labelled version; none: an email after
    every one, and only the last model is kept."""
    limits: tuple[str, ...] = ()
    """What its figures must reach for a version to be promoted, as trainer/evaluation/criteria.py reads them; none: no
    evaluation."""


def default(base: str) -> str:
    """The recipe for the base model that `--base` finds by `base`; `quick` is made for the packaged one."""
    return "gpu" if base == GPU_DEFAULT else "quick"


def load(named: str, overrides: dict[str, Any]) -> Recipe:
    """The recipe called `named`, or in the file of that path, with `overrides` (None values left out) over it.

    Raises:
        ConfigError: there is none, or fields or limits are wrong; every one is listed.
    """
    file = RECIPES / f"{named}.yaml"
    if not file.is_file():
        file = Path(named)
    if not file.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise ConfigError(f"there is no recipe {named!r}", f"use one of {known}, or the path of a YAML file")
    import yaml

    try:
        fields = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if not isinstance(fields, dict):
            raise ConfigError(f"{file} is no recipe: it holds a {type(fields).__name__}, not `field: value` lines")
        given = {name: value for name, value in overrides.items() if value is not None}
        recipe = Recipe(**{**fields, **given, "recipe": named})
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
    """What is wrong with a field of a recipe; of what PEFT could train and vLLM not serve, the latter."""
    unservable = unservable_features({field: given})
    return f"{field} = {given!r}: {'; '.join(unservable) or message}"


def learning_rate_prior(hidden_size: int) -> float:
    """A LoRA learning rate for a base model of Llama's kind, two digits: about 1e-3 for a hidden size of 576.

    5e-4 * (2000 / hidden)**0.781, the tinker-cookbook's formula, times 0.75: at hidden size 576 its 1.3e-3 is an
    extrapolation, and our runs of 800 examples kept the facts as well at 1e-3. For Qwen the cookbook's exponent is
    0.0775; at a hidden size of 2560 that makes 4.9e-4 of what is 3.1e-4 here, the careful side.
    """
    return float(f"{0.75 * 5e-4 * (2000 / hidden_size) ** 0.781:.1e}")
