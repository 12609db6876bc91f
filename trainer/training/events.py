"""JSON lines of a run, for programs that watch it: `trainer sft --events FILE`. No email is in them.

{"event": "step", "step": 12, "steps": 287, "epoch": 0.04, "loss": 2.31, "learning_rate": 0.0009, "tokens": 9804,
 "tokens_per_second": 141.2, "seconds_left": 1520.0}
{"event": "epoch", "epoch": 1, "train_loss": 1.84, "heldout_loss": 1.71}
{"event": "verdict", "verdict": "healthy", "because": "...", "hint": ""}
{"event": "published", "version": "formal@3"}
{"event": "written", "path": "/home/kim/formal"}           instead of the last, of a run from scratch
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import ConfigError
from trainer.compute import distributed

# Called with the name of an event and its fields.
EventSink = Callable[..., None]


def no_events(event: str, **fields: object) -> None:
    pass


@contextmanager
def events_to(file: Path | None, append: bool) -> Iterator[EventSink]:
    """Writes each event to `file` at once, so that a reader sees it.

    Raises:
        ConfigError: the file cannot be written.
    """
    if file is None or not distributed.FIRST:
        yield no_events
        return
    try:
        lines = file.open("a" if append else "w", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"the events cannot be written to {file}: {exc.strerror}", "give another --events") from exc
    with lines:

        def emit(event: str, **fields: object) -> None:
            lines.write(json.dumps({"event": event} | {name: _value(value) for name, value in fields.items()}) + "\n")
            lines.flush()

        yield emit


def _value(value: object) -> object:
    """A float with six digits; NaN and infinity, which JSON does not have, as null."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
