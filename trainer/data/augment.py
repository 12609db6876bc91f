"""The same email with other names, numbers, days and months: every pass over a small file teaches copying, not recall.

A value that stands in the request and in the email is replaced in both by another of its kind, the same one
everywhere. The sentences stay as they were written.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from adapters.emails.form import HELLO, TITLES
from trainer.data.examples import Example
from trainer.data.synthetic import DAYS, MONTHS, pieces

# A clock time, a number with its thousands, or a plain number; words are whole words.
TOKEN = re.compile(r"\d{1,2}[:.]\d\d(?!\d)|\d[\d,]*\d|\d|[^\W\d_][\w-]*")
SENDER = re.compile(r"\n([A-Z][\w'-]+)(?: ([A-Z][\w'-]+))?(?:\n[^\n]{1,40})?\s*\Z")
GREETING = re.compile(
    rf"^(?i:{HELLO}) (?:({TITLES})\b\.? )?(?!(?:{TITLES})\b)([A-Z][\w'-]+)(?: ([A-Z][\w'-]+))?,", re.MULTILINE
)
ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)\b")
# "may" is a verb too, so that it never gives way to another month.
MOVABLE_MONTHS = [month for month in MONTHS if month != "May"]


def augment(example: Example, chance: random.Random) -> Example:
    """`example` with other values; a value that only the request or only the email has stays."""
    asked = "\n".join(message["content"] for message in example.messages)
    shared = set(TOKEN.findall(asked)) & set(TOKEN.findall(example.email))
    shared_in_any_case = set(TOKEN.findall(asked.lower())) & set(TOKEN.findall(example.email.lower()))
    swaps = _name_swaps(example.email, shared, chance) | _word_swaps(shared_in_any_case, chance)
    ordinals = set(ORDINAL.findall(asked + example.email))
    swaps |= {token: _other_number(token, chance) for token in sorted(shared - ordinals) if re.search(r"\d", token)}

    def swap(text: str) -> str:
        return TOKEN.sub(lambda token: _swapped(token[0], swaps), text)

    return replace(
        example,
        messages=tuple({**message, "content": swap(message["content"])} for message in example.messages),
        email=swap(example.email),
        facts=tuple(tuple(swap(spelling) for spelling in fact) for fact in example.facts),
    )


def _swapped(token: str, swaps: dict[str, str]) -> str:
    """The other value of `token`; a day or month in lower case stays in lower case."""
    if token.islower() and token.capitalize() in (*DAYS, *MOVABLE_MONTHS):
        return swaps.get(token.capitalize(), token).lower()
    return swaps.get(token, token)


def _name_swaps(email: str, shared: set[str], chance: random.Random) -> dict[str, str]:
    """Sender and recipient, where the email's last line and its greeting name them."""
    firsts, lasts = pieces("pools")["FIRST"], pieces("pools")["LAST"]
    swaps: dict[str, str] = {}
    for found in (SENDER.search(email), GREETING.search(email)):
        if not found:
            continue
        *title, first, last = found.groups()
        if first in shared:
            swaps.setdefault(first, chance.choice(lasts if any(title) and not last else firsts))
        if last in shared:
            swaps.setdefault(last, chance.choice(lasts))
    return swaps


def _word_swaps(shared: set[str], chance: random.Random) -> dict[str, str]:
    """Days and months, each for another one."""
    swaps: dict[str, str] = {}
    for words in (DAYS, MOVABLE_MONTHS):
        present = [word for word in words if word.lower() in shared]
        swaps |= dict(zip(present, chance.sample(words, len(present)), strict=True))
    return swaps


def _other_number(token: str, chance: random.Random) -> str:
    """A number as long and about as large, so that days stay days and hours hours; years and 1 stay as they are."""
    if not token[0].isdecimal():
        return re.sub(r"\d", lambda _: chance.choice("123456789"), token)
    if re.fullmatch(r"\d{1,2}[:.]\d\d", token):
        minute = 5 * chance.randrange(12)
        return f"{_other_number(token[:-3], chance)}{token[-3]}{minute:02d}"
    if len(token) > 2:
        if re.fullmatch(r"(?:19|20)\d\d", token):
            return token
        return chance.choice("123456789") + re.sub(r"\d", lambda _: chance.choice("0123456789"), token[1:])
    value = int(token)
    low, high = next(
        (low, high) for low, high in ((0, 1), (2, 9), (10, 12), (13, 22), (23, 28), (29, 99)) if value <= high
    )
    return token if value < 2 or token[0] == "0" else str(chance.randint(low, high))
