"""What an evaluation found: figures by row, differences with their intervals, and the emails themselves.

Made by trainer/evaluate.py, read by the gate, the manifest, the model card and the page. Shares go from 0 to 1. This
file knows neither models nor how results are shown.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

PRIMARY = "passes"
"""The one figure that decides between better and worse: the share of tasks whose email passes the rubric."""

Verdict = Literal["better", "worse", "no difference shown"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(Frozen):
    """One line of the table: who wrote, and its figures over all tasks; None where a figure could not be measured."""

    model: str
    """`base`, `base, 1 example`, `base, 3 examples`, `promoted: NAME@M`, or the evaluated version's id."""
    figures: dict[str, float | None]
    low: dict[str, float] = {}
    """Lower ends of the 95 % intervals of the figures that have one."""
    high: dict[str, float] = {}


class Comparison(Frozen):
    """The evaluated version minus another row, task by task: paired, 95 % bootstrap interval."""

    against: str
    figure: str
    difference: float
    low: float
    high: float
    verdict: Verdict
    """`better` or `worse` only where the interval excludes zero."""


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
    memorisation: dict[str, float] = {}
    forgetting: dict[str, float] = {}
    pairs: list[Pair] = []

    def row(self, model: str) -> Row | None:
        return next((row for row in self.rows if row.model == model), None)
