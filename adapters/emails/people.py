"""Who writes an email to whom, by the words of its task and by the email's own greeting and signature.

Names are found by rule, in English; where a task does not name a person so, the answer is an empty string.
"""

from __future__ import annotations

import re

from adapters.emails.form import GREETING, TITLES, body, is_closing, is_not_name

PART = r"[^\W\d_a-z][\w'’-]*"
NAME = rf"(?-i:(?:(?:{TITLES})\.? )?{PART}(?: (?:van|von|de|der|den|del|la|al|bin|y|and) {PART}| {PART}){{0,3}})"
# In the order in which they count, after a name at the end of the task; of each the last one in the task.
SENDERS = [
    re.compile(rf"\b{words}[:,]? (?:me, |us, )?(?P<name>{NAME})", re.IGNORECASE)
    for words in (
        r"(?:signed|signature|sender|my name is|name is|name|sign(?: it| this| off)?(?: as| with)?)",
        r"(?:i'm|i am|im|this is)",
        r"(?:from|thanks|thank you|regards|cheers)",
    )
]
LAST_WORDS = re.compile(rf"(?:^|[.!?:\n\"”)] ?|[,-] )(?P<name>{NAME})(?:,[^.\n]{{0,60}})?[.!)]*\s*\Z")
BEFORE_NAME = re.compile(r"\A(?:signed|from|thanks|sign(?: it)?|i'm|i am|i)\s+", re.IGNORECASE)
SIGNATURE_LINES = 3


def sender(task: str) -> str:
    """The name in the task of the person who sends the email."""
    last = LAST_WORDS.search(task)
    if last and _is_name(last["name"]):
        return BEFORE_NAME.sub("", last["name"])
    for pattern in SENDERS:
        if names := [match["name"] for match in pattern.finditer(task) if _is_name(match["name"])]:
            return names[-1]
    return ""


def greeted(email: str) -> str:
    """The name in the email's greeting."""
    for line in body(email).strip().splitlines()[:3]:
        if match := GREETING.match(line.strip()):
            return (match["name"] or match["alone"] or "").strip()
    return ""


def signed(email: str) -> str:
    """What stands below the email's closing; without a closing its last line."""
    lines = [line.strip() for line in email.strip().splitlines() if line.strip()]
    for number in range(len(lines) - 1, max(-1, len(lines) - 1 - SIGNATURE_LINES - 1), -1):
        if is_closing(lines[number]):
            return "\n".join(lines[number + 1 :])
    return lines[-1] if lines else ""


def share_a_name(one: str, other: str) -> bool:
    """Whether a word of two letters or more, a title apart, stands in both names."""
    return bool(_words(one) & _words(other))


def _words(name: str) -> set[str]:
    bare = re.sub(rf"\b(?:{TITLES})\b\.?", " ", name)
    return {word for word in re.findall(r"[^\W\d_]{2,}", re.sub(r"['’]s\b", "", bare.lower())) if not is_not_name(word)}


def _is_name(text: str) -> bool:
    return bool(_words(text)) and not all(is_not_name(word) for word in text.split())
