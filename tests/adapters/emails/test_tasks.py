"""The shipped tasks, and when a fact counts as kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.tasks import HELDOUT, keeps, normalise, shipped_tasks

WORDS = st.lists(st.text("abcdefghij", min_size=1, max_size=6), min_size=1, max_size=30).map(" ".join)


def test_48_tasks_come_in_the_order_of_their_file_with_facts_that_they_tell():
    tasks = shipped_tasks()
    assert [task.id for task in tasks] == [f"heldout-{number:02}" for number in range(1, 49)]
    for task in tasks:
        told = " ".join([text for turn in task.previous for text in turn] + [task.task])
        assert task.facts
        assert all(keeps(fact, told) for fact in task.facts)


def test_96_more_tasks_come_where_every_task_is_asked_for():
    tasks = shipped_tasks(every=True)
    assert tasks[:48] == shipped_tasks()
    assert [task.id for task in tasks[48:]] == [f"heldout-{number:03}" for number in range(49, 145)]


def test_a_revision_brings_the_exchange_that_it_revises():
    revisions = [task for task in shipped_tasks() if task.previous]
    assert len(revisions) == 8
    rows = {row["id"]: row for row in map(json.loads, HELDOUT.read_text(encoding="utf-8").splitlines())}
    for task in revisions:
        (turn,) = rows[task.id]["previous"]
        assert task.previous == ((turn["task"], turn["email"]),)


def test_a_fact_counts_in_any_of_its_spellings():
    assert keeps(["14 May", "May 14"], "See you on May 14.")
    assert not keeps(["14 May", "May 14"], "See you in May.")


@pytest.mark.parametrize(
    ("fact", "answer"),
    [
        ("12", "We need 123 chairs."),
        ("12", "We need 212 chairs."),
        ("Ann", "Dear Anna,"),
        ("room 7", "Come to room 70."),
        ("9 am", "I'll be at 9 amber street."),
        ("4 May", "See you on 14 May."),
    ],
)
def test_a_fact_inside_a_longer_word_does_not_count(fact: str, answer: str):
    assert not keeps([fact], answer)


@pytest.mark.parametrize(
    ("fact", "answer"), [("300", "It costs 9,300 euros."), ("£68", "We refund £68.50."), ("3 pm", "Come at 10.3 pm.")]
)
def test_a_number_inside_a_longer_number_does_not_count(fact: str, answer: str):
    assert not keeps([fact], answer)


@pytest.mark.parametrize(
    "answer", ["Come at 5.", "(5)", "5, please", '"5"', "5", "at 5!", "at\n5\nsharp", "5-ish", "room-5", "5's"]
)
def test_punctuation_and_line_ends_are_word_boundaries(answer: str):
    assert keeps(["5"], answer)


@pytest.mark.parametrize(
    ("fact", "answer"),
    [
        ("O'Brien", "Dear Ms O’Brien,"),
        ("O’Brien", "Dear Ms O'Brien,"),
        ("9-11 am", "from 9–11 am"),
        ("9–11 am", "from 9—11 am"),
        ('"Tides"', "the book “Tides” is"),
        ("5 pm", "at 5\u00a0pm"),
        ("6 300", "6\u202f300 euros"),
        ("Ada Byron", "Dear ada\n  BYRON,"),
        ("$6,300", "It is $6,300."),
        ("12 %", "12 % off"),
        ("C++", "We use C++ here"),
        ("ada@example.org", "Write to ada@example.org."),
        ("Лев", "Привет, Лев!"),
    ],
)
def test_quotes_dashes_spaces_and_case_do_not_matter(fact: str, answer: str):
    assert keeps([fact], answer)


@given(WORDS, WORDS, WORDS)
def test_words_that_stand_in_the_answer_are_always_kept(before: str, fact: str, after: str):
    assert keeps([fact], f"{before} {fact.upper()}, {after}")


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str):
    assert normalise(normalise(text)) == normalise(text)
