"""Short trials of several learning rates: the same adapter weights, seed and batches, so that only the speed differs.

    trainer sweep --data trainer/data/shipped/voices/formal.jsonl --recipe quick

The learning rate of a trial rises in a short warm-up and then stays. This is no learning-rate range test, which raises
it within one run: what such a run suggests depends on how long it has learnt by then. The trainer is that of
trainer/training/sft_trainer.py; what the losses mean trainer/trials/learning_rates.py says. This file does not know how
they are shown.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import AutoTokenizer, set_seed

from adapters.models.base_models import BaseModel
from trainer.compute.cpu_loss import fused_lora
from trainer.compute.device import choose
from trainer.console import Log, bar
from trainer.data.check import check_before_training
from trainer.data.examples import Example
from trainer.training.callbacks import Losses
from trainer.training.recipe import Recipe
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer
from trainer.trials.learning_rates import Sweep, Trial
from trainer.trials.trial_rows import rows_of_trials

WARMUP = 0.1
"""Share of a trial's steps."""


def sweep(
    examples: Sequence[Example], base: BaseModel, recipe: Recipe, rates: Sequence[float], steps: int, log: Log
) -> Sweep:
    """A trial of `steps` steps for each of `rates`; nothing is published.

    Of the recipe everything counts but its learning rate, schedule, epochs, early stop and limits; more emails than it
    says may be held out.

    Raises:
        DataError: emails that are too long, all listed, before the model is loaded.
        ConfigError: too few emails.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    check_before_training(examples, tokenizer, recipe.max_length, log)
    device = choose()
    rows = rows_of_trials(examples, recipe, base, device, log, "to compare learning rates")
    speeds = sorted(set(rates))
    log(f"{len(speeds)} trials of {steps} steps of {recipe.batch_size} emails, each from the same start")
    with tempfile.TemporaryDirectory(prefix="mailwright-sweep-") as scratch:
        trainer = completion_trainer(
            rows.train,
            rows.heldout,
            base,
            recipe.model_copy(update={"early_stop": 0}),
            speeds[0],
            tokenizer,
            device,
            scratch,
            max_steps=steps,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=round(WARMUP * steps),
            eval_strategy="no",
        )
        model = trainer.model
        start = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        with disable_input_dtype_casting(model), fused_lora(model), bar("trials", len(speeds) * steps) as advance:
            before = trainer.evaluate()["eval_loss"]
            trials = tuple(_trial(trainer, start, rate, advance) for rate in speeds)
    return Sweep(trials, before, steps, recipe.batch_size, len(rows.heldout))


def _trial(
    trainer: CompletionTrainer, start: dict[str, torch.Tensor], rate: float, advance: Callable[[float], None]
) -> Trial:
    """The adapter goes back to the weights `start`; optimizer, schedule and every source of chance begin anew."""
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if name in start:
                weight.copy_(start[name])
    trainer.args.learning_rate = rate
    trainer.optimizer = trainer.lr_scheduler = None
    set_seed(trainer.args.seed)
    losses = Losses(advance)
    trainer.add_callback(losses)
    trainer.train()
    trainer.remove_callback(losses)
    advance(trainer.args.max_steps - len(losses.steps))
    broke = not math.isfinite(losses.steps[-1])
    return Trial(rate, tuple(losses.steps), math.nan if broke else trainer.evaluate()["eval_loss"])
