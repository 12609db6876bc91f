"""What a command says on stderr while it works: sentences, and a bar with the time left. It knows no command.

Of several processes that train together the first speaks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer import processes

Say = Callable[[str], None]
"""What a function that works for a while is given to say sentences with: `say`, or a listener of its own."""


def say(sentence: str) -> None:
    if processes.FIRST:
        print(sentence, file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """Gives what is to be called with the work done since the last call, of `total` in all, in any unit."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f} % |{bar}| {elapsed}, {remaining} left"
    with tqdm(
        total=total, desc=what, bar_format=form, file=sys.stderr, dynamic_ncols=True, disable=not processes.FIRST
    ) as shown:
        yield shown.update
