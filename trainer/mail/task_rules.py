"""A sent email -> the request that its writer might have typed, by rule: recipient, subject, facts and writer.

The request has every fact of the email, so that a voice does not learn to invent.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapters.emails.facts import Fact, invented
from adapters.emails.form import GREETING, TITLES, is_closing
from adapters.emails.prompts import reply_task
from adapters.emails.tasks import keeps
from trainer.mail.message import Mail, bare_subject
from trainer.mail.reply_text import message, signed_name

# Nine in ten of 2,143 business emails have no more, and people do not type a request with more.
MAX_FACTS = 10
MAX_ANSWERED_CHARACTERS = 1_500
CUT = "[...]"
# Languages in which every noun begins with a capital, as a name does.
CAPITAL_NOUNS = ("de", "lb")

EVERYBODY = re.compile(
    r"(?:you )?(?:all|both|every(?:one|body)|team|folks|guys|friends|colleagues|neighbours|members)\b", re.I
)
TITLE = re.compile(rf"(?:{TITLES}|M)\b", re.IGNORECASE)
NOT_NOUNS = frozenset(
    (
        "am pm a an and are as at be been but by can could did do does for from had has have he her his how i if in "
        "into is it its just left less me more my no not of off on only or our out over own per she should since so "
        "than that the their them then there these they this those to too under until up us was we were what when "
        "where which while who will with would you your"
    ).split()
)
NUMBERED = re.compile(
    r"\b(?:room|gate|table|flight|platform|page|chapter|version|unit|flat|apartment|bus|train|line|ext(?:ension)?\.?|"
    r"invoice|order|ticket|item|lot|section|step|number|no\.|building|floor|level|phase|week|bay|desk|seat) "
    r"(?:no\. ?|#)?\Z"
)
COUNTED = re.compile(r"[ -]([a-z]{2,})(?: ([a-z]{2,}s)\b)?")


class TooManyFacts(ValueError):
    """The email has more facts than a person types into a request."""


@dataclass(frozen=True)
class Request:
    task: str
    # What the email must keep: the spellings that count, the task's own first.
    facts: tuple[tuple[str, ...], ...]
    # The message that the email answers, shortened, and its sender.
    answered: str = ""
    answered_from: str = ""

    @property
    def whole(self) -> str:
        """The task with the message answered."""
        return reply_task(self.task, self.answered_from, self.answered) if self.answered else self.task


def email_of(mail: Mail, answers: bool) -> str:
    """What the voice learns to write: a subject line, with `Re:` in an answer, and the reply text."""
    subject = mail.subject if answers else bare_subject(mail.subject)
    return f"Subject: {subject}\n\n{mail.text}" if subject else mail.text


def request(mail: Mail, answered: str, answered_from: str, seed: str) -> Request:
    """The request for `mail`; `answered` is the message that it answers, or empty. The same for the same seed.

    Raises:
        TooManyFacts: over MAX_FACTS of them are neither in the subject nor in the message answered.
    """
    answered = shortened(answered)
    greeted, signed = _greeted(mail.text), signed_name(mail.text, mail.sender_name or mail.sender)
    to = _recipient(mail, greeted)
    writer = _fuller(mail.sender_name, signed) if signed else ""
    subject = bare_subject(mail.subject)
    points = _points(mail, "\n".join((to, greeted, writer, signed, subject, answered_from, answered)))
    if len(points) > MAX_FACTS:
        raise TooManyFacts
    chance = random.Random(f"{seed} {mail.message_id} {mail.subject} {mail.text}")
    phrases = list(dict.fromkeys(_with_noun(point, mail.text) for point in points))
    task = _phrase(to, subject, phrases, writer, bool(answered), chance)
    email = email_of(mail, bool(answered))
    people = [(name, *({short} - {name, ""})) for name, short in ((to, greeted), (writer, signed)) if name in task]
    facts = [fact for fact in (*people, *((point.text,) for point in points)) if fact[0]]
    kept = tuple(fact for fact in facts if keeps(fact, email))
    return Request(task, kept, answered, answered_from or to or "somebody")


def shortened(text: str) -> str:
    """At most MAX_ANSWERED_CHARACTERS, cut at the end of a line if possible, with CUT for the rest."""
    if len(text) <= MAX_ANSWERED_CHARACTERS:
        return text
    head = text[:MAX_ANSWERED_CHARACTERS]
    line = head.rfind("\n")
    return f"{head[: line if line > MAX_ANSWERED_CHARACTERS // 3 else head.rfind(' ')].rstrip()}\n{CUT}"


def listed(points: list[str]) -> str:
    separator = "; " if any("," in point for point in points) else ", "
    return f"{separator.join(points[:-1])} and {points[-1]}" if len(points) > 1 else "".join(points)


def _points(mail: Mail, known: str) -> list[Fact]:
    """The facts of the email that `known` does not have."""
    from py3langid import classify

    text = message(mail.text, mail.sender_name or mail.sender)
    points = invented(text, known)
    if not any(point.kind == "name" for point in points) or classify(text)[0] not in CAPITAL_NOUNS:
        return points
    return [point for point in points if point.kind != "name"]


@cache
def request_phrases() -> dict[str, list[str]]:
    """How a request begins, and how it names points and writer, from phrases.yaml."""
    import yaml

    phrases: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text("utf-8"))
    return phrases


def _phrase(to: str, subject: str, points: list[str], writer: str, reply: bool, chance: random.Random) -> str:
    phrases, prefix = request_phrases(), "reply_" if reply else ""
    if len(points) > 1 and chance.random() < 0.3:
        named = [("to", to if not reply else ""), ("subject", subject), *(("", p) for p in points), ("from", writer)]
        lines = [f"- {name}: {value}" if name else f"- {value}" for name, value in named if value]
        return "\n".join([chance.choice(phrases[f"{prefix}notes"]), *lines])
    opening = chance.choice(phrases[f"{prefix}openings"])
    if not subject:
        opening = "Reply to {to}." if reply else "Write an email to {to}."
    parts = [opening.format(to=to or "somebody", subject=subject.rstrip(" .?!"))]
    if points:
        parts.append(chance.choice(phrases["points"]).format(points=listed(points)))
    if writer:
        parts.append(chance.choice(phrases["writers"]).format(writer=writer))
    return " ".join(parts)


def _with_noun(fact: Fact, text: str) -> str:
    """A number with the noun that it counts: 12 forms, room 214."""
    start = text.find(fact.text) if fact.kind == "number" else -1
    while start >= 0:
        end = start + len(fact.text)
        if numbered := NUMBERED.search(text[max(0, start - 20) : start]):
            return f"{numbered.group()}{fact.text}"
        counted = COUNTED.match(text, end)
        if counted and counted[1] not in NOT_NOUNS and not text[start - 1 : start].isalnum():
            # The second word only where the first describes it: "3 large boxes", but not "12 forms as".
            second = "" if counted[1].endswith("s") or counted[2] in NOT_NOUNS else counted[2] or ""
            return f"{fact.text} {counted[1]} {second}".rstrip()
        start = text.find(fact.text, end)
    return fact.text


def _greeted(text: str) -> str:
    """The name in the greeting; empty without a greeting."""
    first = text.split("\n", 1)[0].strip()
    match = None if is_closing(first) else GREETING.match(first)
    name = (match["name"] or match["alone"] or "") if match else ""
    return name if len(name.split()) <= 4 else ""


def _recipient(mail: Mail, greeted: str) -> str:
    """As the writer would put it: the greeting's `Mr Berg` or `Tom`, or the full name that fits the greeting."""
    if not mail.recipients:
        return greeted
    full = mail.recipients[0][0] or name_of_address(mail.recipients[0][1])
    if not greeted or TITLE.match(greeted):
        return greeted or full
    if greeted[0].islower() or EVERYBODY.match(greeted):
        return greeted if len(mail.recipients) > 1 and EVERYBODY.match(greeted) else full
    return _fuller(full, greeted)


def _fuller(full: str, short: str) -> str:
    """`full` where `short` is a part of it: Anna Berg for Anna, but Tom for Tom where the address says Thomas Berg."""
    words = set(re.findall(r"[^\W\d_]+", short.lower()))
    return full if words <= set(re.findall(r"[^\W\d_]+", full.lower())) else short


def name_of_address(address: str) -> str:
    """anna.berg@mail.example is Anna Berg; an address without words stays."""
    words = re.findall(r"[^\W\d_]{2,}", address.partition("@")[0])
    return " ".join(word.capitalize() for word in words[:3]) if words else address
