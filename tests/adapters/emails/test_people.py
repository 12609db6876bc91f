"""Who sends an email, by its task; whom it greets and who signs it."""

import pytest

from adapters.emails.people import greeted, sender, share_a_name, signed


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("Thank Ada Byron for the 12 chairs. I'm Kim Lee.", "Kim Lee"),
        ("write to Ada. sign it Ibtisam", "Ibtisam"),
        ("tell Ada that the flat is let. Kim Lee, Havel Homes", "Kim Lee"),
        ("to: Ada Byron\nsay: the chairs came\nfrom: Kim Lee", "Kim Lee"),
        ("My name is Rosamund Tay. Please write to Mr Kolev.", "Rosamund Tay"),
        ("I'm Emeka Strand, I took over from Birgit Falk. I'd like to visit him on a Tuesday.", "Emeka Strand"),
        ('They wrote: "May I pay later? Ada Byron". Say no. From Pavel Horák', "Pavel Horák"),
        ("Signed Jens, Tindle Books", "Jens"),
        ("Make it shorter, please.", ""),
        ("", ""),
    ],
)
def test_the_sender_is_the_one_whom_the_task_names_so(task: str, name: str):
    assert sender(task) == name


EMAIL = "Subject: Chairs\n\nDear Ms Byron,\n\nThe chairs came.\n\nKind regards,\nKim Lee\nHavel Homes"


def test_greeting_and_signature_are_read():
    assert greeted(EMAIL) == "Ms Byron"
    assert signed(EMAIL) == "Kim Lee\nHavel Homes"
    assert signed("The chairs came.\nKim") == "Kim"
    assert greeted("The chairs came.") == signed("") == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Ms Byron", "Ada Byron", True),
        ("Ada's", "Ada Byron", True),
        ("Mr Lee", "Mr Byron", False),
        ("Yih-jin", "Hye-jin", True),
        ("", "Ada", False),
    ],
)
def test_a_name_is_shared_by_a_word_of_it_other_than_a_title(one: str, other: str, same: bool):
    assert share_a_name(one, other) is same
