"""What a command says on stderr while it works: sentences, and a bar with the time left. It knows no command.

Of several processes that train together the first speaks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from trainer.compute import distributed

Say = Callable[[str], None]
"""What a function that works for a while is given to say sentences with: `say`, or a listener of its own."""
LEVELS, ABOVE, BROKEN = "▁▂▃▄▅▆▇█", "^", "x"
"""The characters of a sparkline: on its scale, above it, and for NaN or infinity."""


def say(sentence: str) -> None:
    if distributed.FIRST:
        print(sentence, file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """Gives what is to be called with the work done since the last call, of `total` in all, in any unit."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f} % |{bar}| {elapsed}, {remaining} left"
    with tqdm(
        total=total, desc=what, bar_format=form, file=sys.stderr, dynamic_ncols=True, disable=not distributed.FIRST
    ) as shown:
        yield shown.update


def sparkline(values: Sequence[float], low: float = 0.0, high: float | None = None) -> str:
    """One character for each value, on a scale from `low` to `high`, by default to the largest."""
    top = max(filter(math.isfinite, values), default=low) if high is None else high

    def level(value: float) -> str:
        if not math.isfinite(value):
            return BROKEN
        if value > top:
            return ABOVE
        return LEVELS[min(len(LEVELS) - 1, int(len(LEVELS) * (value - low) / (top - low)))] if top > low else LEVELS[0]

    return "".join(map(level, values))
