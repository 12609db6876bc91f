"""The lines that the trainer logs on stderr, its progress bar, and the files that it writes.

Of several processes that train together only the first one prints.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import ConfigError
from trainer.compute import distributed

# Long-running functions take one to report their progress with: `log`, or a test's own.
Log = Callable[[str], None]
LEVELS, ABOVE, BROKEN = "▁▂▃▄▅▆▇█", "^", "x"
"""The characters of a sparkline: on its scale, above it, and for NaN or infinity."""


def log(line: str) -> None:
    if distributed.FIRST:
        print(line, file=sys.stderr, flush=True)


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


def check_directory(file: Path) -> None:
    """Raise ConfigError, before anything slow, if there is no directory to write `file` into."""
    if not file.parent.is_dir():
        raise ConfigError(f"{file} cannot be written: there is no directory {file.parent}", "make it first")


def check_new_directory(directory: Path) -> None:
    """Raise ConfigError, before anything slow, if `directory` is there with something in it, or cannot be made."""
    check_directory(directory)
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise ConfigError(f"{directory} is there already and no directory", "name another one")
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"the directory {directory} is there already and not empty", "name another one, or empty it")
    if not os.access(directory.parent, os.W_OK):
        raise ConfigError(f"nothing can be written into {directory.parent}", "name a directory elsewhere")


def write(file: Path, content: str) -> None:
    """Write it whole, as UTF-8, and log its name.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        file.write_bytes(content.encode())
    except OSError as exc:
        raise ConfigError(f"{file} cannot be written ({exc.strerror})", "give another file") from exc
    log(f"wrote {file}")
