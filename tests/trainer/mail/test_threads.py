from dataclasses import replace

from trainer.mail.message import Mail
from trainer.mail.threads import thread_keys

MAIL = Mail("", "bob@x.example", "Bob", (("Anna", "anna@x.example"),), "Oars", None, (), "text", "")


def mail(message_id: str = "", *references: str, subject: str = "", to: str = "anna@x.example") -> Mail:
    return replace(MAIL, message_id=message_id, references=references, subject=subject, recipients=(("", to),))


def test_emails_that_refer_to_one_another_are_one_thread_even_where_one_is_missing():
    one, other, third, alone = thread_keys([mail("a"), mail("c", "a", "b"), mail("d", "b"), mail("e")])
    assert one == other == third != alone


def test_without_references_subject_and_people_tell_the_thread():
    first, answer, other_people, other_subject = thread_keys(
        [
            mail(subject="Oars"),
            mail(subject="RE: oars"),
            mail(subject="Oars", to="ines@x.example"),
            mail(subject="Keys"),
        ]
    )
    assert first == answer
    assert len({first, other_people, other_subject}) == 3


def test_emails_with_nothing_to_go_by_are_threads_of_their_own():
    assert len(set(thread_keys([mail(), mail()]))) == 2


def test_a_table_says_its_threads():
    same = [replace(MAIL, thread="7", subject=subject) for subject in ("a", "b")]
    assert len(set(thread_keys([*same, replace(MAIL, thread="8", subject="a")]))) == 2


def test_a_key_is_short_says_nothing_and_does_not_depend_on_the_order():
    mails = [mail("z", subject="Oars"), mail("y", "z"), mail("x", "y"), mail("q", subject="Re: Oars")]
    keys = thread_keys(mails)
    assert thread_keys(mails[::-1]) == keys[::-1]
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)
