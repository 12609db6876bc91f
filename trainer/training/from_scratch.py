"""One training run without the base model's weights: emails -> a whole model of its shape, in a directory.

    trainer sft --data trainer/data/shipped/voices/formal.jsonl --name formal --from-scratch

It shows what the base model is worth. Tokenizer, emails, loop and verdict are those of trainer/training/sft.py; no
adapter is trained, nothing is published and nothing can be resumed.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from adapters.errors import ConfigError, TrainingDiverged
from adapters.store.disk import shortage
from trainer.console import check_new_directory
from trainer.training.dataset import training_set
from trainer.training.diagnose import Verdict, diagnose
from trainer.training.fit import TrainedRun, fit
from trainer.training.run import TrainingRun
from trainer.training.sft_trainer import random_model

# Random weights are far from where they should be, whatever the model's size.
LEARNING_RATE = 1e-3
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class WrittenModel:
    """A run that is over, its model in the directory `path`."""

    path: Path
    run: TrainingRun
    trained: TrainedRun
    verdict: Verdict

    def facts(self) -> dict[str, Any]:
        """For --json."""
        trained = self.trained
        weights = trained.trainer.model.num_parameters()
        model = {"path": str(self.path), "shape_of": self.run.base.name, "weights": weights}
        return model | trained.fields(trained.curve, trained.kept_epoch, trained.seconds) | self.verdict.fields()


def train(run: TrainingRun, output: Path) -> WrittenModel:
    """Train all weights, and write the model into the directory `output`, whole or not at all.

    Raises:
        ConfigError: `output` is not empty or cannot be made; the recipe asks for what only a version has.
        TrainingDiverged: the loss is NaN; nothing is written.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM; nothing is written.
    """
    check_new_directory(output)
    recipe = run.recipe
    if recipe.limits or recipe.sample_epochs:
        asked = "has limits" if recipe.limits else "keeps the model of several epochs"
        raise ConfigError(
            f"the recipe {recipe.recipe} {asked}: only a version in the store can have them, not a model from scratch",
            "give another --recipe, for example quick",
        )
    rows = training_set(run.examples, recipe, run.base, run.device, run.log, run.heldout)
    rate = recipe.learning_rate or LEARNING_RATE
    run.log(f"learning rate {rate:g} ({'given' if recipe.learning_rate else 'the default from scratch'})")
    _check_room(run, output)
    # Beside the output, so that the model only has to be renamed.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        trained = fit(run, rows, rate, Path(scratch), None, save_only_model=True)
        verdict = diagnose(trained.curve, recipe)
        # Only an adapter has dropout.
        remedy = {field: value for field, value in verdict.remedy.items() if field != "dropout"}
        verdict = replace(verdict, remedy=remedy)
        verdict.report(run.log, run.emit)
        if not math.isfinite(trained.curve.steps[-1]):
            slower = verdict.hint.partition("... ")[2]
            raise TrainingDiverged(
                f"{verdict.because}, and nothing is written", f"begin anew with {slower}", verdict.remedy
            )
        model = Path(scratch) / "model"
        # In the base model's number format and with its tokenizer, so that the same programs load it.
        dtype = AutoConfig.from_pretrained(run.base.path).dtype or torch.float32
        trained.trainer.model.to(dtype).save_pretrained(model)
        trained.trainer.processing_class.save_pretrained(model)
        model.rename(output)
    run.emit("written", path=str(output.absolute()))
    return WrittenModel(output.absolute(), run, trained, verdict)


def _check_room(run: TrainingRun, output: Path) -> None:
    with torch.device("meta"):
        weights = random_model(run.base, run.recipe.seed, None).num_parameters()
    run.log(f"a model of the shape of {run.base.name} begins with random weights, and all {weights:,} are trained")
    # With an early stop the best and the last checkpoint lie beside the model.
    models = 3 if run.recipe.early_stop else 1
    if lacking := shortage(output.absolute().parent, weights * FLOAT32_BYTES * models):
        raise ConfigError(lacking, "make room there, or give another --output")
