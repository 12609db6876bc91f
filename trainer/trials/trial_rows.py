"""What trainings that are only compared learn from: emails as in a run, with enough held out to measure on.

This file does not know what is compared; trainer/trials/sweep.py and trainer/trials/compare_starts.py do.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from trainer.compute.device import Device
from trainer.console import Log
from trainer.data.examples import Example
from trainer.training.dataset import Rows
from trainer.training.mix import rows_of_run
from trainer.training.recipe import Recipe

LEAST = 4
"""Emails to learn from, and to measure on; twice as many are held out, or half of all."""


def rows_of_trials(
    examples: Sequence[Example], recipe: Recipe, base: BaseModel, device: Device, log: Log, purpose: str
) -> Rows:
    """Those of a run of `recipe`, more of them held out if need be.

    Raises:
        ConfigError: too few emails for the `purpose`.
    """
    heldout = max(recipe.heldout, min(2 * LEAST / len(examples), 0.5))
    rows = rows_of_run(examples, recipe.model_copy(update={"heldout": heldout}), base, device, log)
    if min(len(rows.emails), len(rows.heldout)) < LEAST:
        raise ConfigError(
            f"{len(examples)} emails are too few {purpose}: {len(rows.emails)} to learn from and "
            f"{len(rows.heldout)} held out to measure on, where {LEAST} of each are needed",
            f"give {2 * LEAST} emails or more that are not nearly the same",
        )
    return rows
