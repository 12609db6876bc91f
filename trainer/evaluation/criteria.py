"""The criteria of a recipe: which figures a version must reach to be promoted.

    facts_kept >= base + 0.10          a figure, an order, and a number or a row of the table with a number added
    sendable >= promoted               met where nothing is promoted yet
    facts_kept >= base with 3 examples + 0.05
    answers_like_emails <= base        of memorisation and forgetting too, where the base model's figure was measured

A figure that was not measured misses its criterion.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.errors import ConfigError
from adapters.store.manifest import RENAMED_FIGURES, Evaluation, Limit
from trainer.evaluation.figures import FIGURES
from trainer.evaluation.results import PRIMARY, Result

ORDERS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "<=": (operator.le, "at most"),
    ">=": (operator.ge, "at least"),
    "<": (operator.lt, "below"),
    ">": (operator.gt, "above"),
}
CRITERION = re.compile(
    r"(?P<figure>[a-z][a-z0-9_]*)\s*(?P<order><=|>=|<|>)\s*"
    r"(?:(?P<row>base(?:\s+with\s+(?P<examples>\d{1,2})\s+examples?)?|promoted)(?:\s*(?P<sign>[+-])\s*(?P<more>\d+(?:\.\d+)?))?"
    r"|(?P<number>-?\d+(?:\.\d+)?))"
)
# 0.45 + 0.10 is a little more than 0.55 in binary.
COMPARED_DIGITS = 9


@dataclass(frozen=True)
class Criterion:
    """`row` is the one whose figure `number` is added to: `base`, `base, 3 examples`, `promoted`; None without one."""

    text: str
    figure: str
    order: str
    row: str | None
    examples: int
    number: float


def parse_criteria(texts: Sequence[str]) -> list[Criterion]:
    """Raises:
    ConfigError: texts that are no criteria, or of unknown figures; every one is listed.
    """
    criteria, wrong = [], []
    for text in texts:
        match = CRITERION.fullmatch(text.strip())
        if not match:
            wrong.append(f"{text[:80]!r} is not a criterion")
        elif _figure(match) not in FIGURES:
            wrong.append(f"{text[:80]!r} is of an unknown figure, {_figure(match)}")
        else:
            criteria.append(_criterion(match))
    if wrong:
        raise ConfigError(
            f"the recipe's `limits` cannot be used: {'; '.join(wrong)}",
            'write "facts_kept >= base + 0.10" or "forgetting <= 0.03"; rows: base, base with 1 example, base with 3 '
            f"examples, promoted; figures: {', '.join(FIGURES)}",
        )
    return criteria


def check_criteria(result: Result, texts: Sequence[str]) -> list[tuple[Limit, str]]:
    """Every criterion against the figures, in order, with the reason why it is missed, empty if it is met.

    Raises what `parse_criteria` raises.
    """
    return [_check(result, criterion) for criterion in parse_criteria(texts)]


def manifest_evaluation(result: Result, texts: Sequence[str]) -> Evaluation:
    """What the manifest keeps of a result: the figures and the outcome of each criterion, no text of an email."""
    checks = check_criteria(result, texts)
    reasons = [reason for _, reason in checks if reason]
    shared = result.model_dump(include=Evaluation.model_fields.keys() & Result.model_fields.keys())
    return Evaluation(
        passed=not reasons,
        reasons=reasons,
        date=datetime.now(UTC),
        primary=PRIMARY,
        limits=[limit for limit, _ in checks],
        **shared,
    )


def _figure(match: re.Match[str]) -> str:
    return RENAMED_FIGURES.get(match["figure"], match["figure"])


def _criterion(match: re.Match[str]) -> Criterion:
    row, examples = match["row"], int(match["examples"] or 0)
    if examples:
        row = f"base, {examples} example{'s' if examples > 1 else ''}"
    number = float(match["number"] or match["more"] or 0)
    sign = -1 if match["sign"] == "-" else 1
    return Criterion(match[0], _figure(match), match["order"], row, examples, sign * number)


def _check(result: Result, criterion: Criterion) -> tuple[Limit, str]:
    value, bound = _measured(result, criterion.figure, result.version), _bound(result, criterion)
    nothing_to_beat = criterion.row == "promoted" and not result.row("promoted")
    reason = "" if nothing_to_beat else _reason(criterion, value, bound)
    return Limit(limit=criterion.text, held=not reason, value=value, bound=bound), reason


def _reason(criterion: Criterion, value: float | None, bound: float | None) -> str:
    """Why the criterion is missed; empty if it is met."""
    if value is None or bound is None:
        of_row = f" of {criterion.row}" if value is not None else ""
        return f"{criterion.figure}{of_row} was not measured ({criterion.text})"
    compare, words = ORDERS[criterion.order]
    if compare(round(value - bound, COMPARED_DIGITS), 0):
        return ""
    right = criterion.text.split(criterion.order, 1)[1].strip()
    wanted = f"{right} = {bound:.4g}" if criterion.row else f"{bound:.4g}"
    return f"{criterion.figure} is {value:.4g} and must be {words} {wanted}"


def _bound(result: Result, criterion: Criterion) -> float | None:
    if not criterion.row:
        return criterion.number
    value = _measured(result, criterion.figure, criterion.row)
    return None if value is None else value + criterion.number


def _measured(result: Result, figure: str, model: str) -> float | None:
    row = result.row(model)
    if row and row.figures.get(figure) is not None:
        return row.figures[figure]
    beside = result.memorisation | result.forgetting
    if model == result.version:
        return beside.get(figure)
    return beside.get(f"{figure}_base") if model == "base" else None
