"""The emails that Mailwright ships, held to what issue 2 asks of them."""

import json
import re
from functools import cache
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import pytest

from adapters.emails.form import PLACEHOLDER, body, has_greeting, has_sign_off, word_grams
from adapters.emails.rules import score
from adapters.emails.tasks import HELDOUT, MORE_HELDOUT, keeps, normalise
from trainer.data.examples import SHIPPED_EMAILS, read_examples

VOICES = ("formal", "friendly")
HELDOUT_FILES = {"heldout": HELDOUT, "heldout_more": MORE_HELDOUT}
FILES = (*VOICES, *HELDOUT_FILES)
MOST_SHARED = 0.4
NUMBER = re.compile(r"\d+")
# `one` and `two` are left out: "one of them" and "the two of us" give no number.
NUMBER_WORDS = (
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
)

Row = dict[str, Any]


def path(file: str) -> Path:
    return HELDOUT_FILES.get(file) or SHIPPED_EMAILS / f"{file}.jsonl"


@cache
def rows(file: str) -> tuple[Row, ...]:
    return tuple(json.loads(line) for line in path(file).read_text(encoding="utf-8").splitlines())


def heldout() -> list[Row]:
    return list(chain(*map(rows, HELDOUT_FILES)))


@cache
def grams(email: str) -> frozenset[tuple[str, ...]]:
    return frozenset(word_grams(body(email)))


def told(row: Row) -> str:
    """All that the writer of the email was told: the task and the earlier turns."""
    turns = [text for turn in row.get("previous", []) for text in (turn["task"], turn["email"])]
    return "\n".join([*turns, row["task"]])


def shared(one: Row, other: Row) -> float:
    """The share of word 5-grams that two bodies share, of the shorter one."""
    shorter = min(len(grams(one["email"])), len(grams(other["email"])))
    return len(grams(one["email"]) & grams(other["email"])) / max(shorter, 1)


def ids(faulty: Any) -> list[str]:
    return [row["id"] for row in faulty]


@pytest.mark.parametrize("voice", VOICES)
def test_a_voice_has_120_examples_over_12_kinds_with_24_revisions(voice: str):
    assert len(rows(voice)) >= 120
    assert len({row["kind"] for row in rows(voice)}) >= 12
    assert sum("previous" in row for row in rows(voice)) >= 24
    assert {row["voice"] for row in rows(voice)} == {voice}


def test_48_tasks_are_held_out_with_8_revisions_in_both_voices():
    assert len(rows("heldout")) == 48
    assert sum("previous" in row for row in rows("heldout")) == 8
    assert [sum(row["voice"] == voice for row in rows("heldout")) for voice in VOICES] == [24, 24]


def test_96_more_are_held_out_with_replies_and_16_revisions():
    assert len(rows("heldout_more")) == 96
    assert sum("previous" in row for row in rows("heldout_more")) == 16
    assert sum('"' in row["task"] or ">" in row["task"] for row in rows("heldout_more")) >= 20


def test_held_out_kinds_are_kinds_of_the_training():
    trained = {row["kind"] for voice in VOICES for row in rows(voice)}
    assert {row["kind"] for row in heldout()} <= trained


@pytest.mark.parametrize("file", FILES)
def test_every_row_reads_as_one_example(file: str):
    assert [example.email for example in read_examples([path(file)])] == [row["email"] for row in rows(file)]


def test_ids_are_unique():
    every = ids(chain(*map(rows, FILES)))
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("file", FILES)
def test_every_row_has_facts(file: str):
    assert ids(row for row in rows(file) if len(row["facts"]) < 2 or not all(map(all, row["facts"]))) == []


@pytest.mark.parametrize("file", FILES)
def test_every_fact_is_kept_by_its_email(file: str):
    lost = [(row["id"], fact) for row in rows(file) for fact in row["facts"] if not keeps(fact, row["email"])]
    assert lost == []


@pytest.mark.parametrize("file", FILES)
def test_every_fact_was_told(file: str):
    invented = [(row["id"], fact) for row in rows(file) for fact in row["facts"] if not keeps(fact, told(row))]
    assert invented == []


@pytest.mark.parametrize("file", FILES)
def test_no_text_holds_a_placeholder(file: str):
    assert ids(row for row in rows(file) if PLACEHOLDER.search(told(row) + row["email"])) == []


@pytest.mark.parametrize("file", FILES)
def test_every_email_has_subject_greeting_and_sign_off(file: str):
    emails = [
        (row["id"], email)
        for row in rows(file)
        for email in (row["email"], *(t["email"] for t in row.get("previous", [])))
    ]
    wrong = [
        name
        for name, email in emails
        if not (email.startswith("Subject: ") and has_greeting(email) and has_sign_off(email))
    ]
    assert wrong == []


@pytest.mark.parametrize("file", FILES)
def test_the_rubric_gives_every_email_full_marks(file: str):
    assert ids(row for row in rows(file) if not score(row["task"], row["facts"], row["email"]).all_kept) == []


@pytest.mark.parametrize("file", FILES)
def test_an_email_gives_no_number_that_was_not_told(file: str):
    invented = [
        (row["id"], number) for row in rows(file) for number in sorted(numbers(row["email"]) - numbers(told(row)))
    ]
    assert invented == []


def numbers(text: str) -> set[int]:
    """Numbers in digits, and small ones in words; 3:40 pm is 3 and 40, and also 15."""
    plain = normalise(text).replace(",", "").replace("four-legged", "")
    found = {int(digits) for digits in NUMBER.findall(plain)}
    found |= {int(hour) + 12 for hour in re.findall(r"(\d+)(?:[:.]\d\d)? ?(?:pm|p\.m)", plain)}
    found |= {value for value, word in enumerate(NUMBER_WORDS, start=3) if re.search(rf"\b{word}\b", plain)}
    return found


def test_no_two_training_emails_share_many_words():
    every = [row for voice in VOICES for row in rows(voice)]
    assert [(a["id"], b["id"]) for a, b in combinations(every, 2) if shared(a, b) > MOST_SHARED] == []


def test_no_held_out_email_shares_many_words_with_another():
    trained = [row for voice in VOICES for row in rows(voice)]
    pairs = chain(product(heldout(), trained), combinations(heldout(), 2))
    assert [(a["id"], b["id"]) for a, b in pairs if shared(a, b) > MOST_SHARED] == []


def test_no_held_out_task_occurs_in_training():
    trained = {normalise(told(row)) for voice in VOICES for row in rows(voice)}
    assert ids(row for row in heldout() if normalise(told(row)) in trained) == []
    assert len({normalise(told(row)) for row in heldout()}) == 144


def test_no_held_out_task_shares_half_of_its_words_with_a_task_of_the_training():
    trained = [word_grams(told(row)) for voice in VOICES for row in rows(voice)]
    near = [
        row["id"]
        for row in heldout()
        if any(len(word_grams(told(row)) & other) > len(word_grams(told(row))) / 2 for other in trained)
    ]
    assert near == []


@pytest.mark.parametrize("file", FILES)
def test_emails_differ_in_length(file: str):
    lengths = sorted(len(row["email"].split()) for row in rows(file))
    assert lengths[-1] > 1.5 * lengths[0]


def test_an_invented_number_would_be_seen():
    assert numbers("Come at 3 pm, all eleven of you.") == {3, 15, 11}


def test_a_shared_passage_would_be_seen():
    one, other = ({"email": f"Subject: {n}\n\nDear Ada,\n\nWe sat well on your {n} chairs in May."} for n in ("a", "b"))
    assert shared(one, one) == 1.0
    assert 0.2 < shared(one, other) < 0.8
