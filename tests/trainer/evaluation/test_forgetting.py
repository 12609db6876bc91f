"""A tiny random Llama with an adapter: strong, weak, or none at all."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters.settings import cache_directory
from trainer.compute.attention import ATTENTION
from trainer.evaluation import forgetting
from trainer.evaluation.results import Answer

FINGERPRINT = f"sha256:{'a' * 64}"
EMAIL = "Dear Ada,\n\nThank you for your question.\n\nKind regards,\nKim"


def ignore(_: int) -> None: ...


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(forgetting, "ANSWER_TOKENS", 6)
    monkeypatch.setattr(forgetting, "PASSAGES", 10)
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.fixture
def adapted(tiny_base: Path) -> Callable[[float], Any]:
    """The tiny base model with a random adapter of that strength."""

    def make(strength: float) -> Any:
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype="float32", attn_implementation=ATTENTION)
        lora = LoraConfig(r=4, lora_alpha=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(base, lora)
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights.data, std=strength)
        return model

    return make


def test_an_adapter_that_changes_nothing_forgets_nothing(adapted, tokenizer):
    found = forgetting.measure(adapted(0.0), tokenizer, FINGERPRINT, ignore)
    assert found["forgetting"] == pytest.approx(0, abs=1e-6)
    assert found["general_loss"] == pytest.approx(found["general_loss_base"])
    assert found["instructions_loss"] == pytest.approx(found["instructions_loss_base"])
    assert found["answers_like_emails"] == found["answers_like_emails_base"]


def test_a_strong_adapter_raises_both_losses_and_leaves_those_of_the_base_model(adapted, tokenizer):
    weak = forgetting.measure(adapted(0.0), tokenizer, FINGERPRINT, ignore)
    strong = forgetting.measure(adapted(0.5), tokenizer, FINGERPRINT, ignore)
    assert strong["instructions_loss"] > strong["instructions_loss_base"] + 0.1
    assert strong["general_loss_base"] == pytest.approx(weak["general_loss_base"], abs=1e-5)
    assert strong["forgetting"] == pytest.approx(strong["general_loss"] / strong["general_loss_base"] - 1)
    assert strong["forgetting"] != 0
    assert all(isinstance(value, float) and math.isfinite(value) for value in strong.values())


def test_the_loss_is_that_of_transformers_on_every_text_alone(adapted, tokenizer):
    model = adapted(0.2).eval()
    rows = [(tokenizer(text)["input_ids"], 1) for text in ("a short one", "and this text is somewhat longer", "ab")]
    nats = tokens = 0.0
    for ids, _ in rows:
        alone = torch.tensor([ids])
        with torch.inference_mode():
            nats += float(model(input_ids=alone, labels=alone).loss) * (len(ids) - 1)
        tokens += len(ids) - 1
    assert forgetting._loss(model, rows, True, ignore) == pytest.approx(nats / tokens, rel=1e-4)


def test_a_model_in_training_is_measured_without_dropout_and_stays_in_training(adapted, tokenizer):
    model = adapted(0.5)
    model.train()
    first = forgetting.measure(model, tokenizer, FINGERPRINT, ignore)
    assert model.training
    assert forgetting.measure(model, tokenizer, FINGERPRINT, ignore) == pytest.approx(first)
    assert all(weights.grad is None for weights in model.parameters())


def test_progress_counts_up_to_the_steps_and_the_second_time_the_base_model_writes_nothing(adapted, tokenizer):
    model, done = adapted(0.1), []
    steps = forgetting.steps(FINGERPRINT)
    forgetting.measure(model, tokenizer, FINGERPRINT, done.append)
    assert sum(done) == steps
    again: list[int] = []
    assert forgetting.steps(FINGERPRINT) == steps - len(forgetting.questions())
    forgetting.measure(model, tokenizer, FINGERPRINT, again.append)
    assert sum(again) == forgetting.steps(FINGERPRINT)


def test_another_base_model_answers_for_itself(adapted, tokenizer):
    forgetting.measure(adapted(0.0), tokenizer, FINGERPRINT, ignore)
    assert forgetting.steps(f"sha256:{'b' * 64}") > forgetting.steps(FINGERPRINT)


def test_a_voice_that_answers_every_question_with_an_email_is_seen(adapted, tokenizer, monkeypatch: pytest.MonkeyPatch):
    model = adapted(0.0)
    forgetting.measure(model, tokenizer, FINGERPRINT, ignore)
    count = len(forgetting.questions())
    monkeypatch.setattr(forgetting, "write_answers", lambda *_: [Answer(EMAIL, True)] * count)
    found = forgetting.measure(model, tokenizer, FINGERPRINT, ignore)
    assert (found["answers_like_emails"], found["answers_like_emails_base"]) == (1.0, 0.0)


def test_what_is_kept_of_the_base_model_is_its_answers_only(adapted, tokenizer):
    forgetting.measure(adapted(0.5), tokenizer, FINGERPRINT, ignore)
    (kept,) = (cache_directory() / "answers").iterdir()
    answers = json.loads(kept.read_text())
    assert len(answers) == len(forgetting.questions())
    assert all(isinstance(text, str) and isinstance(ended, bool) for text, ended in answers)


def test_a_cache_that_cannot_be_written_is_a_warning(
    adapted, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "file"))
    assert forgetting.measure(adapted(0.0), tokenizer, FINGERPRINT, ignore)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert str(tmp_path / "file" / "answers") in warnings[0]


def test_answers_that_are_damaged_are_written_again(adapted, tokenizer):
    before = forgetting.measure(adapted(0.0), tokenizer, FINGERPRINT, ignore)
    (kept,) = (cache_directory() / "answers").iterdir()
    kept.write_text("[[")
    assert forgetting.measure(adapted(0.0), tokenizer, FINGERPRINT, ignore) == before


@pytest.mark.parametrize(
    "answer", [EMAIL, "Subject: Your question\n\nIt is 43.", "subject: eggs", "Hi there,\n\nit is 43.\n\nCheers,\nKim"]
)
def test_an_email_is_seen(answer: str):
    assert forgetting.looks_like_email(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The sum of 17 and 26 is 43.",
        "Hello! I am well, thank you. How are you?",
        "Carrots\nPotatoes\nBeetroots\nRadishes\nTurnips",
        "The subject: bees and flowers.",
        "def largest(numbers):\n    return max(numbers)",
    ],
)
def test_a_plain_answer_is_not_an_email(answer: str):
    assert not forgetting.looks_like_email(answer)


def test_the_questions_are_many_different_and_ask_for_no_message():
    questions = forgetting.questions()
    assert len(set(questions)) == len(questions) == 40
    words = {word for question in questions for word in question.lower().split()}
    assert not words & {"email", "e-mail", "mail", "letter", "message", "write to", "reply", "note"}


def test_the_general_text_is_the_same_every_time_and_of_different_topics(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    texts = forgetting.general_texts()
    assert texts == forgetting.general_texts()
    assert len(set(texts)) == 40
    assert all(len(text) == 640 for text in texts)
