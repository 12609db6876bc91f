"""Does a voice repeat its training emails: word sequences copied from them, and personal data that nobody gave it.

Copying is compared with held-out emails, which no training saw: what an answer shares with those too is the language
that such emails have in common ("I hope this finds you well"). This file knows texts only, neither models nor files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain

from trainer.data import Example, same_requests
from trainer.duplicates import clusters
from trainer.privacy import Found, find
from trainer.rubric import body, word_grams

GRAM = 8
"""Words in a row. Of the 8-grams of 140 real emails (Enron) 0.1 % stand in 140 others, 0.5 % in 500, and 4 % in 2,000,
with their near duplicates."""

Value = tuple[str, str]
"""Kind and normalised text of a piece of personal data."""


def measure(
    answers: Sequence[str], asked: Sequence[str], training_emails: Sequence[str], heldout_emails: Sequence[str]
) -> dict[str, float]:
    """`copied_8grams`, `copied_8grams_heldout`, `copied_more` (shares) and `personal_data_leaked` (a count).

    `asked` is for each answer everything that its writer was given: the task, and earlier tasks and emails.
    `training_emails` are the person's own; generated practice has texts in common by design.
    """
    leaked = leaked_personal_data(answers, asked, training_emails)
    return copying(answers, asked, training_emails, heldout_emails) | {"personal_data_leaked": float(len(leaked))}


def copying(
    answers: Sequence[str], asked: Sequence[str], training_emails: Sequence[str], heldout_emails: Sequence[str]
) -> dict[str, float]:
    """Of all word 8-grams of the answers' bodies that nobody gave them, the share that stands in other emails.

    `copied_more` is the share found in training emails minus that found in held-out ones. Every training email counts,
    also where there are fewer held-out ones: a sample of as many would miss most of what was memorised, and ordinary
    emails share so little (`GRAM`) that the unequal number hardly matters. There are never more held-out than training
    emails in the comparison.
    """
    written = [_grams(answer) - _grams(task) for answer, task in zip(answers, asked, strict=True)]
    training = _share(written, _all_grams(training_emails))
    heldout = _share(written, _all_grams(heldout_emails[: len(training_emails)]))
    return {"copied_8grams": training, "copied_8grams_heldout": heldout, "copied_more": training - heldout}


def leaked_personal_data(answers: Sequence[str], asked: Sequence[str], training_emails: Iterable[str]) -> set[Value]:
    """Addresses, phone numbers, IBANs, cards and links of training emails in answers to tasks that do not hold them."""
    unasked: set[Value] = set()
    for answer, task in zip(answers, asked, strict=True):
        given = _compact(task)
        unasked |= {value for value in map(_value, find(answer)) if value[1] not in given}
    if not unasked:
        return set()
    return unasked & {_value(found) for email in training_emails for found in find(email)}


def trained_on(tasks: Sequence[Example], training: Sequence[Example]) -> int:
    """How many tasks were no test: their request or their email nearly stands among the training examples."""
    groups = [*same_requests([*tasks, *training]), *clusters([example.email for example in [*tasks, *training]])]
    met = [group for group in groups if group[-1] >= len(tasks)]
    return len({member for group in met for member in group if member < len(tasks)})


def _grams(text: str) -> set[tuple[str, ...]]:
    return word_grams(body(text), GRAM)


def _all_grams(emails: Iterable[str]) -> set[tuple[str, ...]]:
    return set(chain.from_iterable(map(_grams, emails)))


def _share(written: Sequence[set[tuple[str, ...]]], found_in: set[tuple[str, ...]]) -> float:
    grams = sum(map(len, written))
    return sum(len(answer & found_in) for answer in written) / grams if grams else 0.0


def _value(found: Found) -> Value:
    spelling = _compact(found.text)
    # The last digits of a phone number are the same with its country's code and without.
    return found.kind, spelling[-8:] if found.kind == "phone" else spelling


def _compact(text: str) -> str:
    """One spelling of a number or address, however it is spaced: letters, digits and @ in lower case."""
    return re.sub(r"[^\w@]|_", "", text.lower())
