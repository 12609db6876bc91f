"""Fields of the form -> a task as the voices know them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.tasks import keeps
from adapters.errors import DataError
from ui.parts.task_form import task_from_fields


def test_a_task_has_one_line_a_field():
    task = task_from_fields(
        recipient="Mr Tomasz Wieczorek",
        purpose="move the flute assessment",
        tone="kind but clear",
        points="was Monday 2 June\nnow Wednesday 4 June, 5:40 pm\n",
        sender="Nkechi Brightwell",
    )
    assert task == (
        "Email to Mr Tomasz Wieczorek\n"
        "- about: move the flute assessment\n"
        "- was Monday 2 June\n"
        "- now Wednesday 4 June, 5:40 pm\n"
        "- tone: kind but clear\n"
        "from: Nkechi Brightwell"
    )


def test_what_is_not_filled_in_leaves_no_line():
    assert (
        task_from_fields("Ada", "thank her for the 12 chairs") == "Email to Ada\n- about: thank her for the 12 chairs"
    )
    assert task_from_fields("Ada", "", points="the chairs were fine") == "Email to Ada\n- the chairs were fine"


def test_a_message_to_be_answered_stands_first_and_whole():
    task = task_from_fields(
        "Marisol Whelan",
        "",
        points="yes, 340 dollars",
        answered='Hello,\n\ndo you still have the "Osterlund" wheel?\nMarisol ',
        sender="Gideon",
    )
    assert task == (
        "Answer this email please: \"Hello,\n\ndo you still have the 'Osterlund' wheel?\nMarisol\"\n"
        "- to: Marisol Whelan\n"
        "- yes, 340 dollars\n"
        "from: Gideon"
    )
    assert "- to:" not in task_from_fields("", "say yes", answered="Do you still have it? Marisol")


@pytest.mark.parametrize("points", ["- one\n* two\n• three", "one\n\n  two  \nthree", "-one\r\n-two\r\n-three"])
def test_points_may_bring_bullets_of_their_own(points: str):
    assert task_from_fields("Ada", "say", points=points).splitlines()[2:] == ["- one", "- two", "- three"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"recipient": " ", "purpose": "say thanks"}, "recipient"),
        ({"recipient": "Ada", "purpose": " ", "points": "\n - \n"}, "nothing to say"),
        ({"recipient": "", "purpose": "", "answered": "Do you still have it?"}, "nothing to say"),
    ],
)
def test_an_email_to_nobody_or_about_nothing_is_refused(fields: dict[str, str], told: str):
    with pytest.raises(DataError, match=told) as refused:
        task_from_fields(**fields)
    assert refused.value.hint


WORDS = st.lists(st.text("abcde", min_size=1, max_size=5), min_size=1, max_size=5).map(" ".join)


@given(WORDS, WORDS, WORDS, st.lists(WORDS, max_size=3), WORDS)
def test_every_word_of_every_field_is_in_the_task(to: str, purpose: str, tone: str, points: list[str], sender: str):
    task = task_from_fields(to, purpose, tone, "\n".join(points), sender=sender)
    assert all(keeps([field], task) for field in (to, purpose, tone, *points, sender))
