"""How far answers are from a voice, and from one another: style distance and diversity.

Figures of texts only. This file knows neither tasks nor models, and not whether a style is good.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from adapters.tasks import normalise
from trainer.rubric import GREETING, WORD, body

FIRST_WORDS = 50
"""Of each answer, for `distinct_2`: a longer text repeats more word pairs by its length alone."""
OPENING_WORDS = 5
GRAMS = 3, 5
"""Characters of the shortest and the longest n-gram."""


def distance(answers: Sequence[str], emails: Sequence[str]) -> float | None:
    """1 - cosine between the mean TF-IDF vectors of character 3- to 5-grams: 0 for the same texts, at most 1.

    Both sides weigh alike in what counts as common. None where no text of a side has three characters. Stamatatos
    (2009, "A survey of modern authorship attribution methods") has why character n-grams.
    """
    if not all(any(len(" ".join(text.split())) >= GRAMS[0] for text in side) for side in (answers, emails)):
        return None
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=GRAMS, sublinear_tf=True)
    vectors = vectorizer.fit_transform([*answers, *emails])
    sides = (vectors[: len(answers)], vectors[len(answers) :])
    ours, theirs = (np.asarray(side.mean(axis=0)).reshape(1, -1) for side in sides)
    return max(0.0, float(1 - cosine_similarity(ours, theirs)[0, 0]))


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
