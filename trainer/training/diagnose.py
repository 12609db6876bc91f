"""What the losses of a run say about it: a verdict, the numbers that it rests on, and a remedy that can be run.

    overfitting: the held-out loss was lowest after epoch 2 (1.410) and is 1.580 after epoch 6, 12 % higher, while the
    training loss fell from 1.200 to 0.610
    hint: trainer sft ... --dropout 0.1 --early-stop 2

The thresholds are rules of thumb that people use who train models. A learning rate that is too high and yet lowers the
loss in every epoch is not recognised. This file knows neither trainers nor models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from pydantic import ValidationError

from trainer.training.recipe import Recipe

DIVERGED, WINDOW = 1.2, 10
ROSE = 1.03
"""The learning rate is too high if a mean of 10 steps is 1.2 times the first loss (`_first`), if an epoch's training
loss is above that of the epoch before by 3 % of the first, or if the held-out loss ends above where it began. A run
overfits if the held-out loss ends 3 % above its lowest, and the training loss fell meanwhile."""
MOVED = 0.02
"""The learning rate is too low if no epoch takes 2 % off the held-out loss."""
FALLING, APART = 0.01, 0.9
"""It underfits if the last epoch still took 1 % off the held-out loss, and the training loss is nine tenths of that or
more."""
FORGOT = 0.05
"""It forgets if the loss on general text rises by 5 %."""
DROPOUT, PATIENCE, FACTOR, MORE, MIX = 0.1, 2, 3, 2, 0.2
"""The remedies: share dropped, epochs to wait, what a learning rate is divided or multiplied by, and epochs are, share
of general examples."""


@dataclass(frozen=True)
class Curve:
    """Losses in nats a token: of every step in training, and after every epoch, where something was held out."""

    steps: list[float]
    train: list[float]
    """Of every epoch, the mean over its steps."""
    heldout: list[float]
    heldout_before: float | None
    learning_rate: float
    general_before: float | None = None
    """On general text, of the base model; `general` is with the adapter."""
    general: float | None = None
    leaked: int = 0
    """Held-out emails that nearly stand among those trained on."""

    def until(self, epoch: int) -> Curve:
        """That of the same run up to the end of an epoch."""
        steps = self.steps[: round(len(self.steps) * epoch / len(self.train))]
        return replace(
            self, steps=steps, train=self.train[:epoch], heldout=self.heldout[:epoch], general_before=None, general=None
        )

    @property
    def best_epoch(self) -> int:
        """The first one with the lowest held-out loss, from 1; the last where nothing was held out."""
        return self.heldout.index(min(self.heldout)) + 1 if self.heldout else len(self.train)


@dataclass(frozen=True)
class Verdict:
    """`remedy` are the fields of the recipe to change, `advice` what to do where no field mends it."""

    name: str
    because: str
    remedy: dict[str, float]
    advice: str = ""

    @property
    def hint(self) -> str:
        flags = " ".join(f"--{field.replace('_', '-')} {value:g}" for field, value in self.remedy.items())
        return f"trainer sft ... {flags}" if flags else self.advice


def diagnose(curve: Curve, recipe: Recipe) -> Verdict:
    """The first of RULES that holds, else healthy; without a remedy that the recipe cannot take, as 1,200 epochs."""
    for rule in RULES:
        if verdict := rule(curve, recipe):
            return verdict if _takes(recipe, verdict.remedy) else replace(verdict, remedy={})
    return Verdict("healthy", _healthy(curve, recipe), {})


def _takes(recipe: Recipe, remedy: dict[str, float]) -> bool:
    try:
        Recipe.model_validate(recipe.model_dump() | remedy)
    except ValidationError:
        return False
    return True


def _nan(curve: Curve, recipe: Recipe) -> Verdict | None:
    wrong = next((number for number, loss in enumerate(curve.steps, 1) if not math.isfinite(loss)), None)
    return _slower(curve, f"the loss of step {wrong} is NaN or infinite") if wrong else None


def _leak(curve: Curve, recipe: Recipe) -> Verdict | None:
    if not curve.leaked:
        return None
    because = (
        f"{curve.leaked} of the held-out emails nearly stand among those that were trained on, so that the held-out "
        "loss shows what is remembered, not what was learnt"
    )
    return Verdict("leak", because, {}, "leave --heldout-data out, or give it emails that --data does not hold")


def _too_high(curve: Curve, recipe: Recipe) -> Verdict | None:
    first = _first(curve, recipe)
    for end in range(WINDOW + 1, len(curve.steps) + 1):
        mean = fmean(curve.steps[end - WINDOW : end])
        if mean >= DIVERGED * first:
            return _slower(
                curve, f"the loss was {first:.3f} at first and {mean:.3f} on the average of {WINDOW} steps up to {end}"
            )
    for epoch, (before, after) in enumerate(pairwise(curve.train), 2):
        if after - before >= (ROSE - 1) * first:
            return _slower(curve, f"the training loss rose from {before:.3f} to {after:.3f} in epoch {epoch}")
    if curve.heldout_before is not None and curve.heldout and min(curve.heldout) > curve.heldout_before:
        at_best = f"{curve.heldout_before:.3f} before the run, and at best {min(curve.heldout):.3f} after it"
        return _slower(curve, f"the held-out loss was {at_best}")
    return None


def _slower(curve: Curve, because: str) -> Verdict:
    return Verdict("learning rate too high", because, {"learning_rate": _two_digits(curve.learning_rate / FACTOR)})


def _first(curve: Curve, recipe: Recipe) -> float:
    """What the loss was before anything was learnt: that of the first step. With general examples, of which the base
    model expects every word, that depends on how many it met, and the held-out emails' loss counts if it is higher."""
    if not recipe.mix:
        return curve.steps[0]
    return max([curve.heldout_before] if curve.heldout_before is not None else curve.steps[:WINDOW])


