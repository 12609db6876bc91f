"""What the base model itself answers, greedy: written once for a base model, then kept in the user's cache.

An evaluation measures how far a voice has moved from such answers, and a run may mix some in, so that it moves less.
This file knows neither adapters nor emails.
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

Answer = tuple[str, bool]
"""Text, and whether it ended by itself."""


def write(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    limit: int,
    step: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Greedy answers of at most `limit` tokens by the model as it is, in order; `step` is that of `decode`."""
    prompts = [prompt(tokenizer, question) for question in questions]
    stops = ends(model, tokenizer)
    with torch.inference_mode():
        rows = decode(model, prompts, stops, limit, step=step)
    return [(tokenizer.decode(row, skip_special_tokens=True).strip(), row[-1] in stops) for row in rows]


def prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    encoded = tokenizer.apply_chat_template(task_messages(question), add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


def kept(fingerprint: str, questions: Sequence[str], limit: int) -> list[Answer] | None:
    """The answers of the base model with that fingerprint, if they were written before."""
    try:
        return [(text, ended) for text, ended in json.loads(cached(_file(fingerprint, questions, limit)) or "null")]
    except (ValueError, TypeError):
        return None


def keep(fingerprint: str, questions: Sequence[str], limit: int, answers: Sequence[Answer]) -> None:
    cache(_file(fingerprint, questions, limit), json.dumps(answers, ensure_ascii=False), log)


def _file(fingerprint: str, questions: Sequence[str], limit: int) -> Path:
    asked = hashlib.sha256(f"{fingerprint} {limit} {list(questions)}".encode()).hexdigest()
    return cache_directory() / "answers" / f"{asked}.json"
