"""What a run trains on and holds out, with replay: whose answers, how many, and written only once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from tests.proof.bad_voices import QUESTIONS
from tests.trainer.training.test_sft import RECIPE, emails, nobody_listens
from trainer.compute.device import Device
from trainer.data.examples import Example, task_example
from trainer.evaluation import base_answers, forgetting
from trainer.training import dataset
from trainer.training.dataset import Rows

DEVICE = Device("cpu", "float32", False, "CPU")
MIXED = RECIPE.model_copy(update={"mix": 0.5, "heldout": 0.25})


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "MAX_ANSWER_TOKENS", 6)


def answered(base: BaseModel, ended: int) -> None:
    """As if the base model had answered, and ended the first `ended` answers by itself."""
    answers = [(f"Answer {number}.", number < ended) for number, _ in enumerate(dataset.requests())]
    base_answers.save_answers(base.fingerprint, dataset.requests(), dataset.MAX_ANSWER_TOKENS, answers)


def rows(base: BaseModel) -> Rows:
    return dataset.training_set(emails(), MIXED, base, DEVICE, nobody_listens)


def test_the_share_is_that_of_all_that_is_trained_on(base_model: BaseModel):
    answered(base_model, 110)
    found = rows(base_model)
    assert (len(found.train), len(found.emails), len(found.heldout), found.replay) == (18, 9, 3, 9)
    assert {example.email for example in found.train[9:]} <= {f"Answer {number}." for number in range(110)}
    assert len({example.task for example in found.train[9:]}) == 9
    assert not any(example.email.startswith("Answer") for example in found.heldout)
    assert found == rows(base_model)


def test_an_answer_that_did_not_end_is_left_out(base_model: BaseModel):
    answered(base_model, 2)
    assert {example.email for example in rows(base_model).train[9:]} == {"Answer 0.", "Answer 1."}


def test_a_base_model_that_ends_no_answer_is_refused(base_model: BaseModel):
    answered(base_model, 0)
    with pytest.raises(ConfigError, match="ends none of its answers within 6 tokens"):
        rows(base_model)


def test_the_base_model_itself_answers_and_only_once(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch):
    found = rows(base_model)
    answers = base_answers.load_answers(base_model.fingerprint, dataset.requests(), 6)
    assert answers
    assert {text for text, ended in answers if ended} >= {example.email for example in found.train[9:]}
    monkeypatch.setattr(base_answers, "write_answers", lambda *_: pytest.fail("they are written already"))
    assert rows(base_model) == found


def test_without_a_share_nothing_is_mixed_in(base_model: BaseModel):
    found = dataset.training_set(emails(), RECIPE, base_model, DEVICE, nobody_listens)
    assert found.replay == 0


def test_what_is_mixed_in_is_not_what_forgetting_is_measured_with():
    asked = {request.lower() for request in dataset.requests()}
    assert len(asked) == len(dataset.requests()) >= 100
    assert not asked & {question.lower() for question in [*forgetting.questions(), *QUESTIONS]}


@given(st.integers(1, 5), st.integers(0, 30), st.integers(0, 3))
def test_none_comes_twice_before_all_came(available: int, count: int, seed: int):
    examples: list[Example] = [task_example(f"Ask {number}.", "Answer.") for number in range(available)]
    found = dataset.in_turn(examples, count, seed)
    assert len(found) == count
    times = [found.count(example) for example in examples]
    assert max(times) - min(times) <= 1
