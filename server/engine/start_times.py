"""How long each phase of a start took, printed when the server is ready.

A phase ends where `ended` is called; the next one begins there. The first began with the process, so that Python's own
start counts. vLLM's engine is one phase: its own log breaks that down.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]


class Startup:
    """`clock` and `began` are of the wall clock, in seconds; `began` is by default the start of the process."""

    def __init__(self, clock: Callable[[], float] = time.time, began: float | None = None) -> None:
        self._clock = clock
        self._began = self._last = psutil.Process().create_time() if began is None else began
        self._phases: dict[str, float] = {}

    def ended(self, phase: str) -> None:
        now = self._clock()
        self._phases[phase] = now - self._last
        self._last = now

    def __str__(self) -> str:
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self._phases.items())
        return f"after {self._last - self._began:.1f} s: {parts}"
