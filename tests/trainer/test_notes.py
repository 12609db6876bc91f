"""Notes for a task: what of the email they hold, and what they leave to the voice."""

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import SHIPPED_EMAILS, Example, read_examples, task_example
from trainer.facts import find_facts
from trainer.notes import from_notes
from trainer.rubric import body, copied_share, invented

VOICES = ("formal", "friendly")
CHAIRS = "Subject: Chairs\n\nDear Ada,\n\nI am glad to tell you that the 47 chairs are in your hall.\n\nBest,\nKim"


@cache
def noted(voice: str) -> list[tuple[Example, Example]]:
    """Every shipped email of the voice that notes can be made of, with them."""
    chance = random.Random(3)
    pairs = ((example, from_notes(example, chance)) for example in read_examples([SHIPPED_EMAILS / f"{voice}.jsonl"]))
    return [(example, new) for example, new in pairs if new]


@pytest.mark.parametrize("voice", VOICES)
def test_most_emails_have_notes_and_stay_as_they_are(voice: str):
    assert len(noted(voice)) > 80
    assert all((new.email, new.voice, new.thread) == (old.email, old.voice, old.thread) for old, new in noted(voice))
    assert all(len(new.messages) == 1 for _, new in noted(voice))


@pytest.mark.parametrize("voice", VOICES)
def test_hardly_a_fact_of_the_email_is_missing_from_its_notes(voice: str):
    """What is missing teaches to invent. A subject line may say more than the sentences do."""
    missing = sum(len(invented(body(new.email), new.task)) for _, new in noted(voice))
    assert missing < 0.02 * sum(len(find_facts(body(new.email))) for _, new in noted(voice))


@pytest.mark.parametrize("voice", VOICES)
def test_an_email_copies_little_of_its_notes(voice: str):
    assert max(copied_share(new.task, new.email) for _, new in noted(voice)) <= 0.25


def test_notes_leave_the_small_words_to_the_voice_and_speak_of_the_recipient():
    tasks = [new.task for seed in range(20) if (new := from_notes(task_example("x", CHAIRS), random.Random(seed)))]
    assert tasks
    assert all("47 chairs" in task and "Ada" in task and "Kim" in task for task in tasks)
    assert not any(word in task.replace("I'm Kim", "").split() for task in tasks for word in ("you", "your"))
    assert any(word in task.split() for task in tasks for word in ("his", "her", "their"))


@pytest.mark.parametrize(
    "email",
    [
        "See you on Monday.",
        "Dear Ada,\n\nBest,\nKim",
        "Dear Ada,\n\nThe 47 chairs are here.\n\nBest,",
        "Liebe Ada,\n\n47 Stühle stehen im Saal.\n\nViele Grüße\nKim",
    ],
)
def test_an_email_without_greeting_sentences_or_name_has_none(email: str):
    assert from_notes(task_example("x", email), random.Random(1)) is None


def test_an_email_in_another_language_would_be_copied_and_has_none():
    email = "Hello Ada,\n\nDie 47 Stühle stehen seit gestern im kleinen Saal neben der Küche.\n\nGruß\nKim"
    assert from_notes(task_example("x", email), random.Random(1)) is None


def test_an_answer_in_a_second_turn_has_none():
    second = task_example("Shorter.", CHAIRS, previous=[("Tell Ada about the chairs.", CHAIRS)])
    assert from_notes(second, random.Random(1)) is None


@given(st.text(alphabet="Aa.,\n !?Subject:DearYouM0-", max_size=200), st.integers(0, 9))
def test_any_email_has_notes_or_none(email: str, seed: int):
    new = from_notes(task_example("x", email), random.Random(seed))
    assert new is None or new.task
