"""Which learning rates are too slow, just right and too fast, judged by short trials that differ in nothing else.

    1e-3   held-out loss 5.186   too slow
    3e-2   held-out loss 1.293   just right
    1e-1   held-out loss 4.093   too fast

Short trials slightly favour high rates: the best one after 30 steps may not be the best after 300.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["too slow", "just right", "too fast"]
# From 1e-5 to 1e-2, with half decades where a LoRA's best rate usually lies.
RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
# A trial is just right if it loses no more than this share of the best trial's gain.
JUST_RIGHT_SHARE = 0.1
# A trial is too fast if it ends above the first loss by this share; none is just right if none gains as much.
MIN_CHANGE = 0.02
# Where all trials are too fast, the curves are drawn up to this multiple of the first loss.
SCALE_ABOVE_FIRST = 1.2
MAX_PLAIN_LOSS = 1e4


@dataclass(frozen=True)
class Trial:
    """Losses in nats a token. A NaN or infinite one ends the trial, and its `heldout` is NaN."""

    learning_rate: float
    # Of every step, before its update: all trials begin with the same one.
    losses: tuple[float, ...]
    heldout: float


@dataclass(frozen=True)
class Sweep:
    """Trials of `steps` steps, from the same weights on the same batches; the slowest first."""

    trials: tuple[Trial, ...]
    heldout_before: float
    steps: int
    batch_size: int
    heldout_emails: int

    @property
    def chosen(self) -> Trial | None:
        """The one with the lowest held-out loss, of equal ones the slowest; None if it gained less than MIN_CHANGE."""
        finite = [trial for trial in self.trials if math.isfinite(trial.heldout)]
        best = min(finite, key=lambda trial: trial.heldout, default=None)
        return best if best and self.heldout_before - best.heldout >= MIN_CHANGE * self.heldout_before else None

    def verdict(self, trial: Trial) -> Verdict:
        """A trial that is not just right is too slow below the best rate and too fast above it."""
        if not math.isfinite(trial.heldout) or trial.heldout > (1 + MIN_CHANGE) * self.heldout_before:
            return "too fast"
        best = self.chosen
        if not best:
            return "too slow"
        if trial.heldout - best.heldout <= JUST_RIGHT_SHARE * (self.heldout_before - best.heldout):
            return "just right"
        return "too slow" if trial.learning_rate < best.learning_rate else "too fast"

    @property
    def advice(self) -> str:
        """Which rates to try next; empty if the best one lies between worse ones."""
        verdicts = {self.verdict(trial) for trial in self.trials}
        slowest, fastest = self.trials[0].learning_rate, self.trials[-1].learning_rate
        if not self.chosen and verdicts == {"too slow", "too fast"}:
            return "try more steps, or rates in between"
        if "too fast" not in verdicts:
            return f"none was too fast: try faster ones too{_rates(fastest, (1, 3, 10))}"
        if "too slow" not in verdicts:
            return f"none was too slow: try slower ones too{_rates(slowest, (0.1, 0.3, 1))}"
        return ""

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest loss to draw; the curve of a trial that is too fast may leave the picture."""
        everything = _finite(self.trials)
        calm = _finite([trial for trial in self.trials if self.verdict(trial) != "too fast"])
        low = min(everything, default=0.0)
        high = max(calm) if calm else SCALE_ABOVE_FIRST * max(_finite(self.trials, 1), default=1.0)
        return low, max(high, low + 1e-6)


def _finite(trials: Sequence[Trial], first: int | None = None) -> list[float]:
    return [loss for trial in trials for loss in trial.losses[:first] if math.isfinite(loss)]


def _rates(rate: float, factors: Sequence[float]) -> str:
    """` (--rates 1e-2,3e-2,1e-1)`; empty if fewer than two are below 1."""
    tried = [rate * factor for factor in factors if rate * factor < 1]
    return f" (--rates {','.join(map(format_rate, tried))})" if len(tried) > 1 else ""


def format_loss(loss: float) -> str:
    if not math.isfinite(loss):
        return "NaN"
    return f"{loss:.3f}" if loss < MAX_PLAIN_LOSS else f"{loss:.1e}"


def format_rate(rate: float) -> str:
    """As people write learning rates, and flags read them: 1e-4, 2.5e-3."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
