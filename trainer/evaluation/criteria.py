"""The limits of a recipe: which figures a version must reach to be promoted.

    facts_kept >= base + 0.10          a figure, an order, and a number or a row of the table with a number added
    sendable >= promoted               holds where nothing is promoted yet
    facts_kept >= base with 3 examples + 0.05
    answers_like_emails <= base        of memorisation and forgetting too, where the base model's figure was measured

A figure that was not measured misses its limit. This file does not know how figures are measured, or the store, which
is told what was missed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapters.errors import ConfigError
from adapters.store.manifest import RENAMED_FIGURES
from trainer.evaluation.figures import FIGURES
from trainer.evaluation.results import PRIMARY, Result

Compare = Callable[[float, float], bool]
ORDERS: dict[str, tuple[Compare, str]] = {
    "<=": (operator.le, "at most"),
    ">=": (operator.ge, "at least"),
    "<": (operator.lt, "below"),
    ">": (operator.gt, "above"),
}
LIMIT = re.compile(
    r"(?P<figure>[a-z][a-z0-9_]*)\s*(?P<order><=|>=|<|>)\s*"
    r"(?:(?P<row>base(?:\s+with\s+(?P<examples>\d{1,2})\s+examples?)?|promoted)(?:\s*(?P<sign>[+-])\s*(?P<more>\d+(?:\.\d+)?))?"
    r"|(?P<number>-?\d+(?:\.\d+)?))"
)
CLOSE = 1e-9
"""0.45 + 0.10 is a little more than 0.55 in binary; nobody should miss a limit by that."""


@dataclass(frozen=True)
class Limit:
    """`row` is the one whose figure `number` is added to: `base`, `base, 3 examples`, `promoted`; None without one."""

    text: str
    figure: str
    order: str
    row: str | None
    number: float


@dataclass(frozen=True)
class Checked:
    """A limit against what was measured; `sentence` says why it does not hold, and is empty if it does."""

    limit: str
    held: bool
    value: float | None
    bound: float | None
    sentence: str


def parse(limits: Sequence[str]) -> list[Limit]:
    """Raises:
    ConfigError: limits that are not understood, or of unknown figures; every one is listed.
    """
    parsed, wrong = [], []
    for text in limits:
        match = LIMIT.fullmatch(text.strip())
        if not match:
            wrong.append(f"{text[:80]!r} is no limit")
        elif _figure(match) not in FIGURES:
            wrong.append(f"{text[:80]!r} is of an unknown figure, {match['figure']}")
        else:
            parsed.append(_limit(match))
    if wrong:
        raise ConfigError(
            f"limits cannot be used: {'; '.join(wrong)}",
            'write "facts_kept >= base + 0.10" or "forgetting <= 0.03"; rows: base, base with 1 example, base with 3 '
            f"examples, promoted; figures: {', '.join(FIGURES)}",
        )
    return parsed


def check(result: Result, limits: Sequence[str]) -> list[Checked]:
    """Every limit against the figures, in order; raises what `parse` raises."""
    return [_checked(result, limit) for limit in parse(limits)]


def misses(result: Result, limits: Sequence[str]) -> list[str]:
    """A sentence for each limit that does not hold; raises what `parse` raises."""
    return [checked.sentence for checked in check(result, limits) if not checked.held]


def evaluation(result: Result, limits: Sequence[str], reasons: Sequence[str] | None = None) -> dict[str, Any]:
    """What the manifest keeps of an evaluation (adapters.store.manifest.Evaluation): figures and no text of anybody's.

    `reasons` is why it did not pass; without it, the limits that were missed.
    """
    checks = check(result, limits)
    missed = [checked.sentence for checked in checks if not checked.held] if reasons is None else list(reasons)
    return {
        "passed": not missed,
        "reasons": missed,
        "date": datetime.now(UTC),
        "version": result.version,
        "base": result.base,
        "tasks": result.tasks,
        "tasks_sha256": result.tasks_sha256,
        "decoding": result.decoding,
        "machine": result.machine,
        "primary": PRIMARY,
        "rows": [row.model_dump() for row in result.rows],
        "comparisons": [comparison.model_dump() for comparison in result.comparisons],
        "memorisation": result.memorisation,
        "forgetting": result.forgetting,
        "limits": [{"limit": c.limit, "held": c.held, "value": c.value, "bound": c.bound} for c in checks],
    }


def _figure(match: re.Match[str]) -> str:
    return RENAMED_FIGURES.get(match["figure"], match["figure"])


def _limit(match: re.Match[str]) -> Limit:
    row, number = match["row"], float(match["number"] or match["more"] or 0)
    if match["examples"]:
        count = int(match["examples"])
        row = f"base, {count} example{'s' if count > 1 else ''}"
    elif row:
        row = row.strip()
    return Limit(match[0], _figure(match), match["order"], row, -number if match["sign"] == "-" else number)


def _checked(result: Result, limit: Limit) -> Checked:
    value = _measured(result, limit.figure, result.version)
    if limit.row == "promoted" and not _promoted(result):
        return Checked(limit.text, True, value, None, "")
    bound = _bound(result, limit)
    if value is None or bound is None:
        of = f" of {limit.row}" if value is not None else ""
        return Checked(limit.text, False, value, bound, f"{limit.figure}{of} was not measured ({limit.text})")
    compare, words = ORDERS[limit.order]
    close = abs(value - bound) <= CLOSE
    if "=" in limit.order if close else compare(value, bound):
        return Checked(limit.text, True, value, bound, "")
    right = limit.text.split(limit.order, 1)[1].strip()
    wanted = f"{right} = {bound:.4g}" if limit.row else f"{bound:.4g}"
    return Checked(limit.text, False, value, bound, f"{limit.figure} is {value:.4g}, and the limit is {words} {wanted}")


def _bound(result: Result, limit: Limit) -> float | None:
    if not limit.row:
        return limit.number
    of_row = _measured(result, limit.figure, _promoted(result) if limit.row == "promoted" else limit.row)
    return None if of_row is None else of_row + limit.number


def _promoted(result: Result) -> str:
    """The name of the promoted version's row; empty if nothing is promoted."""
    return next((row.model for row in result.rows if row.model.startswith("promoted: ")), "")


def _measured(result: Result, figure: str, model: str) -> float | None:
    row = result.row(model)
    if row and row.figures.get(figure) is not None:
        return row.figures[figure]
    beside = result.memorisation | result.forgetting
    if model == result.version:
        return beside.get(figure)
    return beside.get(f"{figure}_base") if model == "base" else None
