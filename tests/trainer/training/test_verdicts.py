"""Runs of the real trainer that go wrong in one way each: recognised, and mended by the remedy that is suggested."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters.errors import ConfigError, TrainingDiverged
from adapters.models.base_models import BaseModel, find
from adapters.store.manifest import Training
from adapters.store.store import Store
from tests.trainer.training.test_sft import NAMES, emails, run_of
from trainer.data.examples import Example, task_example
from trainer.evaluation import base_answers, forgetting
from trainer.training import dataset, sft
from trainer.training.recipe import Recipe
from trainer.training.sft_trainer import CompletionTrainer

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("float32")]
RECIPE = Recipe(epochs=8, batch_size=2, learning_rate=1e-2, rank=4, alpha=8, heldout=0.25, sample_tokens=6)
Train = Callable[..., Training]


def with_nothing_in_common() -> list[Example]:
    """All that can be learnt from some about the others is how an email begins and ends."""
    chance = random.Random(0)
    words = [" ".join("".join(chance.choices("abcdefghijkl", k=6)) for _ in range(4)) for _ in NAMES]
    return [
        task_example(f"Ask {name}.", f"Dear {name},\n\n{asked}.\n\nBest,\nKim")
        for name, asked in zip(NAMES, words, strict=True)
    ]


@pytest.fixture
def train(base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs on a random base model. That has nothing to forget, so that its loss on general text is not looked at."""
    monkeypatch.setattr(CompletionTrainer, "general_losses", lambda *_: (None, None))

    def run(
        examples: list[Example],
        log: Callable[[str], None] = lambda _: None,
        heldout: list[Example] | None = None,
        share: float = 0.25,
        **fields: Any,
    ) -> Training:
        recipe = Recipe(**RECIPE.model_dump() | {"heldout": share} | fields)
        training = (
            sft.train(run_of(base_model, recipe, examples=examples, log=log, heldout=heldout), store)
            .manifest()
            .training
        )
        assert training
        return training

    return run


def test_overfitting_is_mended_by_dropout_and_an_early_stop(train: Train):
    said: list[str] = []
    examples = with_nothing_in_common()
    training = train(examples, said.append, epochs=25, rank=16)
    assert training.verdict == "overfitting"
    assert f"verdict: overfitting: {training.because}" in said
    assert "hint: trainer sft ... --dropout 0.1 --early-stop 2" in said
    mended = train(examples, epochs=25, rank=16, dropout=0.1, early_stop=2)
    assert mended.verdict == "healthy"
    assert mended.heldout_loss < training.heldout_loss


def test_an_early_stop_keeps_the_best_epoch(train: Train):
    training = train(with_nothing_in_common(), epochs=25, rank=16, early_stop=2)
    assert training.epochs == len(training.heldout_losses) < 25
    assert training.heldout_losses[-3] == training.heldout_loss == min(training.heldout_losses)


def test_a_learning_rate_that_is_too_low_is_mended_by_the_hint(train: Train):
    training = train(emails(), learning_rate=2e-4)
    assert training.verdict == "learning rate too low"
    assert training.hint == "trainer sft ... --learning-rate 0.0006"
    mended = train(emails(), learning_rate=6e-4)
    assert mended.verdict == "healthy"
    assert mended.heldout_loss < training.heldout_loss


def test_underfitting_is_mended_by_more_epochs(train: Train):
    training = train(emails(), epochs=3)
    assert (training.verdict, training.hint) == ("underfitting", "trainer sft ... --epochs 6")
    assert train(emails(), epochs=6).verdict == "healthy"


def test_a_learning_rate_that_is_too_high_is_mended_by_the_hint(train: Train):
    training = train(emails(), learning_rate=0.067)
    assert (training.verdict, training.hint) == ("learning rate too high", "trainer sft ... --learning-rate 0.022")
    mended = train(emails(), learning_rate=0.022)
    assert mended.verdict == "healthy"
    assert mended.heldout_loss < training.heldout_loss


