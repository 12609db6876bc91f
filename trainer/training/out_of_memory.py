"""Out of memory: the same step with fewer emails at once.

This file knows neither emails nor the store; trainer/training/sft.py hands it how a trainer is made and how one learns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate.utils import release_memory
from accelerate.utils.memory import should_reduce_batch_size

from adapters.errors import ConfigError
from trainer.compute import distributed
from trainer.console import Log
from trainer.training.sft_trainer import CompletionTrainer


def learn_in_memory(
    make: Callable[[int], CompletionTrainer], learn: Callable[[CompletionTrainer], float], batch: int, log: Log
) -> tuple[CompletionTrainer, float]:
    """Learn with so many emails at once as fit into the memory; what does not is made up by accumulated gradients.

    A step keeps its emails, and so does what is learnt. Out of memory, a run goes on where it was last saved.

    Raises:
        ConfigError: not even one email fits.
    """
    at_once: int | None = batch
    while at_once:
        trainer = make(at_once)
        try:
            return trainer, learn(trainer)
        except (RuntimeError, MemoryError) as exc:
            too_much = isinstance(exc, MemoryError) or should_reduce_batch_size(exc)
            # Several processes cannot: the others are waiting for this step's gradients.
            if not too_much or distributed.COUNT > 1:
                raise
        # Out here the exception is gone, and with it the frames that hold what did not fit.
        del trainer
        release_memory()
        smaller = next((fewer for fewer in range(at_once // 2, 0, -1) if batch % fewer == 0), None)
        if smaller:
            log(f"out of memory with {at_once} emails at once: on with {smaller} at once, and {batch} a step as before")
        at_once = smaller
    raise ConfigError(
        "the memory does not hold one email in training", "leave out the longest with --max-length, or free memory"
    )


def step_settings(emails: int, at_once: int) -> dict[str, Any]:
    """The Trainer's fields for steps of so many emails in each process, read so many at once."""
    return {
        "per_device_train_batch_size": at_once,
        # A held-out loss is the mean over batches, so that several processes have to read the batches of one.
        "per_device_eval_batch_size": at_once * distributed.COUNT,
        "gradient_accumulation_steps": emails // at_once,
    }
