"""How sure a figure is: bootstrap intervals over tasks, and a verdict only where the interval allows one.

A figure is a ratio of two sums over tasks (facts kept of facts; a plain share has 1 below each task). A resample draws
whole tasks, the same ones for both sides of a comparison: a hard task is hard for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from adapters.store.manifest import Comparison, Verdict

RESAMPLES, CONFIDENCE, SEED = 10_000, 0.95, 20261126
# Resamples at once: 8 MB for 1,000 tasks.
BATCH = 1000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """What each task contributes to a figure, above and below the line: one entry a task, in the same order."""

    above: Sequence[float]
    below: Sequence[float]

    @classmethod
    def mean(cls, values: Sequence[float]) -> Tally:
        return cls(values, [1.0] * len(values))

    @property
    def figure(self) -> float | None:
        """None without tasks."""
        return float(_ratio(np.array(self.above, float), np.array(self.below, float))) if self.above else None


def interval(tally: Tally) -> tuple[float, float] | None:
    """The 95 % percentile interval of the figure; None for fewer than two tasks, which have no spread."""
    return _bootstrapped(_ratio, tally) if len(tally.above) > 1 else None


def compare(figure: str, one: Tally, against: str, other: Tally, smaller_is_better: bool = False) -> Comparison | None:
    """The figure of `one` minus that of `other`, of the row `against`, on the same tasks; None for fewer than two.

    Raises:
        ValueError: the two do not have the same number of tasks.
    """
    if len(one.above) != len(other.above):
        raise ValueError(f"{len(one.above)} tasks cannot be paired with {len(other.above)}")
    if one.figure is None or other.figure is None or len(one.above) < 2:
        return None
    low, high = _bootstrapped(_difference, one, other)
    better, worse = (high < 0, low > 0) if smaller_is_better else (low > 0, high < 0)
    verdict: Verdict = "better" if better else "worse" if worse else "no difference shown"
    value = one.figure - other.figure
    return Comparison(against=against, figure=figure, difference=value, low=low, high=high, verdict=verdict)


def _bootstrapped(statistic: object, *tallies: Tally) -> tuple[float, float]:
    ends = bootstrap(
        [np.array(side, float) for tally in tallies for side in (tally.above, tally.below)],
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def _ratio(above: Array, below: Array, axis: int = -1) -> Array:
    """Sum over sum; nothing of nothing is 0."""
    total = below.sum(axis)
    ratio: Array = np.divide(above.sum(axis), total, out=np.zeros_like(total), where=total > 0)
    return ratio


def _difference(above: Array, below: Array, other_above: Array, other_below: Array, axis: int = -1) -> Array:
    return _ratio(above, below, axis) - _ratio(other_above, other_below, axis)
