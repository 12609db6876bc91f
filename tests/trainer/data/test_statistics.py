from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import statistics

EMAIL = "Subject: Chairs\n\nDear Ada,\n\nThank you for the twelve chairs.\n\nKind regards,\nKim"


@given(st.lists(st.integers(1, 20_000), min_size=1))
def test_a_histogram_counts_every_example_once_in_bars_without_gaps(counts: list[int]):
    tokens = statistics.tokens(counts)
    assert sum(bar[2] for bar in tokens.histogram) == len(counts)
    assert all(left[1] == right[0] for left, right in pairwise(tokens.histogram))
    assert tokens.histogram[0][0] <= tokens.shortest <= tokens.median <= tokens.longest < tokens.histogram[-1][1]
    assert len(tokens.histogram) <= statistics.MAX_BINS
    assert tokens.total == sum(counts)


def test_variety_counts_different_words_and_pairs():
    variety = statistics.variety(["kite kite kite", "kite kite"])
    assert (variety.distinct_1, variety.distinct_2) == (0.2, 0.3333)


def test_variety_counts_the_commonest_opening_and_close():
    openings = ["May I ask you to come?", "may i  ask you to sing?", "We sat on your chairs again.", "Yes."]
    closings = ["Kind regards,", "Kind regards", "Love,", "Nothing that closes an email like this"]
    emails = [f"Dear Ada,\n\n{opening}\n\n{closing}\nKim" for opening, closing in zip(openings, closings, strict=True)]
    variety = statistics.variety(emails)
    assert (variety.opening, variety.sign_off) == (0.5, 0.5)


def test_an_opening_is_what_comes_after_subject_and_greeting():
    assert statistics.opening(EMAIL) == "thank you for the twelve"
    assert statistics.opening("Hi Ada, thank you for the twelve chairs.") == "hi ada, thank you for"
    assert statistics.opening("Dear Ada,\n\nYes.") == ""


def test_of_no_emails_there_is_nothing_to_say():
    assert statistics.variety([]) == statistics.Variety(0, 0, 0, 0)
    assert statistics.languages([]) == statistics.Languages(0, {})
    assert statistics.personal([]) == {}


def test_languages_are_told_of_emails_that_are_long_enough():
    english = (
        "Thank you very much for the twelve chairs that you lent us for the fete on the fourteenth of May, they were "
        "all needed."
    )
    german = (
        "Vielen Dank für die zwölf Stühle, die Sie uns für das Fest am vierzehnten Mai geliehen haben, wir brauchten "
        "wirklich jeden davon."
    )
    assert statistics.languages([english, english, german, "Danke!"]) == statistics.Languages(3, {"en": 2, "de": 1})


def test_many_emails_are_sampled():
    assert statistics.languages(["word " * 20] * 500).asked == statistics.MAX_CLASSIFIED_EMAILS


@pytest.mark.parametrize(
    "email",
    [
        "Dear Ada,\n\nWe sat on the chairs and then we",
        "Dear Ada,\n\nWe sat on the chairs, ate, drank,",
        "Dear Ada,\n\nThe kites were up and -",
    ],
)
def test_an_email_that_ends_within_a_sentence_breaks_off(email: str):
    assert statistics.breaks_off(email)


@pytest.mark.parametrize(
    "email",
    [
        "",
        EMAIL,
        "Dear Ada,\n\nWe sat on the chairs.",
        "Dear Ada,\n\nWe sat on the chairs.\n\nyour kim",
        "Dear Ada,\n\nWe sat on the chairs all day, says Kim Byron",
        "Dear Ada,\n\nPlease call me tonight on 5550161",
        "Dear Ada,\n\nWe sat well.\n\nLove,\nKim of the kites and chairs",
        "Dear Ada,\n\nThe plan is at https://kite.example/plan",
    ],
)
def test_a_whole_email_does_not(email: str):
    assert not statistics.breaks_off(email)


def test_personal_data_is_counted_by_kind():
    assert statistics.personal([f"{EMAIL}\nada@kite.example", "bo@kite.example, 212-555-0123"]) == {
        "address": 2,
        "phone": 1,
    }
