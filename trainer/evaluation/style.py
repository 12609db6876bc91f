"""Style and diversity of answers: their distance from a voice's emails, and how much they repeat one another."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from adapters.emails.form import GREETING, WORD, body
from adapters.emails.tasks import normalise

# A longer text repeats more word pairs by its length alone.
DISTINCT_WORDS = 50
OPENING_WORDS = 5
GRAM_CHARACTERS = range(3, 6)


def distance(answers: Sequence[str], emails: Sequence[str]) -> float | None:
    """1 - cosine between the mean TF-IDF vectors of character 3- to 5-grams: 0 for the same texts, at most 1.

    A gram that comes n times in a text counts 1 + ln n, times the smoothed inverse document frequency over both sides.
    None where no text of a side has three characters. Stamatatos (2009, "A survey of modern authorship attribution
    methods") explains why character n-grams show style.
    """
    ours, theirs = ([grams for grams in map(_grams, side) if grams] for side in (answers, emails))
    if not ours or not theirs:
        return None
    texts_with = Counter(chain.from_iterable([*ours, *theirs]))
    rarity = {gram: 1 + math.log((1 + len(ours) + len(theirs)) / (1 + count)) for gram, count in texts_with.items()}
    one, other = (_direction(side, rarity) for side in (ours, theirs))
    return max(0.0, 1 - sum(weight * other.get(gram, 0) for gram, weight in one.items()))


def _grams(text: str) -> Counter[str]:
    plain = " ".join(text.lower().split())
    return Counter(plain[start : start + size] for size in GRAM_CHARACTERS for start in range(len(plain) - size + 1))


def _direction(texts: Sequence[Counter[str]], rarity: Mapping[str, float]) -> dict[str, float]:
    """The sum of the texts' vectors, each of length 1, scaled to length 1."""
    total: defaultdict[str, float] = defaultdict(float)
    for grams in texts:
        vector = {gram: (1 + math.log(count)) * rarity[gram] for gram, count in grams.items()}
        length = math.hypot(*vector.values())
        for gram, weight in vector.items():
            total[gram] += weight / length
    length = math.hypot(*total.values())
    return {gram: weight / length for gram, weight in total.items()}


def distinct_2(answers: Sequence[str]) -> float | None:
    """The share of different word pairs in the first words of all answers (distinct-n: Li and others, 2016)."""
    pairs = Counter(pair for answer in answers for pair in pairwise(_words(answer)[:DISTINCT_WORDS]))
    return len(pairs) / pairs.total() if pairs else None


def identical_openings(answers: Sequence[str]) -> float | None:
    """The share of answers whose first five words after the greeting also open another one."""
    openings = [tuple(_words(_after_greeting(answer))[:OPENING_WORDS]) for answer in answers]
    counts = Counter(openings)
    return sum(counts[opening] > 1 for opening in openings) / len(openings) if openings else None


def _words(text: str) -> list[str]:
    return WORD.findall(normalise(text))


def _after_greeting(answer: str) -> str:
    lines = [line for line in body(answer.strip()).splitlines() if line.strip()]
    greeting = next((n for n, line in enumerate(lines[:2]) if GREETING.match(line.strip())), None)
    if greeting is None:
        return "\n".join(lines)
    # "Dear Ada, thank you": the text after the name on the greeting's own line opens the email.
    same_line = re.sub(r"^[^,!.:]{0,60}[,!.:]?", "", lines[greeting], count=1)
    return "\n".join([same_line, *lines[greeting + 1 :]])
