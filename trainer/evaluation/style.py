"""How far answers are from a voice, and from one another: style distance and diversity.

Figures of texts only. This file knows neither tasks nor models, and not whether a style is good.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from adapters.emails.form import GREETING, WORD, body
from adapters.emails.tasks import normalise

FIRST_WORDS = 50
"""Of each answer, for `distinct_2`: a longer text repeats more word pairs by its length alone."""
OPENING_WORDS = 5
GRAMS = 3, 5
"""Characters of the shortest and the longest n-gram."""


def distance(answers: Sequence[str], emails: Sequence[str]) -> float | None:
    """1 - cosine between the mean TF-IDF vectors of character 3- to 5-grams: 0 for the same texts, at most 1.

    A gram that comes n times in a text counts 1 + ln n, times the smoothed inverse document frequency over both sides,
    so that both weigh alike in what is common. None where no text of a side has three characters. Stamatatos (2009, "A
    survey of modern authorship attribution methods") has why character n-grams.
    """
    ours, theirs = ([grams for grams in map(_grams, side) if grams] for side in (answers, emails))
    if not ours or not theirs:
        return None
    texts = Counter(chain.from_iterable([*ours, *theirs]))
    rarity = {gram: 1 + math.log((1 + len(ours) + len(theirs)) / (1 + count)) for gram, count in texts.items()}
    one, other = (_direction(side, rarity) for side in (ours, theirs))
    return max(0.0, 1 - sum(weight * other.get(gram, 0) for gram, weight in one.items()))


def _grams(text: str) -> Counter[str]:
    plain = " ".join(text.lower().split())
    shortest, longest = GRAMS
    return Counter(
        plain[start : start + size] for size in range(shortest, longest + 1) for start in range(len(plain) - size + 1)
    )


def _direction(texts: Sequence[Counter[str]], rarity: Mapping[str, float]) -> dict[str, float]:
    """Of length 1, as the sum of the texts' vectors, each of length 1."""
    total: defaultdict[str, float] = defaultdict(float)
    for grams in texts:
        vector = {gram: (1 + math.log(count)) * rarity[gram] for gram, count in grams.items()}
        for gram, weight in _of_length_1(vector).items():
            total[gram] += weight
    return _of_length_1(total)


def _of_length_1(vector: Mapping[str, float]) -> dict[str, float]:
    length = math.hypot(*vector.values())
    return {gram: weight / length for gram, weight in vector.items()}


def distinct_2(answers: Sequence[str]) -> float | None:
    """Different word pairs of all pairs in the first 50 words of each answer (Li and others, 2016, distinct-n)."""
    pairs = Counter(pair for answer in answers for pair in pairwise(_words(answer)[:FIRST_WORDS]))
    return len(pairs) / pairs.total() if pairs else None


def identical_openings(answers: Sequence[str]) -> float | None:
    """The share of answers whose first five words after the greeting are also those of another one."""
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
    # "Dear Ada, thank you": what follows the name on the greeting's own line opens the email.
    same_line = re.sub(r"^[^,!.:]{0,60}[,!.:]?", "", lines[greeting], count=1)
    return "\n".join([same_line, *lines[greeting + 1 :]])
