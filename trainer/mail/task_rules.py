"""A sent email -> the request that its writer might have typed, by rule: to whom, about what, which facts, from whom.

The facts that the email has and the request would not yet tell are all in it, so that a voice does not learn to invent.
This file does not know mailboxes, privacy or models; trainer/mail/task_model.py lets a model write the request instead.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from adapters.emails.facts import Fact, invented
from adapters.emails.form import GREETING, TITLES, is_closing
from adapters.emails.prompts import reply_task
from adapters.emails.tasks import keeps
from trainer.mail.message import Mail, bare_subject
from trainer.mail.reply_text import message, signed_name

MOST_FACTS = 10
"""Of 2,143 business emails nine in ten have no more; a request with more of them is none that anybody types."""
MOST_OF_ANSWERED = 1_500
CUT = "[...]"
CAPITAL_NOUNS = ("de", "lb")
"""Languages in which every noun begins as a name does."""

EVERYBODY = re.compile(
    r"(?:you )?(?:all|both|every(?:one|body)|team|folks|guys|friends|colleagues|neighbours|members)\b", re.I
)
TITLE = re.compile(rf"(?:{TITLES}|M)\b", re.IGNORECASE)
NO_NOUN = re.compile(
    r"am|pm|a|an|and|are|as|at|be|been|but|by|can|could|did|do|does|for|from|had|has|have|he|her|his|how|i|if|"
    r"in|into|is|it|its|just|left|less|me|more|my|no|not|of|off|on|only|or|our|out|over|own|per|she|should|"
    r"since|so|than|that|the|their|them|then|there|these|they|this|those|to|too|under|until|up|us|was|we|were|"
    r"what|when|where|which|while|who|will|with|would|you|your"
)
NUMBERED = re.compile(
    r"\b(?:room|gate|table|flight|platform|page|chapter|version|unit|flat|apartment|bus|train|line|ext(?:ension)?\.?|"
    r"invoice|order|ticket|item|lot|section|step|number|no\.|building|floor|level|phase|week|bay|desk|seat) "
    r"(?:no\. ?|#)?\Z"
)
COUNTED = re.compile(r"[ -]([a-z]{2,})(?: ([a-z]{2,}s)\b)?")

OPENINGS = (
    "Write an email to {to} about {subject}.",
    "Please write to {to} about {subject}.",
    'Draft an email to {to} with the subject "{subject}".',
    "I need an email to {to}, subject: {subject}.",
    'Can you email {to} about "{subject}" for me?',
    "email to {to}, {subject}.",
)
REPLY_OPENINGS = (
    'Reply to {to}\'s email "{subject}".',
    "Please answer {to} about {subject}.",
    "Write back to {to} about {subject}.",
    'Answer this email from {to} for me, subject "{subject}".',
)
POINTS = ("Mention {points}.", "Include {points}.", "It must say: {points}.", "Details: {points}.", "Work in {points}.")
SIGNED = ("I'm {writer}.", "Sign it {writer}.", "From {writer}.", "My name is {writer}.", "Sender: {writer}")
NOTES = ("Turn these notes into an email.", "Notes for an email:", "Make an email of this:")
REPLY_NOTES = ("Turn these notes into a reply.", "Notes for my answer:", "Make a reply of this:")


class TooManyFacts(ValueError):
    """A request that gives every fact of the email would be none that a person types."""


@dataclass(frozen=True)
class Request:
    task: str
    facts: tuple[tuple[str, ...], ...]
    """What the email must keep of it: the spellings that count, the task's own first."""
    answered: str = ""
    """The message answered, as far as the task shows it, and from whom."""
    answered_from: str = ""

    @property
    def whole(self) -> str:
        """The task with the message answered."""
        return reply_task(self.task, self.answered_from, self.answered) if self.answered else self.task


def email_of(mail: Mail, answers: bool) -> str:
    """What the voice learns to write: own words under a subject line, with its `Re:` where a message is answered."""
    subject = mail.subject if answers else bare_subject(mail.subject)
    return f"Subject: {subject}\n\n{mail.text}" if subject else mail.text


