import random
from functools import cache

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.form import PLACEHOLDER, has_greeting, has_sign_off
from adapters.emails.tasks import keeps
from trainer.data.augment import augment
from trainer.data.examples import SHIPPED_EMAILS, Example, read_examples, task_example

VOICES = ("formal", "friendly")


@cache
def varied(voice: str) -> list[tuple[Example, Example]]:
    """Every shipped example of the voice with a variation of it."""
    chance = random.Random(3)
    return [(example, augment(example, chance)) for example in read_examples([SHIPPED_EMAILS / f"{voice}.jsonl"])]


def asked(example: Example) -> str:
    return "\n".join(message["content"] for message in example.messages)


@pytest.mark.parametrize("voice", VOICES)
def test_a_varied_email_keeps_its_varied_facts(voice: str):
    assert [new.email for _, new in varied(voice) if not all(keeps(fact, new.email) for fact in new.facts)] == []


@pytest.mark.parametrize("voice", VOICES)
def test_a_varied_fact_was_told(voice: str):
    assert [asked(new) for _, new in varied(voice) if not all(keeps(fact, asked(new)) for fact in new.facts)] == []


@pytest.mark.parametrize("voice", VOICES)
def test_a_varied_email_is_as_proper_as_it_was(voice: str):
    assert all(has_greeting(new.email) and has_sign_off(new.email) for _, new in varied(voice))
    assert [
        new.email for old, new in varied(voice) if PLACEHOLDER.search(new.email) and not PLACEHOLDER.search(old.email)
    ] == []


@pytest.mark.parametrize("voice", VOICES)
def test_most_examples_get_other_facts_and_keep_their_kind_and_voice(voice: str):
    assert sum(old.facts != new.facts for old, new in varied(voice)) > 0.9 * len(varied(voice))
    assert all((old.kind, old.voice) == (new.kind, new.voice) for old, new in varied(voice))


def test_a_value_is_replaced_by_the_same_one_everywhere():
    example = task_example("Tell Ada: 47 chairs on Friday. Kim", "Dear Ada,\n\n47 chairs, on Friday.\n\nBest,\nKim")
    new = augment(example, random.Random(1))
    number, day = new.task.split("Tell ")[1].split()[1], new.task.split()[5].rstrip(".")
    assert f"{number} chairs, on {day}." in new.email
    assert number != "47"


def test_words_of_the_email_alone_stay_as_they_are():
    example = task_example("Thank Ada. Kim", "Dear Ada,\n\nSee you on Monday at 9.\n\nBest,\nKim")
    assert "See you on Monday at 9." in augment(example, random.Random(1)).email


def test_the_same_seed_varies_the_same():
    example = task_example("Tell Ada: 47 chairs. Kim", "Dear Ada,\n\n47 chairs.\n\nBest,\nKim")
    assert augment(example, random.Random(1)) == augment(example, random.Random(1))


@hypothesis.example("\u00b20", "\u00b20", 0)  # a digit by its kind, and no number
@given(st.text(), st.text(), st.integers())
def test_no_text_is_too_odd_to_augment(task: str, email: str, seed: int):
    new = augment(task_example(task, email), random.Random(seed))
    assert len(new.messages) == 1
    assert new.email.count("\n") == email.strip().count("\n")


@pytest.mark.parametrize(("greeting", "kept"), [("Dear Grace Obuya,", ""), ("Dear Professor Roth,", "Professor")])
def test_of_who_is_greeted_only_a_title_stays(greeting: str, kept: str):
    example = task_example(f"Write to {greeting[5:-1]}.", f"{greeting}\n\nThe chairs are here.\n\nBest,\nKim")
    words = augment(example, random.Random(1)).email.split(",")[0].split()[1:]
    assert [word for word in words if word in greeting] == kept.split()
