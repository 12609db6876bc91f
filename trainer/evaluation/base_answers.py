"""Greedy answers of the base model itself: written once for a base model, then kept in the user's cache.

An evaluation measures how far a voice has moved from them, and a training run may mix some in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from adapters.emails.prompts import task_messages
from adapters.settings import cache_directory
from adapters.store.disk import cache, cached
from trainer.compute.decoding import decode, ends
from trainer.console import log
from trainer.evaluation.results import Answer


def write_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    max_tokens: int,
    step: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Greedy answers of the model as it is, in order; `step` is the one of `decode`."""
    prompts = [chat_prompt(tokenizer, question) for question in questions]
    stops = ends(model, tokenizer)
    with torch.inference_mode():
        rows = decode(model, prompts, stops, max_tokens, step=step)
    return [Answer(tokenizer.decode(row, skip_special_tokens=True).strip(), row[-1] in stops) for row in rows]


def chat_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    encoded = tokenizer.apply_chat_template(task_messages(question), add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


def load_answers(fingerprint: str, questions: Sequence[str], max_tokens: int) -> list[Answer] | None:
    """The cached answers of the base model with that fingerprint; None without any."""
    try:
        return [
            Answer(text, ended) for text, ended in json.loads(cached(_file(fingerprint, questions, max_tokens)) or "")
        ]
    except (ValueError, TypeError):
        return None


def save_answers(fingerprint: str, questions: Sequence[str], max_tokens: int, answers: Sequence[Answer]) -> None:
    cache(_file(fingerprint, questions, max_tokens), json.dumps(answers, ensure_ascii=False), log)


def _file(fingerprint: str, questions: Sequence[str], max_tokens: int) -> Path:
    key = hashlib.sha256(f"{fingerprint} {max_tokens} {list(questions)}".encode()).hexdigest()
    return cache_directory() / "answers" / f"{key}.json"
