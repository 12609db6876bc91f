"""Show on a terminal that something slow is not stuck. This file does not know what it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 2.0
"""Nothing is said about what takes less."""


@contextmanager
def patience(doing: str) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what takes so long, and for how long already; gives a function that says it anew."""
    from tqdm import tqdm

    bar = tqdm(desc=doing, bar_format="{desc} ({elapsed})", delay=PATIENCE_SECONDS, disable=None, leave=False)
    ended = threading.Event()

    def tick() -> None:
        pause = PATIENCE_SECONDS
        while not ended.wait(pause):
            bar.refresh()
            pause = 0.5

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield lambda text: bar.set_description_str(text, refresh=False)
    finally:
        ended.set()
        ticking.join()
        bar.close()
