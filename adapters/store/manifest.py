"""What a published version says of itself: manifest.json, beside the weights.

It is proof, not configuration: which base model, which data, which recipe, what came out. No email of anybody is in it.
This file does not know where versions lie; adapters/store/store.py does.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

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


DEFAULT_MAX_RANK = 16
"""The largest rank that `server` takes without --max-rank. Room for rank 128 would cost a third of a CPU's tokens."""


class Lora(Frozen):
    rank: PositiveInt
    alpha: PositiveInt
    target_modules: list[str]
    rslora: bool = False
    """Scaled by alpha / sqrt(rank), not alpha / rank."""


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
    """Of the epoch that was kept."""
    versions: dict[str, str]
    train_losses: list[float] = []
    """Of each epoch, the mean over its steps."""
    heldout_losses: list[float] = []
    """After each epoch."""
    general_loss_before: float | None = None
    """Of the base model on general text, and with the adapter."""
    general_loss: float | None = None
    verdict: str = ""
    """What trainer/training/diagnose.py made of the losses, why, and the command that mends it."""
    because: str = ""
    hint: str = ""
    remedy: dict[str, float] = {}
    """Fields of the recipe with other values, as `hint` has them."""


# Manifests keep their figures under the names of their time.
RENAMED_FIGURES = {"passes": "sendable", "recited": "extraction_rate"}
FigureName = Annotated[str, AfterValidator(lambda name: RENAMED_FIGURES.get(name, name))]

Verdict = Literal["better", "worse", "no difference shown"]
"""`better` or `worse` only where the interval of the difference excludes zero."""


class Row(Frozen):
    """One line of an evaluation's table: who wrote, and the figures over all tasks; None for one not measured."""

    model: str
    """`base`, `base, 1 example`, `base, 3 examples`, `promoted: NAME@M`, or the evaluated version's id."""
    figures: dict[FigureName, float | None]
    low: dict[FigureName, float] = {}
    """Lower ends of the 95 % intervals of the figures that have one."""
    high: dict[FigureName, float] = {}


class Comparison(Frozen):
    """The evaluated version minus another row, task by task: paired, 95 % bootstrap interval."""

    against: str
    figure: FigureName
    difference: float
    low: float
    high: float
    verdict: Verdict


class Limit(Frozen):
    """What the recipe asked of a figure, as it is written there, and what came out; None for what was not measured."""

    limit: str
    held: bool
    value: float | None = None
    bound: float | None = None


class Evaluation(Frozen):
    """Whether a version is good enough to be promoted, by the held-out evaluation before its publish.

    All but the first two fields are missing in the first manifests. Shares go from 0 to 1, losses are nats a token.
    """

    passed: bool
    reasons: list[str] = []
    """Why it did not pass."""
    date: datetime | None = None
    version: str = ""
    """What the row of the evaluated version is called."""
    base: str = ""
    tasks: int | None = None
    tasks_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    decoding: str = ""
    machine: str = ""
    primary: FigureName = ""
    """The one figure, chosen beforehand, that decides between better and worse."""
    rows: list[Row] = []
    comparisons: list[Comparison] = []
    memorisation: dict[FigureName, float] = {}
    forgetting: dict[str, float] = {}
    limits: list[Limit] = []


class Manifest(Frozen):
    """What is known of a version.

    `data_sha256`, `heldout_sha256` and `training` are missing of an adapter that was imported: nobody here saw its
    training.
    """

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
    heldout_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the emails that were held out of its training; missing in the first manifests."""
    data_licence: str
    trained_from: str | None = None
    """The version that the training began with, and its digest: `formal@1 0123456789ab`; None: a new adapter."""
    recipe: dict[str, Any]
    training: Training | None = None
    evaluation: Evaluation | None = None

    @property
    def base(self) -> str:
        """What to give `--base`, to train further on that model, evaluate or serve."""
        return self.base_source or self.base_name
