"""Short trials of several learning rates, with the same adapter weights, seed and batches.

    trainer sweep --data trainer/data/shipped/voices/formal.jsonl --recipe quick

The learning rate of a trial rises in a short warm-up and then stays. This is not a learning-rate range test, which
raises it within one run: what that suggests depends on how long the run has learned by then.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import AutoTokenizer, set_seed

from adapters.models.base_models import BaseModel
from trainer.compute.device import choose
from trainer.compute.fused_lora import fused_lora
from trainer.console import Log, bar
from trainer.data.examples import Example
from trainer.training.callbacks import Losses
from trainer.training.dataset import trial_set
from trainer.training.recipe import Recipe
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer
from trainer.trials.learning_rates import Sweep, Trial

WARMUP_SHARE = 0.1


def sweep(
    examples: Sequence[Example], base: BaseModel, recipe: Recipe, rates: Sequence[float], steps: int, log: Log
) -> Sweep:
    """A trial of `steps` steps for each of `rates`; nothing is published. The recipe's learning rate, schedule, epochs,
    early stop and limits are ignored, and more emails may be held out.

    Raises:
        ConfigError: too few emails.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    device = choose()
    rows = trial_set(examples, recipe, base, device, log, "to compare learning rates")
    ordered = sorted(set(rates))
    log(f"{len(ordered)} trials of {steps} steps of {recipe.batch_size} emails, each from the same start")
    with tempfile.TemporaryDirectory(prefix="mailwright-sweep-") as scratch:
        trainer = completion_trainer(
            rows.train,
            rows.heldout,
            base,
            recipe.model_copy(update={"early_stop": 0}),
            ordered[0],
            tokenizer,
            device,
            scratch,
            max_steps=steps,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=round(WARMUP_SHARE * steps),
            eval_strategy="no",
        )
        model = trainer.model
        start = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        with disable_input_dtype_casting(model), fused_lora(model), bar("trials", len(ordered) * steps) as advance:
            before = trainer.evaluate()["eval_loss"]
            trials = tuple(_trial(trainer, start, rate, advance) for rate in ordered)
    return Sweep(trials, before, steps, recipe.batch_size, len(rows.heldout))


def _trial(
    trainer: CompletionTrainer, start: dict[str, torch.Tensor], rate: float, advance: Callable[[float], None]
) -> Trial:
    """Reset the adapter to the weights `start`, the optimizer, the schedule and every source of randomness; train."""
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
