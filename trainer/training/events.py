"""JSON lines of a run, for programs that watch it: `trainer sft --events FILE`.

    {"event": "step", "step": 12, "steps": 287, "epoch": 0.04, "loss": 2.31, "learning_rate": 0.0009, "tokens": 9804,
     "tokens_per_second": 141.2, "seconds_left": 1520.0}
    {"event": "epoch", "epoch": 1, "train_loss": 1.84, "heldout_loss": 1.71}
    {"event": "verdict", "verdict": "healthy", "because": "...", "hint": ""}
    {"event": "published", "version": "formal@3"}
    {"event": "written", "path": "/home/kim/formal"}           instead of the last, of a run from scratch

No email is in them. A number that is none is null. This file does not know trainers; trainer/training/callbacks.py
tells it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import ConfigError
from trainer.compute import distributed

Tell = Callable[..., None]
"""Called with the event's name and its fields."""


def nobody(event: str, **fields: object) -> None:
    """Tells nobody."""


@contextmanager
def told_to(file: Path | None, append: bool) -> Iterator[Tell]:
    """What writes events to `file`, each at once, so that a reader sees it; without a file nobody is told.

    Raises:
        ConfigError: the file cannot be written.
    """
    if file is None or not distributed.FIRST:
        yield nobody
        return
    try:
        lines = file.open("a" if append else "w", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"the events cannot be written to {file}: {exc.strerror}", "give another --events") from exc
    with lines:

        def tell(event: str, **fields: object) -> None:
            lines.write(json.dumps({"event": event} | {name: _number(value) for name, value in fields.items()}) + "\n")
            lines.flush()

        yield tell


def _number(value: object) -> object:
    """A number with what digits it needs, and None for one that is none, which JSON does not have."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
