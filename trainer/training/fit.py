"""The training loop of a run, with as many emails at once as the memory holds; of an adapter and from scratch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from accelerate.utils import release_memory
from accelerate.utils.memory import should_reduce_batch_size
from peft.helpers import disable_input_dtype_casting
from transformers import AutoTokenizer, EarlyStoppingCallback, TrainerCallback

from adapters.errors import ConfigError
from trainer.compute import distributed, threads
from trainer.compute.fused_lora import fused_lora
from trainer.console import bar
from trainer.training import callbacks
from trainer.training.checkpoints import SECONDS_FILE, SavedRun
from trainer.training.dataset import Rows
from trainer.training.diagnose import Curve
from trainer.training.explain import Explanation
from trainer.training.run import TrainingRun
from trainer.training.sft_trainer import (
    GENERAL_PASSAGES,
    CompletionTrainer,
    check_memory,
    completion_trainer,
    sample_email,
    save_adapter,
)

# oneDNN gives no other sign of a lack of memory, and accelerate does not know this one.
ONEDNN_FAILED = "could not create a primitive"


@dataclass(frozen=True)
class TrainedRun:
    """The result of a run that is not published yet; `seconds` include those before it was resumed."""

    trainer: CompletionTrainer
    rows: Rows
    curve: Curve
    seconds: float

    @property
    def kept_epoch(self) -> int:
        """The best epoch, which an early stop has loaded, else the last."""
        return self.curve.best_epoch if self.trainer.args.load_best_model_at_end else len(self.curve.train)

    def fields(self, curve: Curve, kept: int, seconds: float) -> dict[str, Any]:
        """The manifest's `training` of the model after epoch `kept` of `curve`."""
        rows = self.rows
        return {
            "examples": len(rows.emails),
            "replay_examples": rows.replay,
            "heldout_examples": len(rows.heldout),
            "epochs": len(curve.train),
            "steps": len(curve.steps),
            "tokens": self.trainer.tokens_an_epoch * len(curve.train),
            "seconds": round(seconds, 1),
            "learning_rate": curve.learning_rate,
            "train_loss": round(curve.train[kept - 1], 4),
            "heldout_loss_before": curve.heldout_before and round(curve.heldout_before, 4),
            "heldout_loss": round(curve.heldout[kept - 1], 4) if curve.heldout else None,
            "versions": {package: installed_version(package) for package in ("torch", "transformers", "trl", "peft")},
            "general_loss_before": curve.general_before and round(curve.general_before, 4),
            "general_loss": curve.general and round(curve.general, 4),
            "train_losses": [round(loss, 4) for loss in curve.train],
            "heldout_losses": [round(loss, 4) for loss in curve.heldout],
        }


def fit(
    run: TrainingRun, rows: Rows, learning_rate: float, scratch: Path, saved: SavedRun | None, **settings: Any
) -> TrainedRun:
    """Train in `scratch`; `settings` are further ones of TRL's. Without `saved`, all weights are trained from random.

    Out of memory, it trains with half as many emails at once, from the last saved state on. Gradient accumulation keeps
    the emails of a step, and so the losses.

    Raises:
        ConfigError: too little memory is free, or not even one email fits.
    """
    check_memory(run.base, run.recipe, run.device, from_scratch=saved is None)
    tokenizer = AutoTokenizer.from_pretrained(run.base.path)
    share = run.recipe.batch_size // distributed.COUNT
    at_once = share
    while True:
        trainer = completion_trainer(
            rows.train,
            rows.heldout,
            run.base,
            run.recipe,
            learning_rate,
            tokenizer,
            run.device,
            str(scratch),
            start=run.start.path if run.start else None,
            from_scratch=saved is None,
            report_to=run.report_to,
            per_device_train_batch_size=at_once,
            # A held-out loss is a mean over batches: several processes have to read the batches of one.
            per_device_eval_batch_size=at_once * distributed.COUNT,
            gradient_accumulation_steps=share // at_once,
            **settings,
        )
        try:
            seconds = _loop(run, rows, trainer, saved)
            break
        except (RuntimeError, MemoryError) as exc:
            # Not accelerate's find_executable_batch_size: it starts again in one process while the others wait for
            # this step's gradients, it does not see Python's MemoryError, and it tries sizes that do not divide a step.
            out_of_memory = isinstance(exc, MemoryError) or should_reduce_batch_size(exc) or ONEDNN_FAILED in str(exc)
            if not out_of_memory or distributed.COUNT > 1:
                raise
        # Here the exception is gone, and with it the frames that hold the tensors.
        del trainer
        release_memory()
        fewer = _fewer(share, at_once)
        run.log(f"out of memory with {at_once} emails at once: now {fewer} at once, still {share} a step")
        at_once = fewer
    distributed.leave_the_rest_to_the_first()
    return TrainedRun(trainer, rows, _curve(run, rows, trainer, learning_rate, saved), seconds)


