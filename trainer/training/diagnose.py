"""What the losses of a run say about it: a verdict, the numbers that it rests on, and a remedy that can be run.

    overfitting: the held-out loss was lowest after epoch 2 (1.410) and is 1.580 after epoch 6, 12 % higher, while the
    training loss fell from 1.200 to 0.610
    hint: trainer sft ... --dropout 0.1 --early-stop 2

The thresholds are rules of thumb of practitioners. A learning rate that is too high and yet lowers the loss in every
epoch is not recognised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from trainer.console import Log
from trainer.training.events import EventSink
from trainer.training.recipe import Recipe

# Learning rate too high: a mean over WINDOW_STEPS is DIVERGED_RATIO times the first loss, or an epoch's training loss
# rises by RISE of the first loss, or the held-out loss ends above where it began.
DIVERGED_RATIO, WINDOW, RISE = 1.2, 10, 0.03
# Overfitting: the held-out loss ends this share above its lowest, and the training loss fell since then.
OVERFITTING_RISE = 0.03
# Learning rate too low: no epoch takes this share off the held-out loss.
MIN_GAIN = 0.02
# Underfitting: the last epoch still took this share off the held-out loss, and the training loss is not far below it.
STILL_FALLING, MIN_TRAIN_RATIO = 0.01, 0.9
# Forgetting: the loss on general text rises by this share.
FORGETTING_RISE = 0.05
# The remedies; a learning rate is divided or multiplied by RATE_FACTOR.
DROPOUT, PATIENCE_EPOCHS, RATE_FACTOR, EPOCHS_FACTOR, MIX = 0.1, 2, 3, 2, 0.2


@dataclass(frozen=True)
class Curve:
    """Losses in nats a token: of every step, and of every epoch (`train` is the mean over its steps)."""

    steps: list[float]
    train: list[float]
    heldout: list[float]
    heldout_before: float | None
    learning_rate: float
    # On general text, of the base model and with the adapter.
    general_before: float | None = None
    general: float | None = None
    # Held-out emails that are nearly the same as one that is trained on.
    leaked: int = 0

    def until(self, epoch: int) -> Curve:
        """The curve of the same run up to the end of an epoch."""
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
    """`remedy`: the fields of the recipe to change; `advice`: what to do where no field helps."""

    name: str
    because: str
    remedy: dict[str, float]
    advice: str = ""

    @property
    def hint(self) -> str:
        flags = " ".join(f"--{field.replace('_', '-')} {value:g}" for field, value in self.remedy.items())
        return f"trainer sft ... {flags}" if flags else self.advice

    def fields(self) -> dict[str, Any]:
        """Those of the manifest's `training`."""
        return {"verdict": self.name, "because": self.because, "hint": self.hint, "remedy": self.remedy}

    def report(self, log: Log, emit: EventSink) -> None:
        log(f"verdict: {self.name}: {self.because}")
        emit("verdict", verdict=self.name, because=self.because, hint=self.hint)
        if self.hint:
            log(f"hint: {self.hint}")


def diagnose(curve: Curve, recipe: Recipe) -> Verdict:
    """The first of RULES that holds, else healthy."""
    verdict = next((found for rule in RULES if (found := rule(curve, recipe))), None)
    if not verdict:
        return Verdict("healthy", _healthy(curve, recipe), {})
    try:
        Recipe.model_validate(recipe.model_dump() | verdict.remedy)
    except ValidationError:
        # A recipe cannot take every remedy, 1,200 epochs for example.
        return replace(verdict, remedy={})
    return verdict


def _nan(curve: Curve, recipe: Recipe) -> Verdict | None:
    wrong = next((number for number, loss in enumerate(curve.steps, 1) if not math.isfinite(loss)), None)
    return _slower(curve, f"the loss of step {wrong} is NaN or infinite") if wrong else None


def _leak(curve: Curve, recipe: Recipe) -> Verdict | None:
    if not curve.leaked:
        return None
    because = (
        f"{curve.leaked} of the held-out emails are nearly the same as one that was trained on, so that the held-out "
        "loss shows what is memorised, not what generalises"
    )
    return Verdict("leak", because, {}, "leave --heldout-data out, or give it emails that are not in --data")


