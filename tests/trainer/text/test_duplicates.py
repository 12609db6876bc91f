from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.text.duplicates import clusters, exact_clusters, merged

# The first call of a process loads datasketch.
unhurried = settings(deadline=None)
WORDS = [f"word{number}" for number in range(60)]
EMAIL = " ".join(WORDS)


def changed(words: list[str], *places: int) -> str:
    return " ".join(f"new{at}" if at in places else word for at, word in enumerate(words))


@pytest.mark.parametrize(
    "other",
    [
        "dear ada,\n\nthe  kites are HERE",
        "Dear Ada, the kites are here.",
        "“Dear Ada, the kites are here!”",
        " Dear Ada,\nthe kites are here",
    ],
)
def test_case_spaces_quotes_and_ends_make_no_other_text(other: str):
    texts = ["Dear Ada, the kites are here", "Dear Bo, the kites are here", other]
    assert exact_clusters(texts) == [[0, 2]]
    assert [0, 2] in clusters(texts)


def test_punctuation_within_a_text_makes_another_one():
    assert exact_clusters(["At 3.40, Ada", "At 340, Ada"]) == []


@pytest.mark.parametrize("length", [10, 15, 20, 35, 49, 50, 60])
def test_one_word_of_ten_or_more_may_differ(length: int):
    words = WORDS[:length]
    assert clusters([" ".join(words), changed(words, length // 2)]) == [[0, 1]]
    assert clusters([" ".join(words), " ".join(words[:-1])]) == [[0, 1]]


@pytest.mark.parametrize("length", [2, 10, 20, 60])
def test_a_third_of_the_words_may_not(length: int):
    words = WORDS[:length]
    assert clusters([" ".join(words), changed(words, *range(0, length, 3))]) == []


def test_the_order_of_words_counts_in_a_longer_text():
    assert clusters([EMAIL, " ".join(reversed(WORDS))]) == []


def test_near_duplicates_of_near_duplicates_are_one_cluster():
    chain = [changed(WORDS, *range(end)) for end in (0, 2, 4, 6, 8)]
    assert clusters([chain[0], chain[-1]]) == []
    assert clusters(chain) == [[0, 1, 2, 3, 4]]


def test_clusters_are_sorted_and_singles_are_left_out():
    other = " ".join(reversed(WORDS))
    assert clusters([other, EMAIL, "alone", changed(WORDS, 3), other.upper(), EMAIL]) == [[0, 4], [1, 3, 5]]


def test_hundreds_of_copies_are_one_cluster():
    copies = [f"{EMAIL} {number}" for number in range(300)]
    assert clusters(copies) == [list(range(300))]


@pytest.mark.parametrize("texts", [[], [""], ["€", "£"], ["a", "b"]])
def test_texts_with_hardly_a_word_are_no_duplicates(texts: list[str]):
    assert clusters(texts) == []


TEXTS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=15).map(" ".join), max_size=12)


@given(TEXTS)
@unhurried
def test_clusters_are_apart_and_hold_every_exact_one(texts: list[str]):
    found = clusters(texts)
    members = [index for cluster in found for index in cluster]
    assert len(members) == len(set(members))
    assert all(cluster == sorted(cluster) and len(cluster) > 1 for cluster in found)
    assert all(any(set(exact) <= set(cluster) for cluster in found) for exact in exact_clusters(texts))


@given(TEXTS)
@unhurried
def test_copies_are_always_found(texts: list[str]):
    count = len(texts)
    together = {pair for cluster in clusters(texts + texts) for pair in combinations(cluster, 2)}
    assert {(index, index + count) for index in range(count)} <= together


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=6))
def test_merged_groups_share_nobody_and_split_nobody(groups: list[list[int]]):
    found = merged(10, groups)
    assert len({member for group in found for member in group}) == sum(map(len, found))
    assert all(len(set(group)) == 1 or any(set(group) <= set(whole) for whole in found) for group in groups)
