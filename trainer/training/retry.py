"""`trainer sft --auto`: a run, and where its verdict has a remedy the run again with that, at most twice.

Every run publishes its version. This file knows neither trainers nor how verdicts are found.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adapters.errors import TrainingDiverged
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.console import Log
from trainer.training.recipe import Recipe

AGAIN = 2
"""Remedies that are tried: what two did not mend is another problem."""


def train_mended(train: Callable[[Recipe], Version], recipe: Recipe, store: Store, log: Log) -> Version:
    """The version with the lowest held-out loss, the last one of equals or where nothing was held out.

    It is promoted if one of these runs was, as the first of its name.

    Raises:
        TrainingDiverged: every run's loss was no number; nothing is published.
    """
    versions: list[Version] = []
    promoted_here = False
    for again in range(AGAIN + 1):
        try:
            versions.append(train(recipe))
            remedy = _remedy(versions[-1])
            promoted_here |= store.promoted(versions[-1].name) == versions[-1]
        except TrainingDiverged as diverged:
            if again == AGAIN and not versions:
                raise
            remedy = diverged.remedy
        if not remedy or again == AGAIN:
            break
        changed = ", ".join(f"{field} {value:g}" for field, value in remedy.items())
        log(f"--auto: the run again with {changed}")
        recipe = Recipe.model_validate(recipe.model_dump() | remedy)
    best = min(reversed(versions), key=_heldout_loss)
    evaluation = best.manifest().evaluation
    if promoted_here and (not evaluation or evaluation.passed):
        store.promote(best.id)
    return best


def _remedy(version: Version) -> dict[str, float]:
    training = version.manifest().training
    return training.remedy if training else {}


def _heldout_loss(version: Version) -> float:
    training = version.manifest().training
    return math.inf if training is None or training.heldout_loss is None else training.heldout_loss
