"""Which words two texts do not share, as spans to highlight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

# A piece of text, and the side that alone has it; None for both, and for white space between.
Span = tuple[str, str | None]

ONLY_LEFT, ONLY_RIGHT = "only left", "only right"
# Punctuation inside a word or number belongs to it: can't, 10:15, £68.50, GB-4471. All alternatives together match any
# text, so that the pieces joined are the text again.
PIECE = re.compile(r"\w+(?:[^\w\s]\w+)*|[^\w\s]|\s+")


def differences(left: str, right: str) -> tuple[list[Span], list[Span]]:
    """Both texts in spans; as few words as possible are marked. The spans joined are the text, letter for letter."""
    from rapidfuzz.distance import LCSseq

    pieces = PIECE.findall(left), PIECE.findall(right)
    words = [[(n, piece) for n, piece in enumerate(side) if not piece.isspace()] for side in pieces]
    # Not difflib: two texts of 2,000 words in which a model repeats itself take it 54 s, and this a millisecond.
    blocks = LCSseq.editops(*([word for _, word in side] for side in words)).as_matching_blocks()
    shared = (
        {words[0][i][0] for block in blocks for i in range(block.a, block.a + block.size)},
        {words[1][i][0] for block in blocks for i in range(block.b, block.b + block.size)},
    )
    return _spans(pieces[0], shared[0], ONLY_LEFT), _spans(pieces[1], shared[1], ONLY_RIGHT)


def _spans(pieces: Sequence[str], shared: set[int], mark: str) -> list[Span]:
    """Neighbours of one mark as one span; white space between two marked words is marked with them."""
    marks: list[str | None] = [None if n in shared or piece.isspace() else mark for n, piece in enumerate(pieces)]
    for n in range(1, len(pieces) - 1):
        if pieces[n].isspace() and marks[n - 1] and marks[n + 1]:
            marks[n] = mark
    grouped = groupby(zip(pieces, marks, strict=True), key=lambda marked: marked[1])
    return [("".join(piece for piece, _ in group), kind) for kind, group in grouped]
