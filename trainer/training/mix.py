"""General examples for a run: everyday requests with the base model's own answers, so that it goes on giving those.

    trainer sft ... --mix 0.2

A voice learns that everything asks for an email, because nothing else was asked while it learnt. The remedy of those
who fine-tune is to mix in what it should keep; the base model's own answers have nobody's licence and teach it nothing
new. The requests (trainer/data/shipped/everyday.jsonl) are none of those that trainer/evaluation/forgetting.py measures
with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from trainer.console import Log, bar
from trainer.data.examples import DATA, Example, task_example
from trainer.training.dataset import Rows, choose_rows
from trainer.training.recipe import Recipe

if TYPE_CHECKING:
    from trainer.compute.device import Device
    from trainer.evaluation.results import Answer

REQUESTS = DATA / "everyday.jsonl"
TOKENS = 160
"""Most of an answer; one that has not ended by then is left out, or it would be learnt that it ends there."""


def rows_of_run(
    examples: Sequence[Example],
    recipe: Recipe,
    base: BaseModel,
    device: Device,
    log: Log,
    heldout: Sequence[Example] | None = None,
) -> Rows:
    """What a run of `recipe` trains on and holds out: `heldout` if given, else a part of the emails.

    Nothing heavy is imported unless general examples are asked for.

    Raises:
        ConfigError: nothing to hold out, or the base model ends no answer by itself.
    """
    rows = choose_rows(examples, recipe, log, heldout)
    return _with_general(rows, recipe, base, device, log) if recipe.mix else rows


def requests() -> list[str]:
    return [json.loads(line)["request"] for line in REQUESTS.read_text(encoding="utf-8").splitlines()]


def _with_general(rows: Rows, recipe: Recipe, base: BaseModel, device: Device, log: Log) -> Rows:
    """With so many general examples that they are `recipe.mix` of what is trained on."""
    examples = [task_example(request, text) for request, (text, _) in _ended(base, device, log)]
    if not examples:
        raise ConfigError(
            f"{base.name} ends none of its answers within {TOKENS} tokens, so that there is nothing to mix in",
            "leave --mix out, or take a base model that was taught to answer",
        )
    added = chosen(examples, round(recipe.mix / (1 - recipe.mix) * len(rows.train)), recipe.seed)
    log(f"{len(added)} general examples mixed in: {len(examples)} requests with the base model's own answers")
    return Rows([*rows.train, *added], rows.heldout, rows.practice + len(added))


def chosen(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` of them in a shuffled order, none twice before all came."""
    chance = random.Random(seed)
    found: list[Example] = []
    while len(found) < count:
        found += chance.sample(examples, min(len(examples), count - len(found)))
    return found


def _ended(base: BaseModel, device: Device, log: Log) -> list[tuple[str, Answer]]:
    from trainer.evaluation import base_answers

    asked = requests()
    answers = base_answers.load_answers(base.fingerprint, asked, TOKENS)
    if answers is None:
        log(f"the base model answers {len(asked)} everyday requests, once:")
        answers = _answers(base, device, asked)
        base_answers.save_answers(base.fingerprint, asked, TOKENS, answers)
    return [(request, answer) for request, answer in zip(asked, answers, strict=True) if answer[0] and answer[1]]


def _answers(base: BaseModel, device: Device, asked: Sequence[str]) -> list[Answer]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.compute.attention import ATTENTION
    from trainer.compute.packed import pack
    from trainer.evaluation import base_answers

    tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=device.dtype, attn_implementation=ATTENTION)
    model.to(device.kind).eval().requires_grad_(False)
    pack(model)
    with bar("answering", len(asked) * TOKENS) as advance:
        return base_answers.write_answers(model, tokenizer, asked, TOKENS, advance)
