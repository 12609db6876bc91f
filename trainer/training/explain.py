"""`trainer sft --explain`: the loop of learning, told with this run's own numbers.

    1 show    the task has 41 tokens, the email that belongs to it 96
    2 guess   before any step the model gives the right next token 21 % on average: "Subject" 0 %, it would say "I" ...
    3 error   2.310 nats a token; a sure and right guess would be 0, blind chance among 49,152 tokens 10.8
    4 told    how much each layer is told to change, first to last: ▁▂▂▃▅█
    5 adjust  at a learning rate of 2.5e-05 the adapter moved by 0.02 % of its size
    repeat    after epoch 1: the right next token 63 %, 0.702 nats a token; the adapter has moved by 14 % of its size

The email is the run's first; its words are shown to whoever asked. This file does not know how the run is set up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerCallback

from trainer.console import sparkline
from trainer.data.examples import Example
from trainer.training.diagnose import whole
from trainer.training.sft_trainer import CompletionTrainer

FIRST = 3
"""Tokens of the email whose guesses are shown one by one."""
LAYER = re.compile(r"\.layers\.(\d+)\.")


class Explanation(TrainerCallback):  # type: ignore[misc]  # transformers gives it no type
    """Says the five steps once, for the first step with a learning rate above 0, and the last line after each epoch."""

    def __init__(self, log: Callable[[str], None], trainer: CompletionTrainer, example: Example) -> None:
        self._log = log
        self._trainer = trainer
        self._model = trainer.model
        self._learner = "the adapter" if isinstance(trainer.model, PeftModel) else "the model"
        self._tokenizer = tokenizer = trainer.processing_class
        asked = tokenizer.apply_chat_template(list(example.messages), add_generation_prompt=True, return_dict=True)
        self._prompt = list(asked["input_ids"])
        self._email = list(tokenizer(example.email, add_special_tokens=False)["input_ids"])
        self._start: dict[str, torch.Tensor] = {}
        self._before: dict[str, torch.Tensor] = {}
        self._told: list[float] = []
        self._adjusted = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._start = self._weights()
        if state.global_step:  # a run that goes on: its first step is long gone
            self._adjusted = True
            return
        logits_NV = self._logits()
        right_N = self._right(logits_NV)
        guesses = ", ".join(self._guess(logits_NV[n], n) for n in range(min(FIRST, len(self._email))))
        size = logits_NV.shape[-1]
        self._log(f"1 show    the task has {len(self._prompt)} tokens, the email that belongs to it {len(self._email)}")
        self._log(
            f"2 guess   before any step the model gives the right next token {_percent(right_N)} on average: {guesses}"
        )
        self._log(
            f"3 error   {_nats(right_N):.3f} nats a token; a sure and right guess would be 0, blind chance among "
            f"{size:,} tokens {math.log(size):.1f}"
        )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._adjusted:
            self._before = self._weights()
            self._told = per_layer({name: weight.grad for name, weight in self._trained().items()})

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        rate = optimizer.param_groups[0]["lr"]
        if self._adjusted or not rate:
            return
        self._adjusted = True
        moved = distance(self._before, self._weights())
        self._log(f"4 told    how much each layer is told to change, first to last: {sparkline(self._told)}")
        self._log(
            f"5 adjust  at a learning rate of {rate:.1e} {self._learner} moved by {100 * moved:.2g} % of its size"
        )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not whole(state.epoch):
            return
        right_N = self._right(self._logits())
        moved = distance(self._start, self._weights())
        self._log(
            f"repeat    after epoch {round(state.epoch)}: the right next token {_percent(right_N)}, "
            f"{_nats(right_N):.3f} nats a token; {self._learner} has moved by {100 * moved:.2g} % of its size"
        )

    def _logits(self) -> torch.Tensor:
        """Of each token of the email, float32."""
        was_training = self._model.training
        self._model.eval()
        ids_1T = torch.tensor([self._prompt + self._email], device=self._model.device)
        with torch.inference_mode(), self._trainer.accelerator.autocast():
            logits_TV = self._model(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T)).logits[0]
        self._model.train(was_training)
        return logits_TV[len(self._prompt) - 1 : -1].float()

    def _right(self, logits_NV: torch.Tensor) -> torch.Tensor:
        """The log-probability that each right token got."""
        wanted_N = torch.tensor(self._email, device=logits_NV.device)
        return logits_NV.log_softmax(-1).gather(1, wanted_N[:, None])[:, 0]

    def _guess(self, logits_V: torch.Tensor, number: int) -> str:
        """`"Dear" 3 %, it would say "I" (41 %)` of the email's token of that number."""
        probabilities_V = logits_V.softmax(-1)
        right, favourite = self._email[number], int(probabilities_V.argmax())
        said = f"{self._word(right)} {100 * probabilities_V[right]:.0f} %"
        if favourite == right:
            return said
        return f"{said}, it would say {self._word(favourite)} ({100 * probabilities_V[favourite]:.0f} %)"

    def _word(self, token: int) -> str:
        return f'"{self._tokenizer.decode([token]).strip()}"'

    def _trained(self) -> dict[str, Any]:
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self._trained().items()}


def per_layer(gradients: Mapping[str, torch.Tensor | None]) -> list[float]:
    """The norm of each layer's gradients, in the order of the layers."""
    squares: dict[int, float] = {}
    for name, gradient in gradients.items():
        match = LAYER.search(name)
        if match and gradient is not None:
            squares[int(match[1])] = squares.get(int(match[1]), 0.0) + float(gradient.float().square().sum())
    return [math.sqrt(squares[layer]) for layer in sorted(squares)]


def distance(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> float:
    """How far the weights moved, as a share of how large they were: both are Euclidean norms over all of them."""
    moved = sum(float((after[name] - before[name]).square().sum()) for name in before)
    size = sum(float(weight.square().sum()) for weight in before.values())
    return math.sqrt(moved / size) if size else 0.0


def _percent(right_N: torch.Tensor) -> str:
    return f"{100 * float(right_N.exp().mean()):.0f} %"


def _nats(right_N: torch.Tensor) -> float:
    return -float(right_N.mean())
