"""One self-contained HTML page of an evaluation: the verdict, the table, the intervals, and the emails side by side.

The page loads nothing and runs no script: its own policy allows its one style sheet, by digest. The template escapes
all texts.
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
from trainer.evaluation.criteria import manifest_evaluation
from trainer.evaluation.results import Result

TEMPLATES = Path(__file__).parent / "templates"
TICKS = 5
# A narrower axis shows nothing, and its ticks would be too close for a float.
MIN_WIDTH = 1e-9


@dataclass(frozen=True)
class Plot:
    """The differences of one figure, a line each, on an axis from `low` to `high` that has zero on it.

    Differences are multiplied by `scale` to be written: 100 for shares.
    """

    figure: str
    comparisons: list[Comparison]
    scale: float
    low: float
    high: float

    def at(self, difference: float) -> str:
        """Its place between the left and the right end, in percent."""
        return f"{3 + 94 * (difference * self.scale - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[tuple[str, str]]:
        """(place, label) of round numbers."""
        rough = (self.high - self.low) / TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        numbers = [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [(self.at(n / self.scale), f"{n:+.6g}".replace("-", "−") if n else "0") for n in numbers]


def render(result: Result, limits: Sequence[str] = ()) -> str:
    """The page, with the outcome of the criteria that the recipe has in `limits`.

    Raises:
        ConfigError: one of them is not a criterion.
    """
    evaluation = manifest_evaluation(result, limits)
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # No line break before a percent sign.
    environment.filters["firm"] = lambda text: text.replace(" %", "\u00a0%")
    return environment.get_template("page.html.j2").render(
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        result=result,
        evaluation=evaluation,
        names=figures.ordered(name for row in result.rows for name in row.figures),
        plots=plots(evaluation),
        pairs=[(pair.task, *differences(pair.before, pair.after)) for pair in result.pairs],
        figures=figures,
    )


def plots(evaluation: Evaluation) -> list[Plot]:
    """The primary figure first."""
    names = figures.ordered(comparison.figure for comparison in evaluation.comparisons)
    names.sort(key=lambda name: name != evaluation.primary)
    return [_plot(name, [each for each in evaluation.comparisons if each.figure == name]) for name in names]


def _plot(figure: str, comparisons: list[Comparison]) -> Plot:
    scale = 100.0 if figures.difference_unit(figure) == "points" else 1.0
    shown = [0.0, *(x * scale for each in comparisons for x in (each.low, each.difference, each.high))]
    low, high = min(shown), max(shown)
    return Plot(figure, comparisons, scale, low, high if high - low > MIN_WIDTH else low + scale / 100)
