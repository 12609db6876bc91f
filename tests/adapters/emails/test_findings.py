"""What speaks against an email, by rule; the tasks and emails are written for these tests."""

import pytest

from adapters.emails.findings import Finding, find

TASK = (
    "please tell Ada Byron that I'm ill, so the piano lesson has to move from Monday 2 June to Wednesday 4 June, "
    "5:40 pm, it is in room 6 as always. Kim Lee"
)
GOOD = (
    "Subject: Piano lesson\n\nDear Ms Byron,\n\nI am ill, and our piano lesson moves from Monday 2 June to Wednesday "
    "4 June, at 5:40 pm in room 6. I am sorry for the change, and I hope that it suits you well.\n\n"
    "Kind regards,\nKim Lee"
)


def kinds(email: str, task: str = TASK, ended: bool = True) -> list[str]:
    return [finding.kind for finding in find(task, email, ended=ended)]


def test_nothing_is_found_in_an_email_that_says_what_its_task_says():
    assert find(TASK, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (" at 5:40 pm", "", "missing"),
        ("room 6", "room 7", "invented"),
        ("Dear Ms Byron", "Dear Kim", "sender"),
        ("Kim Lee", "Ada Byron", "sender"),
        ("Kind regards,\n", "", "form"),
        ("Dear Ms Byron,\n\n", "", "form"),
        ("Kim Lee", "[Your Name]", "form"),
        ("I am sorry", "Please write an email to tell her that I am sorry", "order"),
        ("from Monday 2 June to Wednesday 4 June", "from Wednesday 4 June to Monday 2 June", "swapped"),
        ("from Monday 2 June to Wednesday 4 June", "to Monday 2 June instead of Wednesday 4 June", "swapped"),
    ],
)
def test_a_flaw_is_found(old: str, new: str, kind: str):
    assert old in GOOD
    assert kind in kinds(GOOD.replace(old, new))


def test_an_email_that_was_cut_off_is_found():
    assert kinds(GOOD, ended=False) == ["form"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Ms Byron", "Ada"),
        ("Wednesday 4 June", "4 June"),
        ("Monday 2 June", "Monday"),
        ("5:40 pm", "17:40"),
        ("room 6", "room six"),
        ("Kim Lee", "Kim"),
    ],
)
def test_a_fact_may_be_said_in_other_words(old: str, new: str):
    assert find(TASK, GOOD.replace(old, new)) == []


def test_listed_facts_count_in_place_of_those_found():
    facts = [["piano lesson"], ["metronome"]]
    assert find(TASK, GOOD, facts=facts) == [Finding("missing", "metronome", "'metronome' is missing.")]


def test_a_finding_names_its_words():
    (finding,) = find(TASK, GOOD.replace("room 6", "room 6, and bring 15 euros"))
    assert (finding.kind, finding.words) == ("invented", "15 euros")
    assert finding.sentence == "'15 euros' is not in the task."


def test_the_sender_of_a_revision_is_that_of_the_email_before():
    told = f"{TASK}\n\n{GOOD}\n\nShorter, please."
    shorter = "Dear Ms Byron,\n\nThe lesson is on Wednesday 4 June at 5:40 pm in room 6, not on Monday 2 June. "
    shorter += "I hope that this suits you well too.\n\nRegards,\n"
    assert kinds_told(told, f"{shorter}Kim Lee") == []
    assert kinds_told(told, f"{shorter}Ada Byron") == ["sender"]


def kinds_told(told: str, email: str) -> list[str]:
    return [finding.kind for finding in find("Shorter, please.", email, told)]
