"""What a person sees while a run is under way: the time left, and after each epoch its losses and a sample email.

This file does not know how the run is set up or where its adapter goes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from statistics import fmean
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback


class Progress(TrainerCallback):
    """A bar over all steps on stderr; ends cleanly when a run is interrupted."""

    bar: tqdm[Any]

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps, desc="training", unit="step", file=sys.stderr, dynamic_ncols=True, mininterval=0.5
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.2f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


class EpochReport(TrainerCallback):
    """After each epoch: `Epoch N complete!`, training and held-out loss, and the email written for one fixed task.

    Keeps the losses of the run, and ends it at one that is no number: nothing is learnt after that.
    """

    def __init__(self, say: Callable[[str], None], write_sample: Callable[[], str]) -> None:
        self.say = say
        self.write_sample = write_sample
        self.steps: list[float] = []
        self.train: list[float] = []
        self.heldout: list[float] = []
        self._of_epoch: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.steps.append(logs["loss"])
            self._of_epoch.append(logs["loss"])
            control.should_training_stop |= not math.isfinite(logs["loss"])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.train.append(fmean(self._of_epoch) if self._of_epoch else math.nan)
        self._of_epoch = []
        if args.eval_strategy == "no":
            self._report(None)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        if self.train:
            self.heldout.append(metrics["eval_loss"])
            self._report(metrics["eval_loss"])

    def _report(self, heldout_loss: float | None) -> None:
        heldout = "" if heldout_loss is None else f", held-out loss {heldout_loss:.3f}"
        self.say(f"Epoch {len(self.train)} complete! training loss {self.train[-1]:.3f}{heldout}")
        sample = self.write_sample().replace("\n", "\n  | ")
        self.say(f"  sample email:\n  | {sample}")