def _too_high(curve: Curve, recipe: Recipe) -> Verdict | None:
    first = _first(curve, recipe)
    for end in range(WINDOW + 1, len(curve.steps) + 1):
        mean = fmean(curve.steps[end - WINDOW : end])
        if mean >= DIVERGED_RATIO * first:
            because = f"the loss was {first:.3f} at first and {mean:.3f} on the average of {WINDOW} steps up to {end}"
            return _slower(curve, because)
    for epoch, (before, after) in enumerate(pairwise(curve.train), 2):
        if after - before >= RISE * first:
            return _slower(curve, f"the training loss rose from {before:.3f} to {after:.3f} in epoch {epoch}")
    if curve.heldout_before is not None and curve.heldout and min(curve.heldout) > curve.heldout_before:
        at_best = f"{curve.heldout_before:.3f} before the run, and at best {min(curve.heldout):.3f} after it"
        return _slower(curve, f"the held-out loss was {at_best}")
    return None


def _slower(curve: Curve, because: str) -> Verdict:
    return Verdict("learning rate too high", because, {"learning_rate": _two_digits(curve.learning_rate / RATE_FACTOR)})


def _first(curve: Curve, recipe: Recipe) -> float:
    """The loss before training."""
    if not recipe.mix:
        return curve.steps[0]
    # The base model expects every word of a replay example, so that the first step's loss depends on how many it met.
    return max([curve.heldout_before] if curve.heldout_before is not None else curve.steps[:WINDOW])


def _overfitting(curve: Curve, recipe: Recipe) -> Verdict | None:
    # An early stop has kept the best epoch.
    if not curve.heldout or recipe.early_stop:
        return None
    lowest, last = min(curve.heldout), curve.heldout[-1]
    best = curve.best_epoch - 1
    if last < (1 + OVERFITTING_RISE) * lowest or curve.train[-1] >= curve.train[best]:
        return None
    because = (
        f"the held-out loss was lowest after epoch {best + 1} ({lowest:.3f}) and is {last:.3f} after epoch "
        f"{len(curve.heldout)}, {100 * (last / lowest - 1):.0f} % higher, while the training loss fell from "
        f"{curve.train[best]:.3f} to {curve.train[-1]:.3f}"
    )
    return Verdict("overfitting", because, {"dropout": max(recipe.dropout, DROPOUT), "early_stop": PATIENCE_EPOCHS})


def _forgetting(curve: Curve, recipe: Recipe) -> Verdict | None:
    before, after = curve.general_before, curve.general
    if before is None or after is None or after < (1 + FORGETTING_RISE) * before:
        return None
    because = f"the loss on general text rose from {before:.3f} to {after:.3f}, by {100 * (after / before - 1):.0f} %"
    slower = {"learning_rate": _two_digits(curve.learning_rate / RATE_FACTOR)}
    return Verdict("forgetting", because, slower if recipe.mix >= MIX else {"mix": MIX})


def _too_low(curve: Curve, recipe: Recipe) -> Verdict | None:
    before, after, what = _largest_step(curve)
    if before is None or after is None or before - after >= MIN_GAIN * before:
        return None
    because = f"{what} from {before:.3f} to {after:.3f}, less than {100 * MIN_GAIN:.0f} %"
    return Verdict("learning rate too low", because, {"learning_rate": _two_digits(curve.learning_rate * RATE_FACTOR)})


def _largest_step(curve: Curve) -> tuple[float | None, float | None, str]:
    """The held-out loss before and after its best epoch; without one, the run's first and last training losses."""
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
    if previous - last < STILL_FALLING * previous or curve.train[-1] < MIN_TRAIN_RATIO * last:
        return None
    because = (
        f"epoch {len(curve.heldout)} still took the held-out loss from {previous:.3f} to {last:.3f}, and the training "
        f"loss, {curve.train[-1]:.3f}, is not far below it"
    )
    return Verdict("underfitting", because, {"epochs": recipe.epochs * EPOCHS_FACTOR})


def _healthy(curve: Curve, recipe: Recipe) -> str:
    if curve.heldout and curve.heldout_before is not None:
        kept = curve.best_epoch if recipe.early_stop else len(curve.heldout)
        fell = f"the held-out loss fell from {curve.heldout_before:.3f} to {curve.heldout[kept - 1]:.3f}"
        return f"{fell} after epoch {kept}, which was kept" if recipe.early_stop else fell
    return f"the training loss went from {curve.steps[0]:.3f} to {curve.steps[-1]:.3f}; nothing was held out"


def whole(epoch: float) -> bool:
    """Whether it is the end of an epoch; the Trainer counts in fractions."""
    return abs(epoch - round(epoch)) < 1e-6


def _two_digits(number: float) -> float:
    return float(f"{number:.1e}")


Rule = Callable[[Curve, Recipe], Verdict | None]
RULES: Sequence[Rule] = (_nan, _leak, _too_high, _overfitting, _forgetting, _too_low, _underfitting)
