import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.form import word_grams
from adapters.emails.rules import PREAMBLE, copied_share, has_subject, repeats, score

TASK = "Thank Ada Byron for the 12 chairs that she lent us on 14 May, I'm Kim."
FACTS = [["Ada Byron", "Ada"], ["12 chairs"], ["14 May", "May 14"]]
EMAIL = (
    "Subject: Thank you\n\nDear Ada,\n\nWe sat on your 12 chairs on May 14, and everybody was glad of them all evening."
    "\n\nKind regards,\nKim"
)
WORDS = st.lists(st.text("abcdefghij", min_size=1, max_size=6), min_size=1, max_size=30).map(" ".join)


@given(st.text(), st.text())
def test_marking_never_fails_and_stays_in_bounds(task: str, answer: str):
    marks = score(task, [["a"], ["b", "c"]], answer)
    assert 0 <= marks.facts_kept <= marks.facts == 2
    assert 0 <= copied_share(task, answer) <= 1


def test_a_proper_email_gets_a_mark_for_every_fact():
    marks = score(TASK, FACTS, EMAIL)
    assert (marks.facts, marks.facts_kept, marks.all_kept, marks.placeholder) == (3, 3, True, False)


def test_a_lost_fact_costs_one_mark():
    marks = score(TASK, FACTS, EMAIL.replace("12 chairs", "chairs"))
    assert (marks.facts_kept, marks.all_kept) == (2, False)


def test_an_answer_that_copies_the_task_keeps_nothing():
    copied = f"Dear Ada,\n\n{TASK}\n\nKind regards,\nKim"
    assert copied_share(TASK, copied) == 1.0
    assert score(TASK, FACTS, copied).facts_kept == 0


def test_half_of_the_task_may_be_copied_and_no_more():
    words = TASK.split()
    half = f"Dear Ada,\n\n{' '.join(words[:10])}\n\nKind regards,\nKim"
    assert 0 < copied_share(TASK, half) <= 0.5
    assert score(TASK, FACTS, half).facts_kept == 2
    more = f"Dear Ada,\n\n{' '.join(words[:12])}\n\nKind regards,\nKim"
    assert copied_share(TASK, more) > 0.5
    assert score(TASK, FACTS, more).facts_kept == 0


@given(WORDS)
def test_a_text_copies_itself_whole_and_nothing_of_an_empty_one(text: str):
    assert copied_share(text, text) == (1.0 if word_grams(text) else 0.0)
    assert copied_share(text, "") == 0.0


@pytest.mark.parametrize("missing", ["Dear Ada,\n", "Kind regards,\n"])
def test_an_answer_without_greeting_or_sign_off_keeps_nothing(missing: str):
    assert score(TASK, FACTS, EMAIL.replace(missing, "")).facts_kept == 0


@pytest.mark.parametrize("answer", ["", "I cannot help with that.", TASK])
def test_what_is_no_email_keeps_nothing(answer: str):
    assert score(TASK, FACTS, answer).facts_kept == 0


def test_a_placeholder_is_marked_beside_the_facts():
    marks = score(TASK, FACTS, EMAIL.replace("\nKim", "\n[Your Name]"))
    assert marks.placeholder
    assert marks.facts_kept == 3


def test_an_email_that_could_be_sent_passes():
    marks = score(TASK, FACTS, EMAIL)
    assert marks.sendable
    assert (marks.stated, marks.invented, marks.subject, marks.length_ok) == (4, 0, True, True)


@pytest.mark.parametrize(
    ("old", "new", "mark"),
    [
        ("Dear Ada,", "", "greeting"),
        ("Kind regards,", "", "sign_off"),
        ("\nKim", "\n[Your Name]", "placeholder"),
        ("\nKim", "\n[EMAIL]", "mask"),
        ("12 chairs", "chairs", "all_kept"),
        ("May 14", "May 14, at 3 pm", "invented"),
        ("May 14", "May 14, with Bo", "invented"),
        ("all evening", "all the long evening, all the long evening, all the long evening", "repeats"),
        ("Subject", "Sure! Here's the email:\n\nSubject", "preamble"),
        (", and everybody was glad of them all evening", "", "length_ok"),
        ("all evening", "all evening," + " and so on" * 90, "length_ok"),
        ("We sat", f"{TASK} We sat", "copied"),
    ],
)
def test_one_flaw_is_enough_to_fail_and_has_its_own_mark(old: str, new: str, mark: str):
    good, bad = score(TASK, FACTS, EMAIL), score(TASK, FACTS, EMAIL.replace(old, new))
    assert not bad.sendable
    assert getattr(bad, mark) != getattr(good, mark)


def test_an_email_that_is_cut_does_not_pass():
    assert not score(TASK, FACTS, EMAIL, ended=False).sendable


def test_an_email_without_a_subject_passes_and_says_so():
    marks = score(TASK, FACTS, EMAIL.removeprefix("Subject: Thank you\n\n"))
    assert (marks.sendable, marks.subject) == (True, False)


def test_a_copy_of_a_task_without_facts_does_not_pass():
    assert not score(TASK, [], EMAIL.replace("We sat", f"{TASK} We sat")).sendable


def test_what_an_earlier_turn_told_is_not_invented():
    assert score("Shorter.", FACTS, EMAIL).invented > 0
    assert score("Shorter.", FACTS, EMAIL, told=f"{TASK}\nShorter.").invented == 0


@pytest.mark.parametrize(("subject", "fine"), [("", False), ("Subject:", False), (78 * "x", True), (79 * "x", False)])
def test_a_subject_line_is_there_and_short(subject: str, fine: bool):
    line = subject if subject.startswith("Subject") or not subject else f"Subject: {subject}"
    assert has_subject(f"{line}\n\nDear Ada,") == fine


def test_a_subject_line_stands_before_everything():
    assert not has_subject("Dear Ada,\nSubject: chairs")


@given(WORDS)
def test_what_is_said_three_times_is_repeated(text: str):
    long = len(text.split()) >= 4
    assert repeats(f"{text} . {text} . {text}") or not long


@given(st.lists(st.integers(), unique=True, max_size=60))
def test_different_words_are_no_repetition(numbers: list[int]):
    assert not repeats(" ".join(f"w{number}" for number in numbers))


@pytest.mark.parametrize(
    "text",
    [
        "Sure! Here's the email:",
        "Certainly, here is a draft.",
        "Here is a formal email to Ada:",
        "Here's your email:",
        "Below is the email that you asked for.",
        "I'd be happy to help!",
        "As an AI language model, I",
    ],
)
def test_a_preamble_is_seen(text: str):
    assert PREAMBLE.match(text)


@pytest.mark.parametrize("text", [EMAIL, "Dear Ada,", "Hi Ada, sure!", "Here's to the chairs", "Great-aunt Ada,"])
def test_an_email_has_no_preamble(text: str):
    assert not PREAMBLE.match(text)
