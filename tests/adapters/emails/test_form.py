import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.form import (
    GREETING,
    MASK,
    PLACEHOLDER,
    body,
    has_greeting,
    has_sign_off,
    is_closing,
    word_grams,
)
from adapters.emails.rules import score
from adapters.emails.tasks import HELDOUT
from trainer.data.examples import SHIPPED_EMAILS

FILES = [HELDOUT, *sorted(SHIPPED_EMAILS.glob("*.jsonl"))]
ROWS = [row for file in FILES for row in map(json.loads, file.read_text("utf-8").splitlines()) if "email" in row]
EMAIL = "Subject: Thank you\n\nDear Ada,\n\nWe sat on your 12 chairs on May 14.\n\nKind regards,\nKim"
WORDS = st.lists(st.text("abcdefghij", min_size=1, max_size=6), min_size=1, max_size=30).map(" ".join)
PASSED_BEFORE = 431
"""All shipped emails but the one whose "four-legged friend" counts as an invented number."""


def told(row: dict) -> str:
    return "\n".join([*(text for turn in row.get("previous", []) for text in turn.values()), row["task"]])


def sendable(row: dict, email: str) -> bool:
    return score(row["task"], row["facts"], email, told(row)).sendable


def test_every_shipped_email_has_its_form_and_passes():
    assert len(ROWS) == 432
    assert all(has_greeting(row["email"]) and has_sign_off(row["email"]) for row in ROWS)
    assert sum(sendable(row, row["email"]) for row in ROWS) >= PASSED_BEFORE


def test_no_shipped_email_passes_when_its_closing_is_cut_off():
    """The closing is the first line of the last paragraph: without that line, and without that paragraph."""
    for row in ROWS:
        text, _, end = row["email"].rstrip().rpartition("\n\n")
        name = end.partition("\n")[2]
        for cut in (f"{text}\n\n{name}", text, f"{text}\n{name}"):
            assert not has_sign_off(cut), cut[-200:]
        assert not sendable(row, f"{text}\n\n{name}")


@pytest.mark.parametrize(
    "line",
    [
        "In case of rain we meet inside.",
        "All of us will be there.",
        "Best of all is the red one.",
        "Big boxes go to the loft.",
        "Until the paint is dry, use the back door.",
        "Take the bus to the harbour.",
        "With this, the roof is done.",
        "See the list below.",
        "See you in",
        "Talk to Ada about the boat.",
        "Many of the chairs are broken.",
        "Very few people came.",
        "Warm soup is served at noon.",
        "Kind people lent us chairs.",
        "Catch the 10:15 from Fernhill.",
        "Yours is the red one.",
        "Love the new chairs!",
        "Thank you for considering my request.",
        "Thanks to Anna we are done.",
        "Thanks for the boxes",
        "Thanks, as Ada says, for the boxes.",
        "Thanks for being flexible!",
        "Thanks and see the list",
        "Cheers went up in the hall.",
        "Sincerely sorry.",
        "Speak up.",
        "Bye-laws are attached.",
        "Regards the roof",
        "Best, as Ada says, is the red one.",
        "Day two is free.",
    ],
)
def test_an_ordinary_sentence_is_no_closing(line: str):
    assert not is_closing(line)
    assert not has_sign_off(f"Dear Ada,\n\nWe sat well.\n\n{line}\n\nKim")


