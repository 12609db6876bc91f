"""What speaks against sending an email, found by rule: each finding has its kind, the words and a sentence.

The same rules for every model and voice, with the task's facts as a person listed them (evaluation) or as found in its
text by adapters/emails/facts.py (a server). What the email means no rule sees; adapters/emails/checker.py adds that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from adapters.emails import form, people
from adapters.emails.facts import PATTERNS, Fact, find_facts, invented
from adapters.emails.number_words import WEEKDAYS
from adapters.emails.rules import Score, score
from adapters.emails.tasks import keeps

FindingKind = Literal["missing", "invented", "form", "sender", "order", "swapped", "meaning"]


@dataclass(frozen=True)
class Finding:
    """`words` are those of the task (missing) or of the email that show it; empty where something is not there."""

    kind: FindingKind
    words: str
    sentence: str


# What is said to an assistant, not to the recipient, and the labels of a list of notes.
ORDER = re.compile(
    r"\b(?:write|draft|send|e-?mail|tell|ask|remind|thank|chase) (?:him|her|them)\b(?! (?:to you|you)\b)|"
    r"\bplease (?:write|draft) (?:an?|this|the)? ?(?:e-?mail|mail|reply|note)\b|"
    r"^(?:to|from|was|now|why|about|say|sender|signed|name|kind|tone)\s?:",
    re.IGNORECASE | re.MULTILINE,
)
DAY = f"(?:{PATTERNS['date']}|{PATTERNS['time']})"
BETWEEN = r"[^.!?\n]{0,50}?"
# An old and a new date or time, in this order or in the other one.
OLD_NEW = re.compile(
    rf"\bwas:? {BETWEEN}(?P<old1>{DAY}){BETWEEN}[\n,;.]?{BETWEEN}\bnow:? {BETWEEN}(?P<new1>{DAY})|"
    rf"\bfrom {BETWEEN}(?P<old2>{DAY}) to {BETWEEN}(?P<new2>{DAY})",
    re.IGNORECASE,
)
NEW_OLD = re.compile(
    rf"(?P<new1>{DAY}){BETWEEN}\b(?:instead of|rather than|in place of|not)\b {BETWEEN}(?P<old1>{DAY})", re.IGNORECASE
)


def find(
    task: str,
    email: str,
    told: str | None = None,
    ended: bool = True,
    facts: Sequence[Sequence[str]] | None = None,
) -> list[Finding]:
    """`told` is the whole prompt with earlier turns, by default the task; `facts` has the spellings of each fact."""
    told = task if told is None else told
    marks = score(task, facts or (), email, told, ended)
    return [
        *_missing(task, email, facts),
        *(Finding("invented", fact.text, f"{fact.text!r} is not in the task.") for fact in invented(email, told)),
        *_form(marks, email),
        *_sender(task, told, email),
        *(
            Finding("order", match.group(), "The order to the assistant stands in the email.")
            for match in _orders(email)
        ),
        *_swapped(told, email),
    ]


def _missing(task: str, email: str, facts: Sequence[Sequence[str]] | None) -> Iterator[Finding]:
    if facts is None:
        # The sender's name counts in the signature.
        sender = people.sender(task)
        told = [fact for fact in invented(task, email) if not people.share_a_name(fact.text, sender)]
        missing = [fact.text for fact in told if not _in_short(fact, email)]
    else:
        missing = [fact[0] for fact in facts if not keeps(fact, email)]
    for words in missing:
        yield Finding("missing", words, f"{words!r} is missing.")


def _in_short(fact: Fact, email: str) -> bool:
    """Whether the email has a part of a name, as `Ms Ozola` of Ms Ieva Ozola, or the weekday of a date or its day."""
    if fact.kind == "name":
        return people.share_a_name(fact.text, email)
    weekday, _, day = fact.text.partition(" ")
    named = weekday.rstrip(",").lower() in WEEKDAYS and bool(day)
    return fact.kind == "date" and named and any(not invented(part, email) for part in (weekday, day))


def _form(marks: Score, email: str) -> Iterator[Finding]:
    placeholder = form.PLACEHOLDER.search(email) or form.MASK.search(email)
    found = {
        "It has no greeting.": not marks.greeting,
        "It has no closing.": not marks.sign_off,
        "A place is left to fill in.": bool(placeholder),
        "It is cut off.": not marks.ended,
        f"It has {marks.words} words.": not marks.length_ok,
        "It says the same words three times.": marks.repeats,
        "It begins with words to the person who asked.": marks.preamble,
        "It repeats the task word by word.": marks.copied,
    }
    for sentence, so in found.items():
        if so:
            words = placeholder.group() if placeholder and sentence.startswith("A place") else ""
            yield Finding("form", words, sentence)


def _sender(task: str, told: str, email: str) -> Iterator[Finding]:
    # A revision is signed as the email before it, which ends what was told before the task.
    before = told.removesuffix(task).strip()
    sender = people.signed(before) if before else people.sender(task)
    greeted, signed = people.greeted(email), people.signed(email)
    if not sender:
        return
    if people.share_a_name(greeted, sender):
        yield Finding("sender", greeted, f"It greets {greeted}, who sends it.")
    if not people.share_a_name(signed, sender):
        name = sender.partition("\n")[0]
        yield Finding("sender", signed.partition("\n")[0], f"It is not signed by {name}.")


def _orders(email: str) -> Iterator[re.Match[str]]:
    return ORDER.finditer(form.body(email))


def _swapped(told: str, email: str) -> Iterator[Finding]:
    """An old date or time that stands for the new one."""
    asked, written = _pairs(told), _pairs(email)
    for old, new in written:
        if (new, old) in asked and (old, new) not in asked:
            yield Finding("swapped", new, "The old and the new date or time are exchanged.")


def _pairs(text: str) -> set[tuple[str, str]]:
    """(old, new), each as the day or time alone: `Wednesday 4 June` and `4 June` are the same."""
    pairs = set()
    for pattern in (OLD_NEW, NEW_OLD):
        for match in pattern.finditer(text):
            named = {name[:3]: value for name, value in match.groupdict().items() if value}
            pairs.add((_bare(named["old"]), _bare(named["new"])))
    return pairs


def _bare(words: str) -> str:
    facts = find_facts(words)
    digits = re.findall(r"\d+", facts[0].text if facts else words)
    return " ".join(digits) or words.lower()
