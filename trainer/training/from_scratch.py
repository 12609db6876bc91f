"""One training run without the base model's weights: examples -> a whole model of its shape, in a directory.

    trainer sft --data trainer/data/shipped/voices/formal.jsonl --name formal --from-scratch

What a base model is worth shows beside a model that has none of its knowledge. The tokenizer, the emails and their
split, the loop and the verdict are those of trainer/training/sft.py; there is no adapter, no store and nothing to go on
with. This file does not know flags or how results are printed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, EarlyStoppingCallback, TrainerCallback

from adapters.errors import ConfigError, TrainingDiverged
from adapters.models.base_models import BaseModel
from adapters.store.disk import shortage
from trainer.compute.device import choose
from trainer.console import Log, check_new_directory
from trainer.data.check import check_before_training
from trainer.data.examples import Example
from trainer.evaluation.memorisation import trained_on
from trainer.training import callbacks
from trainer.training.dataset import Rows
from trainer.training.diagnose import Curve, Verdict, diagnose
from trainer.training.events import Tell, nobody
from trainer.training.mix import rows_of_run
from trainer.training.out_of_memory import learn_in_memory, step_settings
from trainer.training.recipe import Recipe
from trainer.training.sft import listeners, tell_verdict
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer

LEARNING_RATE = 1e-3
"""The default: random weights are far from where they should be, whatever the model's size."""
BYTES_A_WEIGHT = 4
"""In float32."""


@dataclass(frozen=True)
class Trained:
    """A run that is over, its model in the directory `path`."""

    path: Path
    base: BaseModel
    weights: int
    rows: Rows
    curve: Curve
    verdict: Verdict
    seconds: float

    def facts(self) -> dict[str, Any]:
        """For --json."""
        curve, verdict = self.curve, self.verdict
        return {
            "path": str(self.path),
            "shape_of": self.base.name,
            "weights": self.weights,
            "examples": len(self.rows.emails),
            "practice_examples": self.rows.practice,
            "heldout_examples": len(self.rows.heldout),
            "epochs": len(curve.train),
            "steps": len(curve.steps),
            "seconds": round(self.seconds, 1),
            "learning_rate": curve.learning_rate,
            "train_losses": [round(loss, 4) for loss in curve.train],
            "heldout_loss_before": curve.heldout_before and round(curve.heldout_before, 4),
            "heldout_losses": [round(loss, 4) for loss in curve.heldout],
            "verdict": verdict.name,
            "because": verdict.because,
            "hint": verdict.hint,
        }


def train(
    examples: Sequence[Example],
    output: Path,
    base: BaseModel,
    recipe: Recipe,
    log: Log,
    tell: Tell = nobody,
    heldout: Sequence[Example] | None = None,
    explain: bool = False,
    report_to: str = "none",
) -> Trained:
    """Train all weights of a model of the base model's shape, and write it into the directory `output`, whole or not at
    all. `tell`, `heldout`, `explain` and `report_to` are those of trainer/training/sft.py.

    Raises:
        DataError: emails that are too long, all listed, before the model is made.
        ConfigError: `output` is there and not empty, or cannot be made; the recipe asks for what only a version has.
        TrainingDiverged: the loss is no number; nothing is written.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM came; nothing is written.
    """
    check_new_directory(output)
    _check_recipe(recipe)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    check_before_training(examples, tokenizer, recipe.max_length, log)
    device = choose()
    rows = rows_of_run(examples, recipe, base, device, log, heldout)
    leaked = trained_on(rows.heldout, rows.train) if heldout else 0
    rate = recipe.learning_rate or LEARNING_RATE
    log(f"learning rate {rate:g} ({'given' if recipe.learning_rate else 'the default from scratch'})")
    # Beside the output, so that the model only has to be renamed.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        trainer, seconds = learn_in_memory(
            lambda at_once: completion_trainer(
                *(rows.train, rows.heldout, base, recipe, rate, tokenizer, device, scratch),
                from_scratch=True,
                save_only_model=True,
                report_to=report_to,
                **step_settings(recipe.batch_size, at_once),
            ),
            lambda trainer: _learn(trainer, base, recipe, log, listeners(trainer, rows, recipe, log, tell, explain)),
            recipe.batch_size,
            log,
        )
        curve = replace(callbacks.curve(trainer.state.log_history, rate), leaked=leaked)
        verdict = _judge(curve, recipe, log, tell)
        made = Path(scratch) / "model"
        _save(trainer, base, made)
        made.rename(output)
    tell("written", path=str(output.absolute()))
    return Trained(output.absolute(), base, trainer.model.num_parameters(), rows, curve, verdict, seconds)


def _check_recipe(recipe: Recipe) -> None:
    if recipe.limits or recipe.sample_epochs:
        asked = "has limits" if recipe.limits else "keeps the model of several epochs"
        raise ConfigError(
            f"the recipe {recipe.recipe} {asked}, which only versions in the store can have, and a model from scratch "
            "is none",
            "give another --recipe, quick for one",
        )


def _learn(
    trainer: CompletionTrainer,
    base: BaseModel,
    recipe: Recipe,
    log: Log,
    reporting: Sequence[TrainerCallback],
) -> float:
    """The loop; gives its seconds.

    Raises:
        KeyboardInterrupt, SystemExit: a signal ended it.
    """
    weights = trainer.model.num_parameters()
    log(f"a model of the shape of {base.name} begins with random weights, and all {weights:,} are trained")
    # With an early stop for the best and the last one too, before the model itself.
    lacking = shortage(Path(trainer.args.output_dir).parent, weights * BYTES_A_WEIGHT * (3 if recipe.early_stop else 1))
    if lacking:
        raise ConfigError(lacking, "make room there, or give another --output")
    interruption, progress = callbacks.Interruption(saves=False), callbacks.Progress()
    for callback in (
        progress,
        *reporting,
        callbacks.Losses(),
        interruption,
        *([EarlyStoppingCallback(recipe.early_stop)] if recipe.early_stop else []),
    ):
        trainer.add_callback(callback)
    trainer.args.eval_on_start = trainer.eval_dataset is not None
    began = time.monotonic()
    with interruption.listening(), progress:
        trainer.train()
    interruption.end()
    return time.monotonic() - began


def _judge(curve: Curve, recipe: Recipe, log: Log, tell: Tell) -> Verdict:
    """Raises:
    TrainingDiverged: the last loss is no number.
    """
    found = diagnose(curve, recipe)
    # Dropout is the adapter's.
    verdict = replace(found, remedy={field: value for field, value in found.remedy.items() if field != "dropout"})
    tell_verdict(verdict, log, tell)
    if not math.isfinite(curve.steps[-1]):
        slower = verdict.hint.partition("... ")[2]
        raise TrainingDiverged(
            f"{verdict.because}, and nothing is written", f"begin anew with {slower}", verdict.remedy
        )
    return verdict


def _save(trainer: CompletionTrainer, base: BaseModel, directory: Path) -> None:
    """In the base model's number format, so that whatever loads that loads this; with its tokenizer and template."""
    dtype = AutoConfig.from_pretrained(base.path).dtype or torch.float32
    trainer.model.to(dtype).save_pretrained(directory)
    trainer.processing_class.save_pretrained(directory)