def request(mail: Mail, answered: str, answered_from: str, seed: str) -> Request:
    """The request for `mail`; `answered` is the message that it answers, or empty. The same for the same seed.

    Raises:
        TooManyFacts: over MOST_FACTS of them are neither in the subject nor in the message answered.
    """
    answered = shortened(answered)
    greeted, signed = _greeted(mail.text), _signed(mail)
    to = _recipient(mail, greeted)
    writer = _fuller(mail.sender_name, signed) if signed else ""
    subject = bare_subject(mail.subject)
    points = _points(mail, "\n".join((to, greeted, writer, signed, subject, answered_from, answered)))
    if len(points) > MOST_FACTS:
        raise TooManyFacts
    chance = random.Random(f"{seed} {mail.message_id} {mail.subject} {mail.text}")
    told = list(dict.fromkeys(_told(point, mail.text) for point in points))
    task = _phrase(to, subject, told, writer, bool(answered), chance)
    email = email_of(mail, bool(answered))
    people = [(name, *({short} - {name, ""})) for name, short in ((to, greeted), (writer, signed)) if name in task]
    facts = [fact for fact in (*people, *((point.text,) for point in points)) if fact[0]]
    return Request(
        task,
        tuple(fact for fact in facts if keeps(fact, email)),
        answered,
        answered_from or to or "somebody",
    )


def shortened(text: str) -> str:
    """At most MOST_OF_ANSWERED characters, cut at the end of a line where there is one, with CUT for the rest."""
    if len(text) <= MOST_OF_ANSWERED:
        return text
    head = text[:MOST_OF_ANSWERED]
    line = head.rfind("\n")
    return f"{head[: line if line > MOST_OF_ANSWERED // 3 else head.rfind(' ')].rstrip()}\n{CUT}"


def listed(points: list[str]) -> str:
    separator = "; " if any("," in point for point in points) else ", "
    return f"{separator.join(points[:-1])} and {points[-1]}" if len(points) > 1 else "".join(points)


def _points(mail: Mail, told: str) -> list[Fact]:
    """The facts of the email that `told` does not hold."""
    from py3langid import classify

    text = message(mail.text, mail.sender_name or mail.sender)
    points = invented(text, told)
    if not any(point.kind == "name" for point in points) or classify(text)[0] not in CAPITAL_NOUNS:
        return points
    return [point for point in points if point.kind != "name"]


def _phrase(to: str, subject: str, points: list[str], writer: str, reply: bool, chance: random.Random) -> str:
    if len(points) > 1 and chance.random() < 0.3:
        named = [("to", to if not reply else ""), ("subject", subject), *(("", p) for p in points), ("from", writer)]
        lines = [f"- {name}: {value}" if name else f"- {value}" for name, value in named if value]
        return "\n".join([chance.choice(REPLY_NOTES if reply else NOTES), *lines])
    opening = chance.choice(REPLY_OPENINGS if reply else OPENINGS)
    if not subject:
        opening = "Reply to {to}." if reply else "Write an email to {to}."
    parts = [opening.format(to=to or "somebody", subject=subject.rstrip(" .?!"))]
    if points:
        parts.append(chance.choice(POINTS).format(points=listed(points)))
    if writer:
        parts.append(chance.choice(SIGNED).format(writer=writer))
    return " ".join(parts)


def _told(fact: Fact, text: str) -> str:
    """A number with what it counts, since `12` alone tells nothing: 12 forms, room 214."""
    start = text.find(fact.text) if fact.kind == "number" else -1
    while start >= 0:
        end = start + len(fact.text)
        if numbered := NUMBERED.search(text[max(0, start - 20) : start]):
            return f"{numbered.group()}{fact.text}"
        counted = COUNTED.match(text, end)
        if counted and not NO_NOUN.fullmatch(counted[1]) and not text[start - 1 : start].isalnum():
            # The second word only where the first describes it: "3 large boxes", but not "12 forms as".
            second = "" if counted[1].endswith("s") or NO_NOUN.fullmatch(counted[2] or "") else counted[2] or ""
            return f"{fact.text} {counted[1]} {second}".rstrip()
        start = text.find(fact.text, end)
    return fact.text


def _greeted(text: str) -> str:
    """The name in the greeting; empty if the first line is none."""
    first = text.split("\n", 1)[0].strip()
    match = None if is_closing(first) else GREETING.match(first)
    name = (match["name"] or match["alone"] or "") if match else ""
    return name if len(name.split()) <= 4 else ""


def _signed(mail: Mail) -> str:
    """The name in the last line before a postscript, if it is the sender's or stands alone under a closing."""
    return signed_name(mail.text, mail.sender_name or mail.sender)


def _recipient(mail: Mail, greeted: str) -> str:
    """As the writer would say it: the greeting's `Mr Berg` or `Tom`, else the full name that they are greeted by."""
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
    """anna.berg@mail.example is Anna Berg; where nothing reads as a name, the address itself."""
    words = re.findall(r"[^\W\d_]{2,}", address.partition("@")[0])
    return " ".join(word.capitalize() for word in words[:3]) if words else address
