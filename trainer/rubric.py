"""What an answer to an email task is worth, decided by rule: facts kept, placeholders, greeting, sign-off, copying.

The rules are the same for every model and voice, and generous to a base model's habits. This file knows neither
models nor files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.tasks import keeps, normalise

GRAM = 5
MOST_COPIED = 0.5

WORD = re.compile(r"[\w'@.-]*\w")
PLACEHOLDER = re.compile(
    r"\[[^\]\n]{1,60}\]|\{\{?[^}\n]{1,60}\}|<[A-Za-z][^>\n]{0,40}>|_{3,}|(?-i:\bX{2,}\b)|"
    r"\((?:your|recipient'?s?|sender'?s?)\b[^)\n]*\b(?:name|title|position|company|address|phone|email|contact)\b[^)\n]*\)|"
    r"^(?:your|recipient'?s?|sender'?s?) name\W*$",
    re.IGNORECASE | re.MULTILINE,
)
GREETING = re.compile(
    r"(?:dear|hi|hello|hey|greetings|good (?:morning|afternoon|evening)|to whom)\b|[\w .'-]{1,40},$", re.IGNORECASE
)
SIGN_OFF = re.compile(
    r"(?:(?:yours|very|kind|best|warm|with|many|lots|talk|see|speak|take|all|bye|until|in|catch|big|sending|warmest|kindest)\b.{0,40}|"
    r"sincerely.{0,10}|regards|respectfully.{0,10}|cordially|cheers.{0,10}|"
    r"thanks.{0,20}|thank you.{0,30}|love|hugs|warmly|gratefully.{0,10}|best)[,.!]?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Score:
    """One answer's marks; `facts_kept` of `facts` count only in a proper email that was not copied from the task."""

    facts: int
    facts_kept: int
    placeholder: bool
    words: int

    @property
    def all_kept(self) -> bool:
        return self.facts_kept == self.facts


def score(task: str, facts: Sequence[Sequence[str]], answer: str) -> Score:
    proper = has_greeting(answer) and has_sign_off(answer) and copied_share(task, answer) <= MOST_COPIED
    kept = sum(keeps(fact, answer) for fact in facts) if proper else 0
    return Score(len(facts), kept, bool(PLACEHOLDER.search(answer)), len(WORD.findall(answer)))


def word_grams(text: str, size: int = GRAM) -> set[tuple[str, ...]]:
    words = WORD.findall(normalise(text))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def copied_share(task: str, answer: str) -> float:
    """How many of the task's word 5-grams stand in the answer, 0 to 1; 0 for a task of under five words."""
    wanted = word_grams(task)
    return len(wanted & word_grams(answer)) / len(wanted) if wanted else 0.0


def has_greeting(answer: str) -> bool:
    """A greeting on one of the first lines, a subject line apart."""
    return any(GREETING.match(line) and not SIGN_OFF.fullmatch(line) for line in _lines(answer)[:4])


def has_sign_off(answer: str) -> bool:
    """A closing phrase alone on one of the last lines."""
    return any(SIGN_OFF.fullmatch(line) for line in _lines(answer)[-5:])


def body(email: str) -> str:
    """The email without its subject line."""
    return re.sub(r"\ASubject:[^\n]*\n+", "", email)


def _lines(answer: str) -> list[str]:
    return [line.strip() for line in answer.splitlines() if line.strip() and not line.lower().startswith("subject")]
