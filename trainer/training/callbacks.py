"""Callbacks of a run: progress and losses are reported, the state is saved, signals and NaN end the run."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from statistics import fmean
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from trainer.compute import distributed
from trainer.console import Log
from trainer.training.diagnose import Curve, whole
from trainer.training.events import EventSink, no_events

# Of the Trainer's logs, what stands beside the bar: its name there, its title, its format.
FIGURES = (
    ("loss", "loss", ".2f"),
    ("eval_loss", "held out", ".2f"),
    ("learning_rate", "rate", ".1e"),
    ("train_tokens_per_second", "tokens/s", ".0f"),
)


class Progress(TrainerCallback):
    """A bar over all steps on stderr, with the last figures; leaving the context closes it."""

    bar: tqdm[Any] | None = None

    def __init__(self) -> None:
        self._figures: dict[str, str] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not distributed.FIRST,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        for name, title, spec in FIGURES:
            if logs and name in logs:
                self._figures[title] = format(logs[name], spec)
        if self.bar is not None:
            self.bar.set_postfix(self._figures)


class EpochReport(TrainerCallback):
    """Emits every step and epoch, and logs after each epoch its losses and a sample email.

    The email is only written after `epochs`, if any are given. After two steps it logs how long the others take.
    """

    first_step = 0
    step_ended = 0.0

    def __init__(
        self, log: Log, write_sample: Callable[[], str], epochs: Collection[int] = (), emit: EventSink = no_events
    ) -> None:
        self.log = log
        self.write_sample = write_sample
        self.epochs = epochs
        self.emit = emit

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            step, steps = state.global_step, state.max_steps
            self.emit(
                "step",
                step=step,
                steps=steps,
                epoch=logs["epoch"],
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                tokens=logs["num_input_tokens_seen"],
                tokens_per_second=logs["train_tokens_per_second"],
                seconds_left=logs["train_runtime"] / (step - self.first_step) * (steps - step),
            )
            self._say_time_left(step, steps)

    def _say_time_left(self, step: int, steps: int) -> None:
        # Not from the first step, which also packs weights.
        now = time.monotonic()
        minutes = (now - self.step_ended) * (steps - step) / 60
        if step == self.first_step + 2 and minutes >= 1:
            self.log(f"{steps - step} more steps take about {minutes:.0f} minutes on this machine")
        self.step_ended = now

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Where emails are held out, an epoch is over after its evaluation.
        if args.eval_strategy == "no" and whole(state.epoch):
            self._report(curve(state.log_history, args.learning_rate))

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step:
            self._report(curve(state.log_history, args.learning_rate))

    def _report(self, losses: Curve) -> None:
        epoch, train, heldout = len(losses.train), losses.train[-1], losses.heldout[-1] if losses.heldout else None
        self.emit("epoch", epoch=epoch, train_loss=train, heldout_loss=heldout)
        self.log(
            f"Epoch {epoch} complete! training loss {train:.3f}"
            + ("" if heldout is None else f", held-out loss {heldout:.3f}")
        )
        if not self.epochs or epoch in self.epochs:
            sample = self.write_sample().replace("\n", "\n  | ")
            self.log(f"  sample email:\n  | {sample}")


class Losses(TrainerCallback):
    """Keeps the loss of every step and ends the run at NaN; `advance` is called with each step."""

    def __init__(self, advance: Callable[[float], None] = lambda _: None) -> None:
        self.steps: list[float] = []
        self._advance = advance

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.steps.append(logs["loss"])
            self._advance(1)
            control.should_training_stop |= not math.isfinite(logs["loss"])


class KeptEpochs(TrainerCallback):
    """Calls `keep` at the end of each of `epochs`, before the state is saved: a run resumed from there has kept it."""

    def __init__(self, epochs: Collection[int], keep: Callable[[int], None]) -> None:
        self.epochs = epochs
        self.keep = keep

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if whole(state.epoch) and round(state.epoch) in self.epochs:
            self.keep(round(state.epoch))


class Saving(TrainerCallback):
    """Saves the state at least every `every` seconds and with the last step, and calls `saved` after that.

    A loss that is NaN or infinite ends the run, and no state is saved after it.
    """

    def __init__(self, every: float, saved: Callable[[], None]) -> None:
        self.every = every
        self.saved = saved
        self.diverged = False
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        # An epoch's last step is saved after its evaluation, or a run resumed from there would miss that.
        control.should_save |= self._due() and not whole(state.epoch)
        # With a weight that is NaN the next step's loss is NaN.
        control.should_save = control.should_save and _finite(model)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        self.diverged |= not math.isfinite((logs or {}).get("loss", 0.0))
        control.should_training_stop |= self.diverged
        control.should_save &= not self.diverged

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        control.should_save |= self._due() or state.global_step >= state.max_steps
        control.should_save &= not self.diverged and _finite(model)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last = time.monotonic()
        self.saved()

    def _due(self) -> bool:
        return distributed.any_of_them(time.monotonic() - self._last >= self.every)


class Interruption(TrainerCallback):
    """Ctrl-C and SIGTERM while `listening`: finish the step, save the state if it `saves`, and end the run.

    A second signal ends the process at once.
    """

    received: signal.Signals | None = None

    def __init__(self, saves: bool = True) -> None:
        self.saves = saves

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._asked():
            control.should_training_stop = True
            control.should_save = self.saves and not whole(state.epoch)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Also called for an epoch that was left, which is saved already and not evaluated.
        if self._asked():
            control.should_save = self.saves and whole(state.epoch)
            control.should_evaluate &= whole(state.epoch)

    def end(self) -> None:
        """After the run: raise what the received signal stands for."""
        if self.received:
            raise KeyboardInterrupt if self.received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)

    def _asked(self) -> bool:
        """Whether a signal came, to this process or to another one that trains."""
        if distributed.any_of_them(self.received is not None):
            self.received = self.received or signal.SIGTERM
        return self.received is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        # Only the main thread may set handlers.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def receive(number: int, _: object) -> None:
            self.received = signal.Signals(number)
            # With several processes the launcher sends them a second time what the terminal has sent.
            if distributed.COUNT == 1:
                signal.signal(number, before[self.received])

        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class LearningRate(TrainerCallback):
    """Makes a resumed run continue at the learning rate `peak`, whatever it was before."""

    def __init__(self, peak: float) -> None:
        self.peak = peak

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **_: Any
    ) -> None:
        schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)
        # The first group's is the peak; with LoRA+ another group's is a multiple of it.
        change = self.peak / schedule.base_lrs[0]
        for group in optimizer.param_groups:
            group["lr"] *= change
            group["initial_lr"] *= change
        schedule.base_lrs = [peak * change for peak in schedule.base_lrs]


def curve(history: Sequence[Mapping[str, float]], learning_rate: float) -> Curve:
    """From the Trainer's history of its logs; a resumed run has the whole history."""
    steps = [entry for entry in history if "loss" in entry]
    # A step's epoch is counted up to its end: 0.5 and 1.0 are those of the first epoch with two steps.
    epochs = groupby(steps, lambda entry: math.ceil(entry["epoch"] - 1e-6))
    heldout = {entry["epoch"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    return Curve(
        steps=[entry["loss"] for entry in steps],
        train=[fmean(entry["loss"] for entry in of_epoch) for _, of_epoch in epochs],
        heldout=[loss for epoch, loss in heldout.items() if epoch and whole(epoch)],
        heldout_before=heldout.get(0),
        learning_rate=learning_rate,
    )


def _finite(model: Any) -> bool:
    """Whether no trained weight is NaN or infinite."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters() if weight.requires_grad)
