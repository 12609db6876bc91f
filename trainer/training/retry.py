"""`trainer sft --auto`: a run, and where its verdict has a remedy the run again with that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from adapters.errors import TrainingDiverged
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.training.recipe import Recipe
from trainer.training.run import TrainingRun

# What two remedies do not mend is another problem.
MAX_REMEDIES = 2


def train_mended(run: TrainingRun, store: Store, train: Callable[[TrainingRun, Store], Version]) -> Version:
    """The version with the lowest held-out loss, the last one of equals; every run publishes its version.

    It is promoted if one of these runs was, as the first of its name.

    Raises:
        TrainingDiverged: the loss of every run is NaN; nothing is published.
    """
    versions: list[Version] = []
    promoted_here = False
    for number in range(MAX_REMEDIES + 1):
        last = number == MAX_REMEDIES
        try:
            version = train(run, store)
            versions.append(version)
            training = version.manifest().training
            remedy = training.remedy if training else {}
            promoted_here |= store.promoted(version.name) == version
        except TrainingDiverged as diverged:
            if last and not versions:
                raise
            remedy = diverged.remedy
        if not remedy or last:
            break
        changed = ", ".join(f"{field} {value:g}" for field, value in remedy.items())
        run.log(f"--auto: the run again with {changed}")
        run = replace(run, recipe=Recipe.model_validate(run.recipe.model_dump() | remedy))
    best = min(reversed(versions), key=_heldout_loss)
    evaluation = best.manifest().evaluation
    if promoted_here and (not evaluation or evaluation.passed):
        store.promote(best.id)
    return best


def _heldout_loss(version: Version) -> float:
    training = version.manifest().training
    return math.inf if training is None or training.heldout_loss is None else training.heldout_loss
