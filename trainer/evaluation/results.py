"""What an evaluation found: the manifest's rows and comparisons, how they were come by, and the emails themselves.

Made by trainer/evaluation/evaluate.py, read by the gate, the manifest, the model card and the page. Shares go from 0 to
1. This file knows neither models nor how results are shown.
"""

from __future__ import annotations

from pydantic import Field

from adapters.store.manifest import Comparison, Frozen, Row

# The one figure that decides between better and worse, chosen before any voice was measured.
PRIMARY = "sendable"


class Pair(Frozen):
    """One held-out task, written by the base model and by the evaluated version."""

    task: str
    before: str
    after: str


class Result(Frozen):
    version: str
    base: str
    tasks: int
    tasks_sha256: str
    decoding: str
    """`greedy`, or `greedy and 3 seeds at temperature 0.7`."""
    through: str
    """`in process` or the server's address."""
    machine: str
    seconds: float
    rows: list[Row]
    comparisons: list[Comparison]
    memorisation: dict[str, float] = Field(default_factory=dict)
    forgetting: dict[str, float] = Field(default_factory=dict)
    pairs: list[Pair] = Field(default_factory=list)

    def row(self, model: str) -> Row | None:
        return next((row for row in self.rows if row.model == model), None)
