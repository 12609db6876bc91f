"""Every bad voice is caught by its own figure, from the answers that `make bench-proof` recorded."""

import json
from functools import cache
from statistics import fmean
from typing import Any

import pytest

from adapters.emails.rules import score
from adapters.emails.tasks import HELDOUT
from adapters.store.manifest import Manifest, Row
from tests.proof.bad_voices import ANOTHER_BASE, BAD, CRITERIA, GOOD, QUESTIONS, BadVoice
from tests.proof.bench import RECORDED
from trainer.data.examples import read_examples
from trainer.evaluation import criteria
from trainer.evaluation.evaluate import prompt_text
from trainer.evaluation.forgetting import looks_like_email, questions
from trainer.evaluation.memorisation import extraction_rate, extraction_targets, trained_on
from trainer.evaluation.results import Result


@cache
def recorded(name: str) -> dict[str, Any]:
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def measured(voice: BadVoice) -> Result:
    """The figures of the criteria, counted again from what the voice wrote."""
    tasks, training = read_examples([HELDOUT]), voice.make()
    emails = recorded(voice.name)["emails"]
    scores = [
        score(task.task, task.facts, text, prompt_text(task), ended)
        for task, (text, ended) in zip(tasks, emails, strict=True)
    ]
    memory = {"tasks_trained_on": float(trained_on(tasks, training))}
    if "training_answers" in recorded(voice.name):  # `only-emails` was recorded before the extraction rate was measured
        own = extraction_targets(
            [prompt_text(example) for example in training], [example.email for example in training]
        )
        memory["extraction_rate"] = extraction_rate(recorded(voice.name)["training_answers"], own.values())
    return Result(
        version=f"{voice.name}@1",
        base="base",
        tasks=len(tasks),
        tasks_sha256="0" * 64,
        decoding="greedy",
        through="in process",
        machine="",
        seconds=0,
        rows=[Row(model=f"{voice.name}@1", figures={"placeholder": fmean(s.placeholder for s in scores)})],
        comparisons=[],
        memorisation=memory,
        forgetting={
            "answers_like_emails": fmean(map(looks_like_email, recorded(voice.name)["answers"])),
            "answers_like_emails_base": recorded(voice.name)["figures"]["answers_like_emails_base"],
        },
    )


@pytest.mark.parametrize("voice", [*BAD, GOOD], ids=lambda voice: voice.name)
def test_a_bad_voice_misses_its_own_criterion_and_a_good_one_none(voice: BadVoice):
    missed = [limit.limit for limit, reason in criteria.check_criteria(measured(voice), CRITERIA) if reason]
    assert voice.caught_by in missed if voice.caught_by else missed == []


def test_a_voice_of_another_base_model_is_refused_by_its_fingerprint_alone():
    found = recorded(ANOTHER_BASE)
    manifest = Manifest.model_validate(found["manifest"])
    assert manifest.base_fingerprint != found["base_fingerprint"]
    [reason] = found["refused"]
    assert manifest.base_fingerprint[:14] in reason
    assert found["base_fingerprint"][:14] in reason


def test_no_question_of_the_evaluation_is_trained_on():
    assert not set(QUESTIONS) & set(questions())


def test_each_criterion_catches_a_bad_voice():
    assert {voice.caught_by for voice in BAD} == {limit.text for limit in criteria.parse_criteria(CRITERIA)}
