"""Texts that are the same or nearly so: exact after normalising, near by the word n-grams they share.

Candidates come from MinHash and locality-sensitive hashing (datasketch); each is confirmed by its Jaccard similarity.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise

from adapters.emails.form import grams
from adapters.emails.tasks import normalise

# Of a gram; of a short text a tenth of its words, so that one word of ten may differ at any length.
GRAM_WORDS = 5
# The Jaccard similarity of near duplicates: the usual threshold for grams of five words.
MIN_SIMILARITY = 0.8
# Candidates share pairs of neighbouring words. Two texts that share s of them become candidates with probability
# 1 - (1 - s^4)^24: 0.99 at s = 0.64, the least of near duplicates (ten words, one of them another), 0.9999 at 0.75.
BANDS, ROWS = 24, 4
# So many near duplicates stand for all others: 10,000 copies of one email would have 50 million pairs.
MAX_INDEXED_DUPLICATES = 20

WORD = re.compile(r"\w+")
ENDS = " \"'`*_.,;:!?()[]<>-"


def exact_clusters(texts: Sequence[str]) -> list[list[int]]:
    """Indices of texts that differ at most in case, spaces, kinds of quotes and punctuation at their ends."""
    return _alike([normalise(text).strip(ENDS) for text in texts])


def clusters(texts: Sequence[str]) -> list[list[int]]:
    """Sorted clusters of indices of exact or near duplicates, chains included; 10,000 emails take 4 s on one core."""
    exact = exact_clusters(texts)
    repeats = {index for cluster in exact for index in cluster[1:]}
    kept = [index for index in range(len(texts)) if index not in repeats]
    near = _near([WORD.findall(normalise(texts[index])) for index in kept])
    return merged(len(texts), [*exact, *([kept[one], kept[other]] for one, other in near)])


def merged(count: int, groups: Iterable[Sequence[int]]) -> list[list[int]]:
    """The sorted groups of 0 .. count - 1, joined if they share a member; without groups of one."""
    from scipy.cluster.hierarchy import DisjointSet

    sets = DisjointSet(range(count))
    for group in groups:
        for member in group[1:]:
            sets.merge(group[0], member)
    return _alike([sets[index] for index in range(count)])


def _alike(keys: Sequence[Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[key].append(index)
    return [indices for indices in found.values() if len(indices) > 1]


def _near(texts: Sequence[list[str]]) -> list[tuple[int, int]]:
    """Pairs of near duplicates that connect every cluster; not every pair of a cluster."""
    from datasketch import MinHash, MinHashLSH
    from scipy.cluster.hierarchy import DisjointSet

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    hashes = MinHash.generator(_pairs(texts), num_perm=BANDS * ROWS, hashfunc=int, scheme="affine32")
    sets = DisjointSet(range(len(texts)))
    found = []
    for number, minhash in enumerate(hashes):
        candidates = index.query(minhash)
        for other in candidates:
            if not sets.connected(other, number) and _are_near(texts[number], texts[other]):
                sets.merge(other, number)
                found.append((other, number))
        if sum(sets.connected(other, number) for other in candidates) < MAX_INDEXED_DUPLICATES:
            index.insert(number, minhash, check_duplication=False)
    return found


def _pairs(texts: Iterable[list[str]]) -> Iterator[set[int]]:
    """A number of 32 bits for every two neighbouring words of each text; datasketch mixes its bits."""
    numbers: dict[str, int] = {}
    for words in texts:
        numbered = [numbers.setdefault(word, len(numbers) + 1) for word in ["", *words]]
        yield {(one * 0x9E3779B1 + other) & 0xFFFFFFFF for one, other in pairwise(numbered)}


def _are_near(one: list[str], other: list[str]) -> bool:
    shorter, longer = sorted((len(one), len(other)))
    size = max(1, min(GRAM_WORDS, shorter // 10))
    if shorter < MIN_SIMILARITY * longer / 2:
        return False
    first, second = set(grams(one, size)), set(grams(other, size))
    both = len(first & second)
    return both > 0 and both >= MIN_SIMILARITY * (len(first) + len(second) - both)
