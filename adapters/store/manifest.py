"""manifest.json of a published version: its base model, data, recipe and results. It holds no email."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, PositiveInt

from adapters.errors import ConfigError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# vLLM takes the type of a content part for an adapter's name: an adapter called `text` would answer the base model's
# requests.
RESERVED_NAMES = frozenset(["text", "image", "audio", "video", "file", "input", "refusal", "base"])


def check_name(name: str) -> str:
    """`name` itself; raises ConfigError for wrong characters, too long a name, or a reserved one."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a valid adapter name",
            "use up to 63 lower-case letters, digits, - and _, starting with a letter or digit",
        )
    if name in RESERVED_NAMES:
        raise ConfigError(f"the name {name!r} is reserved", f"choose any name but {', '.join(sorted(RESERVED_NAMES))}")
    return name


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# The largest rank that `server` takes without --max-rank. Room for rank 128 would cost a third of a CPU's tokens.
DEFAULT_MAX_RANK = 16


class Lora(Frozen):
    rank: PositiveInt
    alpha: PositiveInt
    target_modules: list[str]
    # Scaled by alpha / sqrt(rank), not alpha / rank.
    rslora: bool = False


class Training(Frozen):
    """How the run went. Losses are nats a token of the completions."""

    examples: int
    # Manifests of before call it `practice_examples`, and count synthetic emails there.
    replay_examples: int = Field(validation_alias=AliasChoices("replay_examples", "practice_examples"))
    heldout_examples: int
    epochs: int
    steps: int
    tokens: int
    seconds: float
    learning_rate: float
    train_loss: float
    heldout_loss_before: float | None
    # Of the epoch that was kept.
    heldout_loss: float | None
    versions: dict[str, str]
    # One per epoch: the mean over its steps, and the held-out loss after it.
    train_losses: list[float] = []
    heldout_losses: list[float] = []
    # Of the base model on general text, without and with the adapter.
    general_loss_before: float | None = None
    general_loss: float | None = None
    # What trainer/training/diagnose.py concludes, why, and the command that mends it; `remedy` has its recipe fields.
    verdict: str = ""
    because: str = ""
    hint: str = ""
    remedy: dict[str, float] = {}


# Manifests keep their figures under the names of their time.
RENAMED_FIGURES = {"passes": "sendable", "recited": "extraction_rate"}
FigureName = Annotated[str, AfterValidator(lambda name: RENAMED_FIGURES.get(name, name))]

# `better` or `worse` only where the interval of the difference excludes zero.
Verdict = Literal["better", "worse", "no difference shown"]


class Row(Frozen):
    """One line of an evaluation's table: the writer, and its figures over all tasks; None for one not measured."""

    # `base`, `base, 1 example`, `base, 3 examples`, `promoted: NAME@M`, or the evaluated version's id.
    model: str
    figures: dict[FigureName, float | None]
    # The ends of the 95 % intervals of the figures that have one.
    low: dict[FigureName, float] = {}
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
    """A limit as the recipe writes it, and the measured value; None for one not measured."""

    limit: str
    held: bool
    value: float | None = None
    bound: float | None = None


class Evaluation(Frozen):
    """The held-out evaluation before the publish: whether the version may be promoted.

    Early manifests have the first two fields only. Shares go from 0 to 1, losses are nats a token.
    """

    passed: bool
    # Why it did not pass.
    reasons: list[str] = []
    date: datetime | None = None
    # The name of the evaluated version's row.
    version: str = ""
    base: str = ""
    tasks: int | None = None
    tasks_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    decoding: str = ""
    machine: str = ""
    # The one figure, chosen beforehand, that decides between better and worse.
    primary: FigureName = ""
    rows: list[Row] = []
    comparisons: list[Comparison] = []
    memorisation: dict[FigureName, float] = {}
    forgetting: dict[str, float] = {}
    limits: list[Limit] = []


class Manifest(Frozen):
    """An imported adapter has no `data_sha256`, `heldout_sha256` and `training`: it was trained elsewhere."""

    name: Annotated[str, AfterValidator(check_name)]
    version: PositiveInt
    created: datetime
    base_name: str
    # `--base base_source` finds the model: a packaged name, a directory or a hub id; empty in early manifests.
    base_source: str = ""
    base_fingerprint: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    adapter_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    lora: Lora
    data_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    # Of the emails held out of its training; missing in early manifests.
    heldout_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    data_licence: str
    # The system message of its training: the server sends it with every request that has none of its own.
    instruction: str = ""
    # The version that the training continued, and its digest: `formal@1 0123456789ab`; None for a new adapter.
    trained_from: str | None = None
    recipe: dict[str, Any]
    training: Training | None = None
    evaluation: Evaluation | None = None

    @property
    def base(self) -> str:
        """The value for `--base`, to train, evaluate or serve on that model."""
        return self.base_source or self.base_name
