"""The result of an evaluation: rows, comparisons, how they were measured, and some of the emails.

Shares go from 0 to 1.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from adapters.store.manifest import Comparison, Frozen, Row

# The one figure that decides between better and worse, chosen before any voice was measured.
PRIMARY = "sendable"


class Answer(NamedTuple):
    """What a model wrote; `ended` is False where the limit of tokens cut it off."""

    text: str
    ended: bool


class Pair(Frozen):
    """One held-out task, written by the base model and by the evaluated version."""

    task: str
    before: str
    after: str


class Result(Frozen):
    """`decoding` is `greedy`, or `greedy and 3 seeds at temperature 0.7`; `through` is `in process` or an address."""

    version: str
    base: str
    tasks: int
    tasks_sha256: str
    decoding: str
    through: str
    machine: str
    seconds: float
    rows: list[Row]
    comparisons: list[Comparison]
    memorisation: dict[str, float] = Field(default_factory=dict)
    forgetting: dict[str, float] = Field(default_factory=dict)
    pairs: list[Pair] = Field(default_factory=list)

    def row(self, model: str) -> Row | None:
        """The row of that name; `promoted` finds `promoted: NAME@N`."""
        return next((row for row in self.rows if row.model == model or row.model.startswith(f"{model}: ")), None)