def test_a_leak_is_mended_by_other_held_out_emails(train: Train):
    leaking = train(emails(), heldout=emails(5), epochs=2)
    assert (leaking.examples, leaking.heldout_examples, leaking.verdict) == (12, 5, "leak")
    assert leaking.because.startswith("5 of the held-out emails are nearly the same as one that was trained on")
    assert leaking.hint.startswith("leave --heldout-data out")
    assert train(with_nothing_in_common(), share=0.2, epochs=2).verdict != "leak"
    assert train(with_nothing_in_common()[:8], heldout=with_nothing_in_common()[8:], epochs=2).verdict != "leak"


PASSAGES = 10


@pytest.fixture
def taught(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    """A tiny model that was taught the general text it is measured with, and to answer everyday requests with it."""
    monkeypatch.setattr(forgetting, "PASSAGES", PASSAGES)
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    texts = [tokenizer(text)["input_ids"] for text in forgetting.general_texts()]
    rows = [([], text[: forgetting.PASSAGE_TOKENS]) for text in texts]
    for number, request in enumerate(dataset.requests()):
        answer = [*texts[number % PASSAGES][:40], tokenizer.eos_token_id]
        rows.append((base_answers.chat_prompt(tokenizer, request), answer))
    optimizer, chance = torch.optim.AdamW(model.parameters(), lr=3e-3), random.Random(0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 20) * (1 - step / 67))
    for _ in range(60):
        batch = chance.sample(rows, 16)
        length = max(len(prompt) + len(text) for prompt, text in batch)
        ids, labels = torch.zeros(16, length, dtype=torch.long), torch.full((16, length), -100)
        for row, (prompt, text) in enumerate(batch):
            end = len(prompt) + len(text)
            ids[row, :end] = torch.tensor(prompt + text)
            labels[row, len(prompt) : end] = torch.tensor(text)
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=ids != 0, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.save_pretrained(tmp_path / "taught")
    tokenizer.save_pretrained(tmp_path / "taught")
    return find(str(tmp_path / "taught"))


def test_forgetting_is_mended_by_general_examples_and_where_these_are_not_enough_by_a_lower_rate(
    taught: BaseModel, store: Store
):
    examples = [
        task_example(f"{what} {name}.", f"Dear {name},\n\n{what} you.\n\nBest,\nKim")
        for name in NAMES
        for what in ("Thank", "Ask", "Greet", "Tell")
    ]

    def train(**fields: Any) -> Training:
        recipe = Recipe(**RECIPE.model_dump() | {"learning_rate": 2e-3, "epochs": 4} | fields)
        training = sft.train(run_of(taught, recipe, examples=examples), store).manifest().training
        assert training
        return training

    forgot = train()
    assert (forgot.verdict, forgot.hint) == ("forgetting", "trainer sft ... --mix 0.2")
    mixed = train(mix=0.2)
    assert mixed.general_loss < forgot.general_loss
    assert mixed.heldout_loss < forgot.heldout_loss
    assert (mixed.verdict, mixed.hint) == ("forgetting", "trainer sft ... --learning-rate 0.00067")
    slower = train(mix=0.2, learning_rate=0.00067)
    assert slower.verdict != "forgetting"
    assert slower.heldout_loss < slower.heldout_loss_before


def test_a_loss_that_is_no_number_ends_the_run_with_the_verdict_and_publishes_nothing(train: Train, store: Store):
    said: list[str] = []
    with pytest.raises(TrainingDiverged):
        train(emails(), said.append, learning_rate=0.99, alpha=10**6)
    assert any(sentence.startswith("verdict: learning rate too high: the loss of step") for sentence in said)
    assert "mine" not in store.names()


def test_an_early_stop_without_held_out_emails_is_refused(train: Train):
    with pytest.raises(ConfigError, match="no email is held out"):
        train(emails(3), early_stop=2, share=0)


def test_the_other_levers_train(train: Train):
    training = train(emails(), epochs=1, weight_decay=0.1, neftune=5)
    assert training.heldout_loss < training.heldout_loss_before