def _fewer(share: int, at_once: int) -> int:
    smaller = next((number for number in range(at_once // 2, 0, -1) if share % number == 0), None)
    if smaller is None:
        raise ConfigError(
            "the memory does not hold one email in training", "leave out the longest with --max-length, or free memory"
        )
    return smaller


def _loop(run: TrainingRun, rows: Rows, trainer: CompletionTrainer, saved: SavedRun | None) -> float:
    """Train to the end, from the saved state if there is one; returns the seconds, those before included.

    Raises:
        KeyboardInterrupt, SystemExit: after a signal; the state is saved.
    """
    began = time.monotonic()
    before, checkpoint = (saved.seconds(), saved.checkpoint()) if saved else (0.0, None)

    def seconds() -> float:
        return before + time.monotonic() - began

    interruption, progress = callbacks.Interruption(saves=saved is not None), callbacks.Progress()
    for callback in (
        progress,
        *_reports(run, rows, trainer),
        *(_saves(run, trainer, saved, seconds) if saved else [callbacks.Losses()]),
        interruption,
        *([EarlyStoppingCallback(run.recipe.early_stop)] if run.recipe.early_stop else []),
    ):
        trainer.add_callback(callback)
    trainer.args.eval_on_start = bool(rows.heldout) and not checkpoint
    if checkpoint:
        run.log(f"resuming {run.name} from {checkpoint}")
    with (
        disable_input_dtype_casting(trainer.model),
        fused_lora(trainer.model),
        threads.following_free_cores(trainer.model),
        interruption.listening(),
        progress,
    ):
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    step, steps = trainer.state.global_step, trainer.state.max_steps
    if interruption.received and saved and step < steps:
        run.log(f"saved at step {step} of {steps}; to continue, run the same command with --resume")
    # A signal in the last step of a run that publishes changes nothing: the run is over.
    if not saved or step < steps:
        interruption.end()
    return seconds()


def _reports(run: TrainingRun, rows: Rows, trainer: CompletionTrainer) -> list[TrainerCallback]:
    """Callbacks that log and emit what happens; only the first of several processes has them."""
    if not distributed.FIRST:
        return []

    def sample() -> str:
        return sample_email(trainer, (rows.heldout or rows.train)[0], run.recipe.sample_tokens)

    explained = [Explanation(run.log, trainer, rows.train[0])] if run.explain else []
    return [callbacks.EpochReport(run.log, sample, run.recipe.sample_epochs, run.emit), *explained]


def _saves(
    run: TrainingRun, trainer: CompletionTrainer, saved: SavedRun, seconds: Callable[[], float]
) -> list[TrainerCallback]:
    """Callbacks that keep the state of the run and the adapters of its `sample_epochs`."""
    weights = trainer.model.num_parameters(only_trainable=True)
    saved.check_room(weights, versions=1 + len(run.recipe.sample_epochs))

    def keep(epoch: int) -> None:
        save_adapter(trainer, saved.epoch(epoch))
        if distributed.FIRST:
            (saved.epoch(epoch) / SECONDS_FILE).write_text(f"{seconds():.1f}")

    def note() -> None:
        if distributed.FIRST:
            saved.note(seconds())

    return [
        callbacks.KeptEpochs(run.recipe.sample_epochs, keep),
        callbacks.Saving(run.save_every, note),
        callbacks.LearningRate(trainer.args.learning_rate),
    ]


def _curve(
    run: TrainingRun, rows: Rows, trainer: CompletionTrainer, learning_rate: float, saved: SavedRun | None
) -> Curve:
    """The losses of the run, and where an adapter was trained those on general text before and after."""
    # Emails that a run holds out by itself share nothing with those that it trains on.
    leaked = rows.leaked() if run.heldout else 0
    curve = replace(callbacks.curve(trainer.state.log_history, learning_rate), leaked=leaked)
    if not saved or not math.isfinite(curve.steps[-1]):
        return curve
    with bar("reading general text", 2 * GENERAL_PASSAGES) as advance:
        before, after = trainer.general_losses(advance)
    return replace(curve, general_before=before, general=after)
