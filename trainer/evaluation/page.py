"""One self-contained HTML page of an evaluation: the verdict, the table, the intervals, and the emails side by side.

Nothing is fetched and no script runs: the page's own policy allows its one style sheet, by digest, and nothing else.
All texts are escaped by the template. This file does not know where the page is written.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adapters.emails.diff import differences
from adapters.store.manifest import Comparison, Evaluation
from trainer.evaluation import figures
from trainer.evaluation.criteria import evaluation as kept
from trainer.evaluation.results import Result

TEMPLATES = Path(__file__).parent / "templates"
TICKS = 5
"""About as many on an axis."""
NARROWEST = 1e-9
"""A narrower axis shows nothing, and its ticks would be too close for a float."""


@dataclass(frozen=True)
class Axis:
    """Where a difference stands between the left and the right end, in percent; zero is always on it."""

    low: float
    high: float
    scale: float
    """What a difference is multiplied by to be written: 100 for shares."""

    def at(self, difference: float) -> str:
        return f"{3 + 94 * (difference * self.scale - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[tuple[str, str]]:
        """(position, label) of round numbers."""
        rough = (self.high - self.low) / TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        numbers = [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [(self.at(n / self.scale), f"{n:+.6g}".replace("-", "−") if n else "0") for n in numbers]


@dataclass(frozen=True)
class Plot:
    """The differences of one figure, a line for each row that the version is compared with."""

    figure: str
    axis: Axis
    comparisons: list[Comparison]


def render(result: Result, limits: Sequence[str] = ()) -> str:
    """The page; `limits` are the recipe's, shown with what became of them.

    Raises:
        ConfigError: limits that are not understood.
    """
    evaluation = Evaluation(**kept(result, limits))
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["firm"] = firm
    return environment.get_template("page.html.j2").render(
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        result=result,
        evaluation=evaluation,
        figures=figures.ordered(name for row in result.rows for name in row.figures),
        plots=plots(evaluation),
        pairs=[(pair.task, *differences(pair.before, pair.after)) for pair in result.pairs],
        legend=figures,
    )


def firm(text: str) -> str:
    """With no line break before a percent sign."""
    return text.replace(" %", "\u00a0%")


def plots(evaluation: Evaluation) -> list[Plot]:
    """The primary figure first."""
    compared = figures.ordered(comparison.figure for comparison in evaluation.comparisons)
    compared.sort(key=lambda figure: figure != evaluation.primary)
    found = []
    for figure in compared:
        comparisons = [c for c in evaluation.comparisons if c.figure == figure]
        found.append(Plot(figure, _axis(figure, comparisons), comparisons))
    return found


def _axis(figure: str, comparisons: Sequence[Comparison]) -> Axis:
    scale = 100.0 if figures.difference_unit(figure) == "points" else 1.0
    low = scale * min(0.0, *(c.low for c in comparisons), *(c.difference for c in comparisons))
    high = scale * max(0.0, *(c.high for c in comparisons), *(c.difference for c in comparisons))
    return Axis(low, high if high - low > NARROWEST else low + scale / 100, scale)