def _overfitting(curve: Curve, recipe: Recipe) -> Verdict | None:
    if not curve.heldout or recipe.early_stop:  # which has kept the best epoch
        return None
    lowest, last = min(curve.heldout), curve.heldout[-1]
    best = curve.best_epoch - 1
    if last < ROSE * lowest or curve.train[-1] >= curve.train[best]:
        return None
    because = (
        f"the held-out loss was lowest after epoch {best + 1} ({lowest:.3f}) and is {last:.3f} after epoch "
        f"{len(curve.heldout)}, {100 * (last / lowest - 1):.0f} % higher, while the training loss fell from "
        f"{curve.train[best]:.3f} to {curve.train[-1]:.3f}"
    )
    return Verdict("overfitting", because, {"dropout": max(recipe.dropout, DROPOUT), "early_stop": PATIENCE})


def _forgetting(curve: Curve, recipe: Recipe) -> Verdict | None:
    before, after = curve.general_before, curve.general
    if before is None or after is None or after < (1 + FORGOT) * before:
        return None
    because = f"the loss on general text rose from {before:.3f} to {after:.3f}, by {100 * (after / before - 1):.0f} %"
    if recipe.mix >= MIX:
        return Verdict("forgetting", because, {"learning_rate": _two_digits(curve.learning_rate / FACTOR)})
    return Verdict("forgetting", because, {"mix": MIX})


def _too_low(curve: Curve, recipe: Recipe) -> Verdict | None:
    before, after, what = _largest_step(curve)
    if before is None or after is None or before - after >= MOVED * before:
        return None
    because = f"{what} from {before:.3f} to {after:.3f}, less than {100 * MOVED:.0f} %"
    return Verdict("learning rate too low", because, {"learning_rate": _two_digits(curve.learning_rate * FACTOR)})


def _largest_step(curve: Curve) -> tuple[float | None, float | None, str]:
    """The held-out loss before and after the epoch that took most off it; without, the run's first and last losses."""
    if curve.heldout and curve.heldout_before is not None:
        epochs = [*pairwise([curve.heldout_before, *curve.heldout])]
        before, after = max(epochs, key=lambda epoch: epoch[0] - epoch[1])
        return before, after, "the epoch that moved most took the held-out loss"
    if len(curve.steps) < 2 * WINDOW:
        return None, None, ""
    return fmean(curve.steps[:WINDOW]), fmean(curve.steps[-WINDOW:]), "the run took the training loss"


def _underfitting(curve: Curve, recipe: Recipe) -> Verdict | None:
    if len(curve.heldout) < 2:
        return None
    previous, last = curve.heldout[-2:]
    if previous - last < FALLING * previous or curve.train[-1] < APART * last:
        return None
    because = (
        f"epoch {len(curve.heldout)} still took the held-out loss from {previous:.3f} to {last:.3f}, and the training "
        f"loss, {curve.train[-1]:.3f}, is not far below it"
    )
    return Verdict("underfitting", because, {"epochs": recipe.epochs * MORE})


def _healthy(curve: Curve, recipe: Recipe) -> str:
    if curve.heldout and curve.heldout_before is not None:
        kept = curve.best_epoch if recipe.early_stop else len(curve.heldout)
        fell = f"the held-out loss fell from {curve.heldout_before:.3f} to {curve.heldout[kept - 1]:.3f}"
        return f"{fell} after epoch {kept}, which was kept" if recipe.early_stop else fell
    return f"the training loss went from {curve.steps[0]:.3f} to {curve.steps[-1]:.3f}; nothing was held out"


def whole(epoch: float) -> bool:
    """Whether that is the end of an epoch; the Trainer counts in fractions."""
    return abs(epoch - round(epoch)) < 1e-6


def _two_digits(number: float) -> float:
    return float(f"{number:.1e}")


RULES: Sequence[Callable[[Curve, Recipe], Verdict | None]] = (
    _nan,
    _leak,
    _too_high,
    _overfitting,
    _forgetting,
    _too_low,
    _underfitting,
)
