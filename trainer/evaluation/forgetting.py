"""What a voice cost the base model: loss on general text and on instructions, and questions answered with an email.

Nothing is fetched. General text is the Python language's own help (`pydoc_data.topics`, PSF licence), which every
machine has. Instructions are this project's questions (trainer/data/shipped/questions.jsonl) with the answers that the
base model itself gives, greedy: how far has the adapter moved from them? One PeftModel measures both sides, its adapter
on and off. This file does not know emails of training or how results are shown.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from statistics import mean
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from adapters.emails.form import has_greeting, has_sign_off
from trainer.compute.losses import Row, losses
from trainer.data.examples import DATA
from trainer.evaluation import base_answers
from trainer.evaluation.base_answers import Answer

QUESTIONS = DATA / "questions.jsonl"
PASSAGES, PASSAGE_CHARACTERS, PASSAGE_TOKENS = 40, 640, 128
ANSWER_TOKENS = 96
"""An email of our voices has ended by then, or begun with a subject: they have 60 words."""
SCORED_ANSWER_TOKENS = 48

Advance = Callable[[int], None]


def measure(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str, advance: Advance
) -> dict[str, float]:
    """The losses (nats a token), `forgetting`, and the shares `answers_like_emails` and `answers_like_emails_base`.

    `fingerprint` is the base model's. `advance(n)` is called when n of `steps(fingerprint)` texts are done.
    """
    was_training = model.training
    model.eval()
    base_answers = _base_answers(model, tokenizer, fingerprint, advance)
    found = compared_losses(model, tokenizer, base_answers, advance)
    answers = write(model, tokenizer, advance)
    model.train(was_training)
    return found | {"answers_like_emails": _share(answers), "answers_like_emails_base": _share(base_answers)}


def steps(fingerprint: str) -> int:
    """How many texts `measure` reads or writes: more the first time that it meets a base model."""
    written = 2 if base_answers.kept(fingerprint, questions(), ANSWER_TOKENS) is None else 1
    return 2 * PASSAGES + (2 + written) * len(questions())


def compared_losses(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, answers: Sequence[Answer], advance: Advance
) -> dict[str, float]:
    """Nats a token with the adapter and without, and `forgetting`.

    `forgetting` is the relative rise of the loss on general text. Not that on instructions: the base model's loss on
    its own greedy answers is small, so that a small move is a large share of it.
    """
    general_base, general = general_losses(model, tokenizer, advance)
    rows = [_instruction(tokenizer, question, answer) for question, answer in zip(questions(), answers, strict=True)]
    return {
        "general_loss_base": general_base,
        "general_loss": general,
        "instructions_loss_base": _loss(model, rows, False, advance),
        "instructions_loss": _loss(model, rows, True, advance),
        "forgetting": general / general_base - 1,
    }


def general_losses(model: PeftModel, tokenizer: PreTrainedTokenizerBase, advance: Advance) -> tuple[float, float]:
    """Nats a token of general text, without the adapter and with it; reads 2 * PASSAGES texts."""
    was_training = model.training
    model.eval()
    rows = [(_ids(tokenizer(text))[:PASSAGE_TOKENS], 1) for text in general_texts()]
    found = _loss(model, rows, False, advance), _loss(model, rows, True, advance)
    model.train(was_training)
    return found


def questions() -> list[str]:
    """Everyday questions of which none asks for a message."""
    return [json.loads(line)["question"] for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]


def general_texts() -> list[str]:
    """40 passages of 640 characters, each of another topic; the same on every machine with this version of Python."""
    from pydoc_data.topics import topics

    long = sorted(text.strip() for text in set(topics.values()) if len(text) >= PASSAGE_CHARACTERS)
    chance = random.Random(0)
    return [_passage(text, chance) for text in chance.sample(long, PASSAGES)]


def _passage(text: str, chance: random.Random) -> str:
    """From the beginning of a paragraph on."""
    starts = [0] + [i + 2 for i in range(len(text) - PASSAGE_CHARACTERS) if text.startswith("\n\n", i)]
    start = chance.choice(starts)
    return text[start : start + PASSAGE_CHARACTERS]


def looks_like_email(answer: str) -> bool:
    """A subject line first, or a greeting and a sign-off."""
    return answer.lstrip().lower().startswith("subject:") or (has_greeting(answer) and has_sign_off(answer))


def _share(answers: Sequence[Answer]) -> float:
    return mean(float(looks_like_email(text)) for text, _ in answers)


def _base_answers(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str, advance: Advance
) -> list[Answer]:
    """Written once for a base model, then kept."""
    kept = base_answers.kept(fingerprint, questions(), ANSWER_TOKENS)
    if kept is not None:
        return kept
    with model.disable_adapter():
        answers = write(model, tokenizer, advance)
    base_answers.keep(fingerprint, questions(), ANSWER_TOKENS, answers)
    return answers


def write(model: PeftModel, tokenizer: PreTrainedTokenizerBase, advance: Advance) -> list[Answer]:
    """Greedy answers to the questions, in order."""
    answers = base_answers.write(model, tokenizer, questions(), ANSWER_TOKENS)
    advance(len(answers))
    return answers


def _instruction(tokenizer: PreTrainedTokenizerBase, question: str, answer: Answer) -> Row:
    text, ended = answer
    prompt = base_answers.prompt(tokenizer, question)
    end = [tokenizer.eos_token_id] if ended else []
    scored = [*_ids(tokenizer(text, add_special_tokens=False)), *end][:SCORED_ANSWER_TOKENS]
    return prompt + scored, len(prompt)


def _ids(encoded: Any) -> list[int]:
    return list(encoded["input_ids"])


def _loss(model: PeftModel, rows: Sequence[Row], adapter: bool, advance: Advance) -> float:
    """Mean nats over all scored tokens of all rows."""
    with nullcontext() if adapter else model.disable_adapter():
        found = losses(model, rows, advance)
    return sum(loss.nats for loss in found) / sum(loss.tokens for loss in found)
