"""Held-out evaluation against honest baselines: the base model without and with one example, and the adapter.

All three get the same tasks, the same chat template and greedy decoding. The primary figure is `facts_kept`: of all
facts of all tasks, the share that stands in the answers (trainer/rubric.py says when a fact counts). This file does
not know the store or how results are printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from adapters.prompts import Message, one_shot_messages
from adapters.settings import silence_telemetry
from trainer.data import Example
from trainer.device import choose
from trainer.rubric import Score, score

silence_telemetry()
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

MAX_NEW_TOKENS = 384
BATCH = 24


@dataclass(frozen=True)
class Summary:
    """One row of the table; shares from 0 to 1, words as a mean."""

    model: str
    tasks: int
    facts_kept: float
    all_kept: float
    placeholders: float
    ends_by_itself: float
    words: float

    def as_dict(self) -> dict[str, Any]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


def evaluate(
    adapter: Path,
    name: str,
    base: Path,
    tasks: Sequence[Example],
    examples: Sequence[Example],
    advance: Callable[[int], None],
) -> tuple[list[Summary], dict[str, list[str]]]:
    """The three rows of the table, and every answer by row; `advance(n)` is called when n more answers are written.

    The example shown to the base model is the first of `examples` of the task's kind, else the first of all: one in the
    adapter's voice, from the training emails, never from the tasks.
    """
    writer = Writer(base, adapter)
    prompts = {
        "base, no example": [list(task.messages) for task in tasks],
        "base, one example": [_with_example(task, examples) for task in tasks],
        name: [list(task.messages) for task in tasks],
    }
    summaries, answers = [], {}
    for row, messages in prompts.items():
        written = list(writer.write(messages, use_adapter=row == name, advance=advance))
        scores = [score(task.task, task.facts, text) for task, (text, _) in zip(tasks, written, strict=True)]
        summaries.append(_summary(row, scores, [ended for _, ended in written]))
        answers[row] = [text for text, _ in written]
    return summaries, answers


class Writer:
    """The base model with the adapter beside it; writes greedy answers in batches, in order."""

    def __init__(self, base: Path, adapter: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
        logging.disable_progress_bar()
        device = choose()
        loaded = AutoModelForCausalLM.from_pretrained(base, dtype=device.dtype).to(device.kind)
        self.model = PeftModel.from_pretrained(loaded, str(adapter)).eval()

    def write(
        self, prompts: Sequence[Sequence[Message]], use_adapter: bool, advance: Callable[[int], None]
    ) -> Iterable[tuple[str, bool]]:
        """(text, whether it ended by itself within 384 tokens) for each prompt."""
        for start in range(0, len(prompts), BATCH):
            batch = [list(prompt) for prompt in prompts[start : start + BATCH]]
            yield from self._write_batch(batch, use_adapter)
            advance(len(batch))

    def _write_batch(self, batch: list[list[Message]], use_adapter: bool) -> Iterable[tuple[str, bool]]:
        tokens = self.tokenizer.apply_chat_template(
            batch, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        with torch.inference_mode(), nullcontext() if use_adapter else self.model.disable_adapter():
            written = self.model.generate(**tokens, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        for row in written[:, tokens["input_ids"].shape[1] :]:
            ended = self.tokenizer.eos_token_id in row.tolist()
            yield self.tokenizer.decode(row, skip_special_tokens=True).strip(), ended


def _with_example(task: Example, examples: Sequence[Example]) -> list[Message]:
    example = next((e for e in examples if e.kind == task.kind and len(e.messages) == 1), None) or next(
        e for e in examples if len(e.messages) == 1
    )
    *earlier, last = task.messages
    previous = [(earlier[i]["content"], earlier[i + 1]["content"]) for i in range(0, len(earlier), 2)]
    return one_shot_messages((example.task, example.email), last["content"], previous)


def _summary(row: str, scores: Sequence[Score], ended: Sequence[bool]) -> Summary:
    return Summary(
        model=row,
        tasks=len(scores),
        facts_kept=sum(s.facts_kept for s in scores) / sum(s.facts for s in scores),
        all_kept=mean(s.all_kept for s in scores),
        placeholders=mean(s.placeholder for s in scores),
        ends_by_itself=mean(ended),
        words=mean(s.words for s in scores),
    )
