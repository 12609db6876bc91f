"""Which learning rates are too slow, just right and too fast, from short trials that differ in nothing else.

    1e-3   held-out loss 5.186   too slow
    3e-2   held-out loss 1.293   just right
    1e-1   held-out loss 4.093   too fast

The learning rate is the speed of learning: too slow and little is learnt in the time, too fast and the loss jumps
about or climbs. Short trials favour fast rates a little: what is ahead after 30 steps need not be after 300. This file
knows neither trainers nor models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["too slow", "just right", "too fast"]
RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""From 1e-5 to 1e-2, and half decades where a LoRA's best rate usually lies."""
WITHIN = 0.1
"""Just right is a trial whose held-out loss is above the best by no more than a tenth of what the best took off it."""
MOVED = 0.02
"""Too fast is a trial that ends 2 % above where it began; without one that took 2 % off, nothing is just right."""
ABOVE = 1.2
"""Where all trials are too fast their curves are drawn up to 1.2 times the first loss."""
FAR = 1e4
"""From here on a loss is written with an exponent."""


@dataclass(frozen=True)
class Trial:
    """Losses in nats a token."""

    learning_rate: float
    losses: tuple[float, ...]
    """Of every step, before its update; the first is the same in all trials. One that is no number is the last."""
    heldout: float
    """After the last step; no number where a step's loss is none."""


@dataclass(frozen=True)
class Sweep:
    """Trials of as many `steps`, from the same weights on the same batches; the slowest first, no rate twice."""

    trials: tuple[Trial, ...]
    heldout_before: float
    """The held-out loss before them."""
    steps: int
    batch_size: int
    heldout_emails: int

    @property
    def chosen(self) -> Trial | None:
        """The one with the lowest held-out loss, of equal ones the slowest; none where it took less than 2 % off."""
        finite = [trial for trial in self.trials if math.isfinite(trial.heldout)]
        best = min(finite, key=lambda trial: trial.heldout, default=None)
        return best if best and self.heldout_before - best.heldout >= MOVED * self.heldout_before else None

    def verdict(self, trial: Trial) -> Verdict:
        """What is neither broken nor just right is judged by the side of the best rate on which it lies."""
        if not math.isfinite(trial.heldout) or trial.heldout > (1 + MOVED) * self.heldout_before:
            return "too fast"
        best = self.chosen
        if not best:
            return "too slow"
        if trial.heldout - best.heldout <= WITHIN * (self.heldout_before - best.heldout):
            return "just right"
        return "too slow" if trial.learning_rate < best.learning_rate else "too fast"

    @property
    def advice(self) -> str:
        """Which rates to try next, as a sentence; empty where the best one lies between worse ones."""
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
        """The lowest and the highest loss to draw: a trial that is too fast may leave the picture at the top."""
        everything = _finite(self.trials)
        calm = _finite([trial for trial in self.trials if self.verdict(trial) != "too fast"])
        low = min(everything, default=0.0)
        high = max(calm) if calm else ABOVE * max(_finite(self.trials, 1), default=1.0)
        return low, max(high, low + 1e-6)


def _finite(trials: Sequence[Trial], first: int | None = None) -> list[float]:
    return [loss for trial in trials for loss in trial.losses[:first] if math.isfinite(loss)]


def _rates(rate: float, factors: Sequence[float]) -> str:
    """` (--rates 1e-2,3e-2,1e-1)`, or nothing where these are no learning rates."""
    tried = [rate * factor for factor in factors if rate * factor < 1]
    return f" (--rates {','.join(map(written, tried))})" if len(tried) > 1 else ""


def shown(loss: float) -> str:
    """In at most 9 characters, whatever it is."""
    if not math.isfinite(loss):
        return "no number"
    return f"{loss:.3f}" if loss < FAR else f"{loss:.1e}"


def written(rate: float) -> str:
    """As people write learning rates, and flags read them: 1e-4, 2.5e-3."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
