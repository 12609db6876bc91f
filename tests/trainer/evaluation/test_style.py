import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.emails.tasks import HELDOUT
from trainer.data.examples import SHIPPED_EMAILS, read_examples
from trainer.evaluation.style import distance, distinct_2, identical_openings

TEXTS = st.lists(
    st.text("abcde \n", min_size=5, max_size=40).filter(lambda text: len(" ".join(text.split())) > 2),
    min_size=1,
    max_size=6,
)
EMAIL = "Subject: Chairs\n\nDear Ada,\n\nThank you for the twelve chairs.\n\nBest,\nKim"


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_distance_is_a_share_and_the_same_from_both_sides(answers: list[str], emails: list[str]):
    there = distance(answers, emails)
    assert there == pytest.approx(distance(emails, answers))
    assert there is not None
    assert 0 <= there <= 1


@settings(deadline=None)
@given(TEXTS)
def test_a_voice_is_no_distance_from_itself(texts: list[str]):
    assert distance(texts, texts) == pytest.approx(0, abs=1e-9)


def test_no_text_has_no_distance():
    assert distance([""], [EMAIL]) is None
    assert distance(["a    "], ["a    "]) is None
    assert distance([EMAIL], []) is None


def test_emails_in_the_same_voice_are_nearer_than_those_in_another():
    heldout = [example for example in read_examples([HELDOUT]) if example.voice == "formal"]
    formal, friendly = (
        [example.email for example in read_examples([SHIPPED_EMAILS / f"{voice}.jsonl"])][:40]
        for voice in ("formal", "friendly")
    )
    same, other = (distance(emails, [example.email for example in heldout]) for emails in (formal, friendly))
    assert same is not None
    assert other is not None
    assert same < other


def test_one_answer_again_and_again_has_identical_openings_and_few_pairs():
    assert identical_openings([EMAIL] * 4) == 1
    assert distinct_2([EMAIL] * 4) == 0.25
    assert distinct_2([EMAIL]) == 1


def test_the_greeting_and_the_subject_do_not_make_an_opening():
    other = EMAIL.replace("Ada", "Bo").replace("Chairs", "Thanks")
    assert identical_openings([EMAIL, other]) == 1
    assert identical_openings([EMAIL, other.replace("Thank you for", "We sat on")]) == 0
    assert identical_openings(["Dear Ada, thank you for the twelve chairs.", EMAIL]) == 1
    assert identical_openings(["We sat on the chairs today.", "We sat on the chairs tomorrow."]) == 1


def test_a_long_answer_is_judged_by_its_beginning():
    words = " ".join(f"w{n}" for n in range(50))
    assert distinct_2([f"{words} {words}"]) == 1


def test_of_no_answers_there_is_no_figure():
    assert identical_openings([]) is None
    assert distinct_2(["", "one"]) is None
