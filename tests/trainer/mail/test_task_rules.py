from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.tasks import keeps
from trainer.mail.message import Mail
from trainer.mail.task_rules import (
    CUT,
    MAX_ANSWERED_CHARACTERS,
    MAX_FACTS,
    Request,
    TooManyFacts,
    email_of,
    request,
    request_phrases,
    shortened,
)

TEXT = (
    "Hi Anna,\n\nCan we meet on Thursday 14 May at 3 pm in room 214? I have 12 forms and 3 large boxes from Harrow "
    "Lock, which cost £40.\n\nBest,\nBob"
)
MAIL = Mail("m@x", "bob@smith.example", "Bob Smith", (("Anna Berg", "anna@berg.example"),), "Forms", None, (), TEXT, "")


def asked(mail: Mail = MAIL, answered: str = "", by: str = "", seed: str = "0") -> Request:
    return request(mail, answered, by, seed)


@pytest.mark.parametrize("seed", [str(n) for n in range(12)])
def test_a_request_says_to_whom_about_what_which_facts_and_from_whom(seed: str):
    found = asked(seed=seed)
    for told in (
        "Anna Berg",
        "Forms",
        "Thursday 14 May",
        "3 pm",
        "room 214",
        "12 forms",
        "3 large boxes",
        "£40",
        "Bob Smith",
    ):
        assert told in found.task
    assert found.whole == found.task


def test_every_fact_stands_in_task_and_email_the_tasks_spelling_first():
    found = asked()
    assert found.facts[:2] == (("Anna Berg", "Anna"), ("Bob Smith", "Bob"))
    assert [fact for fact in found.facts if "14 May" in fact[0]]
    assert all(keeps(fact[:1], found.task) and keeps(fact, email_of(MAIL, answers=False)) for fact in found.facts)


def test_phrasings_differ_from_email_to_email_and_are_the_same_for_the_same_seed():
    tasks = {asked(replace(MAIL, message_id=f"{n}")).task for n in range(40)}
    assert len(tasks) > 15
    assert {task.startswith(("Turn", "Notes", "Make")) for task in tasks} == {True, False}
    assert asked() == asked()


@pytest.mark.parametrize(
    ("greeting", "recipient"),
    [
        ("Hi Anna,", "Anna Berg"),
        ("Dear Mrs Berg,", "Mrs Berg"),
        ("Hi Annie!", "Annie"),
        ("Hello,", "Anna Berg"),
        ("Hi all,", "Anna Berg"),
        ("Hi there,", "Anna Berg"),
        ("Thanks,", "Anna Berg"),
        ("Hi Anna, it is blue.", "Anna Berg"),
        ("Anna,", "Anna Berg"),
        ("The boat is red, as you see it there,", "Anna Berg"),
    ],
)
def test_the_recipient_is_called_as_the_writer_does(greeting: str, recipient: str):
    task = asked(replace(MAIL, text=f"{greeting}\n\nIt is red.")).task
    assert task in [opening.format(to=recipient, subject="Forms") for opening in request_phrases()["openings"]]


def test_an_address_without_a_name_stands_for_one():
    assert "Anna Berg" in asked(replace(MAIL, recipients=(("", "anna.berg@x.example"),), text="It is red.")).task


def test_several_people_greeted_together_are_not_one_of_them():
    both = (*MAIL.recipients, ("Ines Duarte", "ines@x.example"))
    assert "team" in asked(replace(MAIL, recipients=both, text="Dear team,\n\nIt is red.")).task


def test_an_email_that_is_not_signed_asks_for_no_name():
    assert "Bob" not in asked(replace(MAIL, text="Hi Anna,\n\nIt is red.")).task


def test_a_reply_shows_the_message_and_asks_only_for_what_that_does_not_say():
    question = "Hi Bob,\n\nis Thursday 14 May at 3 pm fine? Do you bring the forms from Harrow Lock?\n\nAnna"
    found = asked(replace(MAIL, subject="Re: Forms"), question, "Anna Berg")
    assert found.whole.startswith(found.task)
    assert "Reply to this email from Anna Berg:\n> Hi Bob,\n>\n> is Thursday 14 May" in found.whole
    assert "14 May" not in found.task
    assert "Harrow" not in found.task
    assert "12 forms" in found.task
    assert not [fact for fact in found.facts if "14 May" in fact[0]]


def test_re_is_learned_only_where_a_message_is_shown():
    mail = replace(MAIL, subject="Re: Forms")
    assert email_of(mail, answers=True).startswith("Subject: Re: Forms\n\nHi Anna")
    assert email_of(mail, answers=False).startswith("Subject: Forms\n\nHi Anna")
    assert email_of(replace(mail, subject=""), answers=False) == TEXT


def test_a_long_message_is_cut_at_a_line():
    text = "\n".join(f"This is line {n} of what they wrote." for n in range(100))
    cut = shortened(text)
    assert len(cut) <= MAX_ANSWERED_CHARACTERS + len(CUT) + 1
    assert cut.endswith(f"wrote.\n{CUT}")
    assert shortened("short") == "short"
    assert len(shortened("x" * 9000)) <= MAX_ANSWERED_CHARACTERS + len(CUT) + 1


def test_more_facts_than_anybody_types_make_no_request():
    many = "Hi Anna,\n\nThese are " + ", ".join(f"{n}21 boats" for n in range(1, MAX_FACTS + 2)) + ".\n\nBob"
    with pytest.raises(TooManyFacts):
        asked(replace(MAIL, text=many))


def test_german_nouns_are_no_names():
    text = "Liebe Anna,\n\ndie Fähre fährt am Morgen um 8:20 über den Fluß und hält an der Brücke.\n\nViele Grüße\nBob"
    task = asked(replace(MAIL, text=text)).task
    assert "8:20" in task
    assert "Fluß" not in task


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=300), st.text(max_size=30))
def test_whatever_a_stranger_writes_makes_a_request(subject: str, name: str, text: str, writer: str):
    mail = replace(MAIL, subject=subject, recipients=((name, "x@y.example"),), text=text, sender_name=writer)
    with suppress(TooManyFacts):
        assert asked(mail, text, name).task


@pytest.mark.parametrize("name", ["{0}", "{to}", "%s", "\\1"])
def test_a_name_is_no_template(name: str):
    assert name in asked(replace(MAIL, subject="", recipients=((name, "x@y.example"),), text="It is red.")).task
