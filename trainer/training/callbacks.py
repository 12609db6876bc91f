"""What happens while a run is under way: the time left and each epoch's losses are shown, its state is saved.

This file does not know how the run is set up, or where its state and its adapter go.
"""

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
from trainer.training.diagnose import Curve, whole
from trainer.training.events import Tell

SHOWN = (
    ("loss", "loss", ".2f"),
    ("eval_loss", "held out", ".2f"),
    ("learning_rate", "rate", ".1e"),
    ("train_tokens_per_second", "tokens/s", ".0f"),
)
"""Of the Trainer's logs, what stands beside the bar: its name there, its title, its form."""


class Progress(TrainerCallback):
    """A bar over all steps on stderr, with the last figures; as a context it ends however the run does."""

    bar: tqdm[Any] | None = None

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

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
        for name, title, form in SHOWN:
            if logs and name in logs:
                self._shown[title] = format(logs[name], form)
        if self.bar is not None:
            self.bar.set_postfix(self._shown)


class EndOfEpoch(TrainerCallback):
    """Calls `ended` with the run's losses once an epoch is over and evaluated, if anything is held out."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.eval_strategy == "no" and whole(state.epoch):
            self.ended(curve(state.log_history, args.learning_rate))

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step:
            self.ended(curve(state.log_history, args.learning_rate))

    def ended(self, found: Curve) -> None:
        raise NotImplementedError


class EpochReport(EndOfEpoch):
    """After each epoch: `Epoch N complete!`, training and held-out loss, and the email written for one fixed task.

    The email only after `epochs`, if any are given.
    """

    def __init__(
        self, log: Callable[[str], None], write_sample: Callable[[], str], epochs: Collection[int] = ()
    ) -> None:
        self.log = log
        self.write_sample = write_sample
        self.epochs = epochs

    def ended(self, found: Curve) -> None:
        heldout = f", held-out loss {found.heldout[-1]:.3f}" if found.heldout else ""
        self.log(f"Epoch {len(found.train)} complete! training loss {found.train[-1]:.3f}{heldout}")
        if not self.epochs or len(found.train) in self.epochs:
            sample = self.write_sample().replace("\n", "\n  | ")
            self.log(f"  sample email:\n  | {sample}")


class Told(EndOfEpoch):
    """Tells trainer/training/events.py of every step and every epoch."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            done = state.global_step - self._began
            left = logs["train_runtime"] / done * (state.max_steps - state.global_step)
            self.tell(
                "step",
                step=state.global_step,
                steps=state.max_steps,
                epoch=logs["epoch"],
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                tokens=logs["num_input_tokens_seen"],
                tokens_per_second=logs["train_tokens_per_second"],
                seconds_left=left,
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = state.global_step

    def ended(self, found: Curve) -> None:
        heldout = found.heldout[-1] if found.heldout else None
        self.tell("epoch", epoch=len(found.train), train_loss=found.train[-1], heldout_loss=heldout)


class Losses(TrainerCallback):
    """The loss of every step; ends the run at one that is no number. `advance` is called with each step."""

    def __init__(self, advance: Callable[[float], None] = lambda _: None) -> None:
        self.steps: list[float] = []
        self._advance = advance

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.steps.append(logs["loss"])
            self._advance(1)
            control.should_training_stop |= not math.isfinite(logs["loss"])


class KeptEpochs(TrainerCallback):
    """Calls `keep` at the end of each of `epochs`, before its state is saved: what goes on from there has kept it."""

    def __init__(self, epochs: Collection[int], keep: Callable[[int], None]) -> None:
        self.epochs = epochs
        self.keep = keep

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if whole(state.epoch) and round(state.epoch) in self.epochs:
            self.keep(round(state.epoch))


class Saving(TrainerCallback):
    """Has the state saved at least every `every` seconds and with the last step, and calls `saved` after that.

    An epoch's last step is saved after the evaluation that follows it, or a run that goes on from there would miss it.
    A loss that is no number ends the run: nothing is learnt after that, and the state is not saved any more. Nor is one
    with a weight that is no number, which makes the next step's loss such a one.
    """

    def __init__(self, every: float, saved: Callable[[], None]) -> None:
        self.every = every
        self.saved = saved
        self.diverged = False
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        control.should_save |= self._due() and not whole(state.epoch)
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
    """Ctrl-C and SIGTERM while `listening`: the step is finished, the state saved if it `saves`, and the run ended.

    A second signal does what it does elsewhere: it ends the process at once. Not so where several processes train:
    their launcher hands on what a terminal has sent to all of them already.
    """

    received: signal.Signals | None = None

    def __init__(self, saves: bool = True) -> None:
        self.saves = saves

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._asked():
            control.should_training_stop = True
            control.should_save = self.saves and not whole(state.epoch)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called also for an epoch that was left: it is not evaluated, and has been saved."""
        if self._asked():
            control.should_save = self.saves and whole(state.epoch)
            control.should_evaluate &= whole(state.epoch)

    def end(self) -> None:
        """After the run: what the signal stood for.

        Raises:
            KeyboardInterrupt, SystemExit: one was received.
        """
        if self.received:
            raise KeyboardInterrupt if self.received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)

    def _asked(self) -> bool:
        """Whether a signal came, here or in another process that trains."""
        if distributed.any_of_them(self.received is not None):
            self.received = self.received or signal.SIGTERM
        return self.received is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Only the main thread may set handlers; in another one signals do what they did before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def receive(number: int, _: object) -> None:
            self.received = signal.Signals(number)
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
    """Has a run that goes on do so at `peak`, whatever the peak was before."""

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
    """What the Trainer's history of its logs says; a run that was resumed has the whole history."""
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
    """Whether every trained weight is a number."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters() if weight.requires_grad)
