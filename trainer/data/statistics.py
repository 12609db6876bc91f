"""Statistics of a set of emails: lengths, openings, endings, languages, variety, personal data."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from adapters.emails.form import GREETING, body, closing, has_sign_off
from adapters.emails.tasks import normalise
from trainer.text.duplicates import WORD

MAX_BINS = 12
BIN_TOKENS = (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10_000)
OPENING_WORDS = 5
# A shorter last line may be a name or a phrase, which need no full stop.
LAST_SENTENCE_WORDS = 5
# A lower-case word or a comma: after a capital or a number there may be a name, a place or a phone number.
WITHIN = re.compile(r"(?:(?<![\w@./])[^\W\d_A-Z][\w'’]*|[,;–—-])\s*\Z")
# 2.5 ms an email; of fewer than 20 words the language is a guess.
MAX_CLASSIFIED_EMAILS, MIN_LANGUAGE_WORDS = 400, 20


@dataclass(frozen=True)
class Tokens:
    """Lengths of whole examples with the chat template; `histogram` has (from, below, examples)."""

    total: int
    shortest: int
    median: int
    longest: int
    histogram: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Variety:
    """Shares from 0 to 1."""

    # Different words and pairs of words of all (Li and others, 2016); both fall as a file grows.
    distinct_1: float
    distinct_2: float
    # The emails with the commonest opening and closing.
    opening: float
    sign_off: float


@dataclass(frozen=True)
class Languages:
    """ISO 639-1 codes of `asked` emails, drawn from those of 20 words or more."""

    asked: int
    found: dict[str, int]


def tokens(counts: Sequence[int]) -> Tokens:
    ordered = sorted(counts)
    width = next((step for step in BIN_TOKENS if step * MAX_BINS > ordered[-1]), BIN_TOKENS[-1])
    bins = Counter(min(count // width, MAX_BINS - 1) for count in ordered)
    bars = tuple(
        (at * width, (at + 1) * width if at < MAX_BINS - 1 else max(MAX_BINS * width, ordered[-1] + 1), bins[at])
        for at in range(min(bins), max(bins) + 1)
    )
    return Tokens(sum(ordered), ordered[0], ordered[len(ordered) // 2], ordered[-1], bars)


def variety(emails: Sequence[str]) -> Variety:
    words = [WORD.findall(normalise(email)) for email in emails]
    singles = Counter(word for email in words for word in email)
    pairs = Counter(pair for email in words for pair in pairwise(email))
    openings = Counter(filter(None, map(opening, emails)))
    closings = Counter(filter(None, map(sign_off, emails)))
    return Variety(
        _share(len(singles), singles.total()),
        _share(len(pairs), pairs.total()),
        _share(max(openings.values(), default=0), len(emails)),
        _share(max(closings.values(), default=0), len(emails)),
    )


def languages(emails: Sequence[str], seed: int = 0) -> Languages:
    import py3langid

    long = [email for email in emails if len(email.split()) >= MIN_LANGUAGE_WORDS]
    asked = random.Random(seed).sample(long, min(MAX_CLASSIFIED_EMAILS, len(long)))
    found = Counter(str(py3langid.classify(email)[0]) for email in asked)
    return Languages(len(asked), dict(found.most_common()))


def personal(texts: Iterable[str]) -> dict[str, int]:
    """The number of values of each kind of personal data, without names of people."""
    from trainer.text.personal_data import find

    return dict(Counter(found.kind for text in texts for found in find(text)).most_common())


def opening(email: str) -> str:
    """The first words after subject and greeting, in lower case; empty without five of them."""
    lines = [line.strip() for line in body(email).splitlines() if line.strip()]
    if lines and GREETING.match(lines[0]) and len(lines[0].split()) <= OPENING_WORDS:
        lines = lines[1:]
    words = normalise(" ".join(lines[:2])).split()
    return " ".join(words[:OPENING_WORDS]) if len(words) >= OPENING_WORDS else ""


def sign_off(email: str) -> str:
    """The closing phrase, in lower case without its comma; empty without one."""
    return normalise(closing(email)).rstrip(",.!")


def breaks_off(email: str) -> bool:
    """Whether the email seems cut: it ends within a sentence and signs off nowhere."""
    last = email.rstrip().rpartition("\n")[2]
    return bool(WITHIN.search(last)) and len(last.split()) >= LAST_SENTENCE_WORDS and not has_sign_off(email)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
