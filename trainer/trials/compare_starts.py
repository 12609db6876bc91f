"""What a base model is worth: the same minutes of training from its weights, by LoRA, and from random ones.

    trainer compare-starts --data trainer/data/shipped/voices/formal.jsonl --minutes 5

Both learn from the same emails in the same order and are measured on the same held-out ones. How many steps fit into
the minutes nobody knows beforehand, so that the learning rate rises in WARMUP_STEPS steps and then stays. The trainers
are those of trainer/training/sft_trainer.py. This file does not know how the result is shown.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from accelerate.utils import release_memory
from peft.helpers import disable_input_dtype_casting
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TrainerCallback

from adapters.models.base_models import BaseModel, shaping_config
from trainer.compute.cpu_loss import fused_lora
from trainer.compute.device import Device, choose
from trainer.console import Log, bar
from trainer.data.check import check_before_training
from trainer.data.examples import Example
from trainer.training.callbacks import Losses
from trainer.training.dataset import Rows
from trainer.training.diagnose import WINDOW
from trainer.training.from_scratch import LEARNING_RATE
from trainer.training.recipe import Recipe, learning_rate_prior
from trainer.training.sft import sample_email
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer
from trainer.trials.trial_rows import rows_of_trials

MOST = 32
"""Held-out emails that are read, or measuring would take longer than learning."""
MEASURED = 5
"""How often their loss is measured during the training, in equal parts of the time."""
WARMUP_STEPS = 10
ENDLESS = 10**9
"""Steps, more than fit into any time."""
PARTS = 1000
"""Of the bar, for each training."""


@dataclass(frozen=True)
class Trained:
    """One of the two trainings; losses in nats a token."""

    start: str
    """`pretrained` or `random`."""
    weights: int
    """Trained ones."""
    learning_rate: float
    emails: int
    """Read in training; one that is read again counts again."""
    tokens: int
    seconds: float
    """Of training alone, without measuring and writing."""
    losses: tuple[float, ...]
    """Of every step. One that is no number is the last."""
    heldout: tuple[tuple[float, float], ...]
    """Seconds of training, and the held-out loss after them; the first is before the first step."""
    wrote_before: str | None
    """For the held-out task, by the base model; random weights write noise, which nobody needs to wait for."""
    wrote: str
    """For the same task, in the end."""

    @property
    def training_loss(self) -> float:
        """Of the last steps."""
        return fmean(self.losses[-WINDOW:])

    @property
    def before(self) -> float:
        return self.heldout[0][1]

    @property
    def after(self) -> float:
        """No number where the training broke off."""
        return self.heldout[-1][1] if math.isfinite(self.losses[-1]) else math.nan


@dataclass(frozen=True)
class Comparison:
    base: str
    minutes: float
    batch_size: int
    heldout_emails: int
    vocabulary: int
    task: str
    """The held-out task that both wrote an email for."""
    pretrained: Trained
    random: Trained


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers gives it no type
    """Ends the training after `seconds`, and has the held-out loss measured meanwhile; the clock stands still for that.

    The trainer has to measure once before the first step. `advance` is called with how many of PARTS went by.
    """

    def __init__(self, seconds: float, advance: Callable[[float], None]) -> None:
        self.trained = 0.0
        self.heldout: list[tuple[float, float]] = []
        self.parts = 0
        self._seconds = seconds
        self._advance = advance
        self._since = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        self.trained += now - self._since
        self._since = now
        parts = min(PARTS, int(PARTS * self.trained / self._seconds))
        self._advance(parts - self.parts)
        self.parts = parts
        part = self._seconds / MEASURED
        control.should_training_stop |= self.trained >= self._seconds
        control.should_evaluate = self.trained // part > self.heldout[-1][0] // part or control.should_training_stop

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self.heldout.append((self.trained, metrics["eval_loss"]))
        self._since = time.monotonic()


def compare(examples: Sequence[Example], base: BaseModel, recipe: Recipe, minutes: float, log: Log) -> Comparison:
    """Train twice for as many `minutes`; nothing is published.

    Of the recipe everything counts but its epochs, early stop, sample epochs and limits.

    Raises:
        DataError: emails that are too long, all listed, before a model is loaded.
        ConfigError: too few emails to hold some out.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    check_before_training(examples, tokenizer, recipe.max_length, log)
    device = choose()
    rows = rows_of_trials(examples, recipe, base, device, log, "for a comparison")
    rows = replace(rows, heldout=rows.heldout[:MOST])
    prior = learning_rate_prior(shaping_config(base.path)["hidden_size"])
    log(f"both are measured on the same {len(rows.heldout)} held-out emails; minutes of training for each: {minutes:g}")
    with bar("training", 2 * PARTS) as advance:
        pretrained, random = (
            _train(start, recipe.learning_rate or rate, rows, base, recipe, tokenizer, device, 60 * minutes, advance)
            for start, rate in (("pretrained", prior), ("random", LEARNING_RATE))
        )
    return Comparison(
        base=base.name,
        minutes=minutes,
        batch_size=recipe.batch_size,
        heldout_emails=len(rows.heldout),
        vocabulary=shaping_config(base.path)["vocab_size"],
        task=rows.heldout[0].task,
        pretrained=pretrained,
        random=random,
    )


def _train(
    start: str,
    learning_rate: float,
    rows: Rows,
    base: BaseModel,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    device: Device,
    seconds: float,
    advance: Callable[[float], None],
) -> Trained:
    with tempfile.TemporaryDirectory(prefix="mailwright-starts-") as scratch:
        trainer = completion_trainer(
            rows.train,
            rows.heldout,
            base,
            recipe.model_copy(update={"early_stop": 0}),
            learning_rate,
            tokenizer,
            device,
            scratch,
            from_scratch=start == "random",
            max_steps=ENDLESS,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=WARMUP_STEPS,
            eval_strategy="no",
            eval_on_start=True,
        )
        clock, losses = Clock(seconds, advance), Losses()
        trainer.add_callback(clock)
        trainer.add_callback(losses)
        wrote_before = None
        if start == "pretrained":
            wrote_before = sample_email(trainer, rows.heldout[0], recipe.sample_tokens)
        with disable_input_dtype_casting(trainer.model), fused_lora(trainer.model):
            trainer.train()
        advance(PARTS - clock.parts)
        trained = Trained(
            start=start,
            weights=trainer.model.num_parameters(only_trainable=True),
            learning_rate=learning_rate,
            emails=_emails(trainer, len(rows.train), recipe.batch_size),
            tokens=int(trainer.state.num_input_tokens_seen),
            seconds=clock.trained,
            losses=tuple(losses.steps),
            heldout=tuple(clock.heldout),
            wrote_before=wrote_before,
            wrote=sample_email(trainer, rows.heldout[0], recipe.sample_tokens),
        )
    del trainer
    release_memory()
    return trained


def _emails(trainer: CompletionTrainer, rows: int, batch_size: int) -> int:
    """Read in the steps so far: an epoch's last batch may be a smaller one."""
    epochs, steps = divmod(int(trainer.state.global_step), math.ceil(rows / batch_size))
    return epochs * rows + steps * batch_size