@pytest.mark.parametrize(
    "line",
    [
        "With kind regards,",
        "Respectfully,",
        "Best regards,",
        "Cheers,",
        "All the best,",
        "Talk soon,",
        "Take care,",
        "Thanks again,",
        "Best,",
        "Sincerely",
        "Sincerely yours,",
        "Very truly yours,",
        "Yours faithfully,",
        "Yours in sympathy,",
        "With sincere apologies,",
        "With heartfelt thanks,",
        "Warmest regards,",
        "Many thanks",
        "Many thanks, Ada Byron",
        "Thanks, Bo.",
        "Many thanks and best wishes,",
        "Thanks and regards",
        "Thank you!",
        "Thank you so much!",
        "Thank you all,",
        "Thanks for everything,",
        "Thank you for your time and patience,",
        "Lots of love to you and the children,",
        "Love, as always,",
        "Love from Bremen",
        "Regards.",
        "See you on Friday,",
        "See you all there!",
        "Talk to you soon,",
        "Until next week,",
        "Have a great weekend!",
        "Bye for now,",
        "In gratitude,",
        "xx",
        "LG",
        "Beste Grüße,",
        "Viele Grüße aus Bremen",
        "Bien cordialement,",
        "Muchas gracias,",
        "Med vänliga hälsningar",
    ],
)
def test_a_closing_stands_alone_on_its_line(line: str):
    assert has_sign_off(f"Dear Ada,\n\nWe sat well.\n\n{line}\nKim\nFete committee")
    assert not has_greeting(f"{line}\nKim")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Dear Ada,", "Ada"),
        ("Hi Ada! We sat well.", "Ada"),
        ("Hey there,", "there"),
        ("Good morning, Ada", "Ada"),
        ("Sehr geehrte Frau Berg,", "Frau Berg"),
        ("Mr. O'Brien,", "Mr. O'Brien"),
        ("hello", None),
        ("To whom it may concern", None),
    ],
)
def test_a_greeting_names_who_is_greeted(line: str, name: str | None):
    greeting = GREETING.match(line)
    assert greeting
    assert (greeting["name"] or greeting["alone"]) == name


@pytest.mark.parametrize("line", ["Dearly missed", "Highly rated", "Hi-vis jackets are needed.", "Thank you."])
def test_no_greeting(line: str):
    assert not GREETING.match(line)


@given(WORDS)
def test_a_text_has_one_gram_a_word_but_the_last_four(text: str):
    words = text.split()
    assert len(word_grams(text)) <= max(0, len(words) - 4)
    assert bool(word_grams(text)) == (len(words) >= 5)


@pytest.mark.parametrize(
    "line",
    [
        "Dear Ada,",
        "Hi Ada!",
        "hello",
        "Hey there,",
        "Good morning, Ada",
        "To whom it may concern",
        "Ada,",
        "Mr. O'Brien,",
    ],
)
def test_a_greeting_in_the_first_lines(line: str):
    assert has_greeting(f"Subject: x\n\n{line}\n\nThank you for the chairs.")


@pytest.mark.parametrize(
    "text", ["", "Thank you for the chairs.", "Dearly missed\nHighly rated", "a\nb\nc\nd\nDear Ada,"]
)
def test_no_greeting_in_the_first_lines(text: str):
    assert not has_greeting(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Dear Ada,\n\nWe sat well.\n\nKim",
        "Best,\na\nb\nc\nd\ne",
        "Dear Ada,\n\nThank you for the twelve chairs that you lent to all of us in May.\n\nKim",
    ],
)
def test_no_sign_off_in_the_last_lines(text: str):
    assert not has_sign_off(text)


@pytest.mark.parametrize(
    "text",
    [
        "Dear [Name],",
        "[Your Name]",
        "{{name}}",
        "{first_name}",
        "<Your Name>",
        "Room ____",
        "on XX May",
        "(your name)",
        "Your Name",
        "Recipient's name",
    ],
)
def test_a_placeholder_is_seen(text: str):
    assert PLACEHOLDER.search(text)


@pytest.mark.parametrize(
    "text",
    [
        EMAIL,
        "It is 3 < 4 and 5 > 2.",
        "a_b",
        "[]",
        "(thank you)",
        "Sign there: __",
        "Your name is on the list.",
        "the statement (your ref VG-7)",
        "Love, Ada xx",
    ],
)
def test_a_plain_text_holds_no_placeholder(text: str):
    assert not PLACEHOLDER.search(text)


def test_the_body_is_the_email_without_its_subject():
    assert body(EMAIL).startswith("Dear Ada,")
    assert body("Dear Ada,\nSubject: no") == "Dear Ada,\nSubject: no"


def test_every_mask_counts_as_a_mask_and_as_a_placeholder():
    from trainer.text.personal_data import TAGS

    assert all(MASK.search(f"to {tag}.") and PLACEHOLDER.search(f"to {tag}.") for tag in TAGS.values())
