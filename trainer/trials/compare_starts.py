"""What a base model is worth: the same minutes of training from its weights, by LoRA, and from random ones.

    trainer compare-starts --data trainer/data/shipped/voices/formal.jsonl --minutes 5

Both learn from the same emails in the same order and are measured on the same held-out ones.
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
from trainer.compute.device import Device, choose
from trainer.compute.fused_lora import fused_lora
from trainer.console import Log, bar
from trainer.data.examples import Example
from trainer.training.callbacks import Losses
from trainer.training.dataset import Rows, trial_set
from trainer.training.diagnose import WINDOW
from trainer.training.from_scratch import LEARNING_RATE
from trainer.training.recipe import Recipe, peak_learning_rate
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer, sample_email

# With more, measuring would take longer than training.
MAX_HELDOUT_EMAILS = 32
# How often the held-out loss is measured, in equal parts of the time.
EVALUATIONS = 5
# How many steps fit into the time is unknown beforehand: the learning rate rises in these and then stays.
WARMUP_STEPS = 10
# More than fit into any time.
ENDLESS_STEPS = 10**9


@dataclass(frozen=True)
class Trained:
    """One of the two trainings; losses in nats a token."""

    # `pretrained` or `random`.
    start: str
    # Trained ones.
    weights: int
    learning_rate: float
    # Read in training; an email that is read again counts again.
    emails: int
    tokens: int
    # Of training alone, without measuring and sample emails.
    seconds: float
    # Of every step; a NaN or infinite one is the last.
    losses: tuple[float, ...]
    # (seconds of training, held-out loss); the first is before the first step.
    heldout: tuple[tuple[float, float], ...]
    # What the base model writes for the held-out task; None for random weights, which write noise.
    wrote_before: str | None
    wrote: str

    @property
    def training_loss(self) -> float:
        return fmean(self.losses[-WINDOW:])

    @property
    def before(self) -> float:
        return self.heldout[0][1]

    @property
    def after(self) -> float:
        """NaN if the training ended at a NaN or infinite loss."""
        return self.heldout[-1][1] if math.isfinite(self.losses[-1]) else math.nan


@dataclass(frozen=True)
class Comparison:
    base: str
    minutes: float
    batch_size: int
    heldout_emails: int
    vocabulary: int
    # The held-out task that both write an email for.
    task: str
    pretrained: Trained
    random: Trained


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers gives it no type
    """Ends the training after `seconds`, and has the held-out loss measured on the way, which does not count as time.

    The trainer must evaluate once before the first step. `advance` gets the seconds of training.
    """

    def __init__(self, seconds: float, advance: Callable[[float], None]) -> None:
        self.trained = 0.0
        self.heldout: list[tuple[float, float]] = []
        self._seconds = seconds
        self._advance = advance
        self._since = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        step, self._since = now - self._since, now
        self._advance(min(step, self._seconds - self.trained))
        self.trained += step
        part = self._seconds / EVALUATIONS
        control.should_training_stop |= self.trained >= self._seconds
        control.should_evaluate = self.trained // part > self.heldout[-1][0] // part or control.should_training_stop

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self.heldout.append((self.trained, metrics["eval_loss"]))
        self._since = time.monotonic()


def compare(examples: Sequence[Example], base: BaseModel, recipe: Recipe, minutes: float, log: Log) -> Comparison:
    """Train twice for so many `minutes`; nothing is published. The recipe's epochs, early stop and limits are ignored.

    Raises:
        ConfigError: too few emails to hold some out.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    device = choose()
    rows = trial_set(examples, recipe, base, device, log, "for a comparison")
    rows = replace(rows, heldout=rows.heldout[:MAX_HELDOUT_EMAILS])
    log(f"both are measured on the same {len(rows.heldout)} held-out emails; minutes of training for each: {minutes:g}")
    rates = {"pretrained": peak_learning_rate(recipe, base), "random": recipe.learning_rate or LEARNING_RATE}
    with bar("training", 2 * 60 * minutes) as advance:
        pretrained, random = (
            _train(start, rate, rows, base, recipe, tokenizer, device, 60 * minutes, advance)
            for start, rate in rates.items()
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
            max_steps=ENDLESS_STEPS,
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
        advance(max(0.0, seconds - clock.trained))
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
    """Read in the steps so far: the last batch of an epoch may be smaller."""
    epochs, steps = divmod(int(trainer.state.global_step), math.ceil(rows / batch_size))
    return epochs * rows + steps * batch_size
