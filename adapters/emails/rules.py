"""Could an answer to an email task be sent as it stands? Decided by rules, the same for every model and voice.

The rules were fixed before any voice was measured with them (DECISIONS.md, 2026-11-26).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.emails.facts import find_facts, invented
from adapters.emails.form import MASK, PLACEHOLDER, WORD, grams, has_greeting, has_sign_off, word_grams
from adapters.emails.tasks import keeps, normalise

MAX_COPIED_SHARE = 0.5
# RFC 5322 (2.1.1) recommends so many for a line of mail.
MAX_SUBJECT_CHARACTERS = 78
# Greeting, sign-off and names alone are about ten words. The 432 shipped emails have 33 to 92, and 2,143 real ones
# (Enron) 22 to 146.
MIN_WORDS, MAX_WORDS = 20, 250
# A word 4-gram may come twice, in the subject and the email: more often in no shipped email, and in 1.1 % of real ones.
REPEATED_GRAM_WORDS, MAX_REPEATS = 4, 2

PREAMBLE = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|great)\b ?[!,.:]|as an ai\b|"
    r"i(?:'d| would| am|'m)? (?:be )?(?:happy|glad) to help|"
    r"(?:here(?:'s| is)|below is|this is) (?:an?|the|your|my|one)\b.{0,40}"
    r"\b(?:email|draft|message|version|reply|response|letter)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Score:
    """One answer's marks; `facts_kept` of `facts` count only in a proper email that was not copied from the task."""

    facts: int
    facts_kept: int
    # Checkable facts in the answer (adapters/emails/facts.py), and those that the task does not have.
    stated: int
    invented: int
    greeting: bool
    sign_off: bool
    # Reported only: a plain task does not ask for a subject.
    subject: bool
    placeholder: bool
    mask: bool
    words: int
    ended: bool
    repeats: bool
    preamble: bool
    copied: bool

    @property
    def all_kept(self) -> bool:
        return self.facts_kept == self.facts

    @property
    def length_ok(self) -> bool:
        return MIN_WORDS <= self.words <= MAX_WORDS

    @property
    def sendable(self) -> bool:
        """Whether it could be sent as it stands: the primary figure of an evaluation is the share of these."""
        form = self.greeting and self.sign_off and self.ended and self.length_ok
        flaws = self.placeholder or self.mask or self.repeats or self.preamble or self.copied or self.invented
        return form and not flaws and self.all_kept


def score(task: str, facts: Sequence[Sequence[str]], answer: str, told: str | None = None, ended: bool = True) -> Score:
    """The marks of one answer.

    `told` is the whole prompt with earlier turns; by default the task. `ended`: by itself, not by the limit of tokens.
    """
    greeting, sign_off = has_greeting(answer), has_sign_off(answer)
    copied = copied_share(task, answer) > MAX_COPIED_SHARE
    proper = greeting and sign_off and not copied
    return Score(
        facts=len(facts),
        facts_kept=sum(keeps(fact, answer) for fact in facts) if proper else 0,
        stated=len(find_facts(answer)),
        invented=len(invented(answer, task if told is None else told)),
        greeting=greeting,
        sign_off=sign_off,
        subject=has_subject(answer),
        placeholder=bool(PLACEHOLDER.search(answer)),
        mask=bool(MASK.search(answer)),
        words=len(WORD.findall(answer)),
        ended=ended,
        repeats=repeats(answer),
        preamble=bool(PREAMBLE.match(answer.lstrip())),
        copied=copied,
    )


def has_subject(answer: str) -> bool:
    """A subject line of at most 78 characters before everything else."""
    subject = re.match(r"\s*Subject: ?(\S[^\n]*)", answer)
    return subject is not None and len(subject[1].rstrip()) <= MAX_SUBJECT_CHARACTERS


def repeats(answer: str) -> bool:
    """Whether a word 4-gram comes three times or more."""
    counts = Counter(grams(WORD.findall(normalise(answer)), REPEATED_GRAM_WORDS))
    return any(count > MAX_REPEATS for count in counts.values())


def copied_share(task: str, answer: str) -> float:
    """How many of the task's word 5-grams stand in the answer, 0 to 1; 0 for a task of under five words."""
    wanted = word_grams(task)
    return len(wanted & word_grams(answer)) / len(wanted) if wanted else 0.0
