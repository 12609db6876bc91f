import re
from functools import cache
from typing import Any

import pytest

from adapters.emails.form import PLACEHOLDER, body, has_greeting, has_sign_off
from adapters.emails.tasks import keeps
from trainer.data.examples import Example
from trainer.data.synthetic import VOICES, pieces, synthetic_examples

EXAMPLES = 400


@cache
def synthetic(voice: str) -> list[Example]:
    return synthetic_examples(voice, EXAMPLES, seed=7)


def faulty(voice: str, fault) -> list[str]:
    """Task and email of the examples that have the fault."""
    return [f"{example.task}\n---\n{example.email}" for example in synthetic(voice) if fault(example)]


@pytest.mark.parametrize("voice", VOICES)
def test_every_fact_stands_in_the_task(voice: str):
    assert faulty(voice, lambda e: not all(keeps(fact, e.task) for fact in e.facts)) == []


@pytest.mark.parametrize("voice", VOICES)
def test_every_fact_is_kept_by_the_email(voice: str):
    assert faulty(voice, lambda e: not all(keeps(fact, e.email) for fact in e.facts)) == []


@pytest.mark.parametrize("voice", VOICES)
def test_no_example_holds_a_placeholder_or_an_open_slot(voice: str):
    assert faulty(voice, lambda e: PLACEHOLDER.search(e.task + e.email) or set("{}") & set(e.task + e.email)) == []


@pytest.mark.parametrize("voice", VOICES)
def test_every_email_has_a_subject_greeting_and_sign_off(voice: str):
    assert faulty(voice, lambda e: not e.email.startswith("Subject: ")) == []
    assert faulty(voice, lambda e: not (has_greeting(e.email) and has_sign_off(e.email))) == []


@pytest.mark.parametrize("voice", VOICES)
def test_every_email_ends_with_its_sender(voice: str):
    assert faulty(voice, lambda e: e.email.splitlines()[-1] != e.facts[-1][0]) == []


@pytest.mark.parametrize("voice", VOICES)
def test_an_example_says_its_voice_and_kind(voice: str):
    assert {example.voice for example in synthetic(voice)} == {voice}
    assert len({example.kind for example in synthetic(voice)}) >= 12


@pytest.mark.parametrize("voice", VOICES)
def test_the_facts_of_a_task_differ_from_one_another(voice: str):
    assert faulty(voice, lambda e: len(set(e.facts[:-1])) < len(e.facts) - 1) == []


def test_a_formal_email_uses_no_contraction():
    assert (
        faulty("formal", lambda e: any(f" {word}" in e.email for word in ("I'm ", "I'll ", "don't ", "we'll "))) == []
    )


@pytest.mark.parametrize("voice", VOICES)
def test_the_same_seed_gives_the_same_and_another_seed_gives_others(voice: str):
    assert synthetic_examples(voice, 20, seed=1) == synthetic_examples(voice, 20, seed=1)
    assert not {e.task for e in synthetic_examples(voice, 20, seed=1)} & {
        e.task for e in synthetic_examples(voice, 20, 2)
    }


@pytest.mark.parametrize("count", [0, 1, 50])
def test_as_many_as_asked_for_and_no_task_twice(count: int):
    assert len({example.task for example in synthetic_examples("formal", count, seed=0)}) == count


def test_every_task_of_the_pieces_names_every_slot():
    for kind in pieces("kinds"):
        for task in kind["tasks"]:
            missing = [slot for slot in kind["slots"] if f"{{{slot}}}" not in task]
            assert missing == [], f"{kind['kind']}: {task}"


@pytest.mark.parametrize("clause", pieces("clauses"), ids=lambda clause: clause["subjects"][0])
def test_every_phrase_of_a_clause_names_every_slot(clause: dict[str, Any]):
    slots = {f"{{{slot}}}" for slot in clause["slots"]}
    for phrase in (*clause["task"], *clause["formal"], *clause["friendly"]):
        assert set(re.findall(r"{\w+}", phrase)) == slots
    assert {named for subject in clause["subjects"] for named in re.findall(r"{\w+}", subject)} <= slots


@pytest.mark.parametrize("voice", VOICES)
def test_half_of_it_are_clauses_in_the_tasks_order(voice: str):
    strung = [example for example in synthetic(voice) if example.kind == "clauses"]
    assert 0.4 < len(strung) / EXAMPLES < 0.6
    for example in strung:
        said = body(example.email).lower()
        first, *_, last, _ = (fact[0].lower() for fact in example.facts)
        assert 0 <= said.find(first) < said.find(last), example
