"""What a published version says of itself: manifest.json, beside the weights.

It is proof, not configuration: which base model, which data, which recipe, what came out. No email of anybody is in it.
This file does not know where versions lie; adapters/store.py does.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from adapters.errors import ConfigError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# vLLM takes the type of a content part for an adapter's name: an adapter called `text` would answer the base model's
# requests.
RESERVED_NAMES = frozenset(["text", "image", "audio", "video", "file", "input", "refusal", "base"])


def check_name(name: str) -> str:
    """`name` if an adapter may be called that, in its exact spelling.

    Raises:
        ConfigError: wrong characters, too long, or reserved.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be an adapter's name",
            "use up to 63 lower-case letters, digits, - and _, starting with a letter or digit",
        )
    if name in RESERVED_NAMES:
        raise ConfigError(f"the name {name!r} is reserved", f"choose any name but {', '.join(sorted(RESERVED_NAMES))}")
    return name


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Lora(Frozen):
    rank: PositiveInt
    alpha: PositiveInt
    target_modules: list[str]


class Training(Frozen):
    """How the run went. Losses are nats a token of the emails (completions), held-out ones before and after."""

    examples: int
    practice_examples: int
    heldout_examples: int
    epochs: int
    steps: int
    tokens: int
    seconds: float
    learning_rate: float
    train_loss: float
    heldout_loss_before: float | None
    heldout_loss: float | None
    versions: dict[str, str]


class Evaluation(Frozen):
    """Whether a version is good enough to be promoted, by the held-out evaluation before its publish."""

    passed: bool
    reasons: list[str] = []
    """Why it did not pass."""


class Manifest(Frozen):
    """`data_sha256` and `training` are missing of an adapter that was imported: nobody here saw its training."""

    name: Annotated[str, AfterValidator(check_name)]
    version: PositiveInt
    created: datetime
    base_name: str
    base_source: str = ""
    """What `--base` finds that model by: a packaged name, a directory or a hub id; empty in the first manifests."""
    base_fingerprint: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    adapter_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    lora: Lora
    data_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    data_licence: str
    recipe: dict[str, Any]
    training: Training | None = None
    evaluation: Evaluation | None = None

    @property
    def base(self) -> str:
        """What to give `--base`, to train further on that model, evaluate or serve."""
        return self.base_source or self.base_name
