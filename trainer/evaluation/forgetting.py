"""Forgetting: what an adapter costs the base model in losses, and how many questions it answers with an email.

General text is the help of Python itself (`pydoc_data.topics`, PSF licence), so nothing is downloaded. Instructions are
our own questions with the base model's greedy answers. One PeftModel measures both sides, its adapter on and off.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from statistics import mean

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from adapters.emails.form import has_greeting, has_sign_off
from trainer.compute.losses import Row, losses
from trainer.data.examples import DATA
from trainer.evaluation import base_answers
from trainer.evaluation.results import Answer

QUESTIONS = DATA / "questions.jsonl"
PASSAGES, PASSAGE_CHARACTERS, PASSAGE_TOKENS = 40, 640, 128
# Our voices write emails of 60 words: by then one has ended, or shown its subject line.
ANSWER_TOKENS = 96
SCORED_ANSWER_TOKENS = 48

Advance = Callable[[int], None]


def measure(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str, advance: Advance
) -> dict[str, float]:
    """Losses in nats a token, `forgetting`, and the shares of questions that are answered with an email.

    `fingerprint` is the base model's. `advance` is called with increments that add up to `steps(fingerprint)`.
    """
    with _evaluating(model):
        base_written = _base_answers(model, tokenizer, fingerprint, advance)
        general_base, general = general_losses(model, tokenizer, advance)
        rows = [_instruction(tokenizer, *each) for each in zip(questions(), base_written, strict=True)]
        return {
            "general_loss_base": general_base,
            "general_loss": general,
            "instructions_loss_base": _loss(model, rows, False, advance),
            "instructions_loss": _loss(model, rows, True, advance),
            # Not of the instructions: the base model expects its own answers so well that any rise is a large one.
            "forgetting": general / general_base - 1,
            "answers_like_emails": _email_share(write_answers(model, tokenizer, advance)),
            "answers_like_emails_base": _email_share(base_written),
        }


def steps(fingerprint: str) -> int:
    """How many texts `measure` reads or writes; more for a base model whose answers are not cached yet."""
    written = 2 if base_answers.load_answers(fingerprint, questions(), ANSWER_TOKENS) is None else 1
    return 2 * PASSAGES + (2 + written) * len(questions())


def general_losses(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, advance: Advance, passages: int | None = None
) -> tuple[float, float]:
    """The loss on general text in nats a token, without the adapter and with it; reads all, or `passages`, twice."""
    rows = [(tokenizer.encode(text)[:PASSAGE_TOKENS], 1) for text in general_texts()[:passages]]
    with _evaluating(model):
        return _loss(model, rows, False, advance), _loss(model, rows, True, advance)


def questions() -> list[str]:
    """Everyday questions, none of which asks for a message."""
    return [json.loads(line)["question"] for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]


def general_texts() -> list[str]:
    """Passages of different topics, the same on every machine with this version of Python."""
    from pydoc_data.topics import topics

    long = sorted(text.strip() for text in set(topics.values()) if len(text) >= PASSAGE_CHARACTERS)
    chance = random.Random(0)
    passages = []
    for text in chance.sample(long, PASSAGES):
        paragraphs = [0] + [i + 2 for i in range(len(text) - PASSAGE_CHARACTERS) if text.startswith("\n\n", i)]
        start = chance.choice(paragraphs)
        passages.append(text[start : start + PASSAGE_CHARACTERS])
    return passages


def looks_like_email(answer: str) -> bool:
    """It starts with a subject line, or has a greeting and a sign-off."""
    return answer.lstrip().lower().startswith("subject:") or (has_greeting(answer) and has_sign_off(answer))


def write_answers(model: PeftModel, tokenizer: PreTrainedTokenizerBase, advance: Advance) -> list[Answer]:
    """Greedy answers to the questions, in order."""
    answers = base_answers.write_answers(model, tokenizer, questions(), ANSWER_TOKENS)
    advance(len(answers))
    return answers


def _base_answers(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str, advance: Advance
) -> list[Answer]:
    answers = base_answers.load_answers(fingerprint, questions(), ANSWER_TOKENS)
    if answers is None:
        with model.disable_adapter():
            answers = write_answers(model, tokenizer, advance)
        base_answers.save_answers(fingerprint, questions(), ANSWER_TOKENS, answers)
    return answers


def _email_share(answers: Sequence[Answer]) -> float:
    return mean(float(looks_like_email(answer.text)) for answer in answers)


def _instruction(tokenizer: PreTrainedTokenizerBase, question: str, answer: Answer) -> Row:
    prompt = base_answers.chat_prompt(tokenizer, question)
    end = [tokenizer.eos_token_id] if answer.ended else []
    scored = [*tokenizer.encode(answer.text, add_special_tokens=False), *end][:SCORED_ANSWER_TOKENS]
    return prompt + scored, len(prompt)


def _loss(model: PeftModel, rows: Sequence[Row], adapter: bool, advance: Advance) -> float:
    """Mean nats over all scored tokens of all rows."""
    with nullcontext() if adapter else model.disable_adapter():
        found = losses(model, rows, advance)
    return sum(loss.nats for loss in found) / sum(loss.tokens for loss in found)


@contextmanager
def _evaluating(model: PeftModel) -> Iterator[None]:
    """Without dropout; restores the mode afterwards."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)
