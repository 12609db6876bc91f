"""Which words are marked as being on one side only."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.diff import differences

TEXT = st.one_of(
    st.text(), st.lists(st.sampled_from(["Dear", "Ada", ",", " ", "\n\n", "10:15", "can't", "£68.50"])).map("".join)
)
FEW_WORDS = st.lists(st.sampled_from("abcd"), max_size=9)


def marked(left: str, right: str) -> tuple[list[str], list[str]]:
    both = differences(left, right)
    return [text for text, mark in both[0] if mark], [text for text, mark in both[1] if mark]


@given(TEXT, TEXT)
def test_the_spans_joined_are_the_texts_letter_for_letter(left: str, right: str):
    spans = differences(left, right)
    assert ["".join(text for text, _ in side) for side in spans] == [left, right]
    assert {mark for _, mark in spans[0]} <= {None, "only left"}
    assert {mark for _, mark in spans[1]} <= {None, "only right"}


@given(TEXT)
def test_a_text_does_not_differ_from_itself(text: str):
    assert marked(text, text) == ([], [])


@given(TEXT, TEXT)
def test_no_span_is_empty_and_neighbours_differ_in_their_mark(left: str, right: str):
    for side in differences(left, right):
        assert all(text for text, _ in side)
        assert all(one != other for (_, one), (_, other) in pairwise(side))


@given(FEW_WORDS, FEW_WORDS)
def test_what_is_not_marked_is_the_longest_that_both_have_in_order(left: list[str], right: list[str]):
    kept = [
        [word for text, mark in side if mark is None for word in text.split()]
        for side in differences(" ".join(left), " ".join(right))
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == longest_common(left, right)


def longest_common(left: list[str], right: list[str]) -> int:
    """By the textbook's table, slowly."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = row[:]
        for i, other in enumerate(right):
            row[i + 1] = before[i] + 1 if word == other else max(before[i + 1], row[i])
    return row[-1]


@pytest.mark.parametrize(
    ("left", "right", "only_left", "only_right"),
    [
        ("Dear Ada, thanks.", "Hi Ada, thanks.", ["Dear"], ["Hi"]),
        ("Come at 10:15 am.", "Come at 10:45 am.", ["10:15"], ["10:45"]),
        ("I can't come", "I can come", ["can't"], ["can"]),
        ("See you on Friday", "See you", ["on Friday"], []),
        ("", "Dear Ada,", [], ["Dear Ada,"]),
        ("a\n\nb", "a b", [], []),
        ("£68.50 is due", "£70 is due", ["68.50"], ["70"]),
    ],
)
def test_words_and_numbers_are_marked_whole_and_white_space_never_alone(
    left: str, right: str, only_left: list[str], only_right: list[str]
):
    assert marked(left, right) == (only_left, only_right)


# difflib takes 54 s for the second pair: such a defect runs into the timeout.
@pytest.mark.timeout(20, func_only=True)  # not the end of the session, which may fall to the last test
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (" ".join(f"word{i}" for i in range(2000)), " ".join(f"word{i}" for i in range(0, 4000, 2))),
        ("the " * 2000, "the a " * 1000),
        ("I am writing to you. " * 400, "I am writing to ask you. " * 400),
    ],
    ids=["different", "one word again and again", "one sentence again and again"],
)
def test_2000_words_against_2000_are_quick(left: str, right: str):
    spans = differences(left, right)
    assert "".join(text for text, _ in spans[0]) == left
