"""Fit the checker's rule to emails that were read: `python -m trainer.evaluation.fit_checker [--write]`.

Logistic regression with a small L2 term, in which no finding may speak for an email. The figures are of emails whose
task was not fitted on: tasks are dealt into FOLDS parts, each judged by the fit to the others. The threshold is the
lowest from which on at least PRECISION of what holds could be sent by reading, in these figures. No model is needed:
the rows of data/read.jsonl keep what the one that wrote each email said of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata

from adapters.emails.checker import COUNTED, FITTED, Signals, features
from adapters.emails.findings import find
from adapters.emails.tasks import Task

READ = Path(__file__).parent / "data" / "read.jsonl"
FOLDS, SEED, PRECISION, L2 = 10, 0, 0.85, 1.0
# So few emails above a threshold say nothing of its precision.
FEWEST = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Read:
    """One email that was read: `send`: it could be sent; `again`: so said a second reading, if there was one."""

    task_id: str
    send: bool
    again: bool | None
    values: dict[str, float]


@cache
def read_emails(file: Path = READ) -> list[Read]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Read(row["task_id"], row["send"], row.get("again"), _values(row)) for row in rows]


def _values(row: dict[str, Any]) -> dict[str, float]:
    task = Task(
        row["task_id"], row["task"], (), tuple((turn["task"], turn["email"]) for turn in row.get("previous", []))
    )
    findings = find(task.task, row["email"], task.told, row["ended"])
    return features(task, row["email"], findings, Signals(**row["signals"]))


def fit(emails: Sequence[Read]) -> dict[str, float]:
    """The weight of each feature."""
    names = list(emails[0].values)
    x_NF = np.array([[email.values[name] for name in names] for email in emails])
    send_N = np.array([email.send for email in emails], dtype=float)
    free_F = np.array([name == "constant" for name in names])
    # The penalty is the same for features of any unit; one that is never there keeps the weight 0.
    spread_F = np.where(free_F | (x_NF.std(0) == 0), 1.0, x_NF.std(0))
    z_NF = x_NF / spread_F

    def loss(weights_F: Floats) -> tuple[float, Floats]:
        logits_N = z_NF @ weights_F
        penalty_F = np.where(free_F, 0.0, L2 * weights_F)
        value = (np.logaddexp(0, logits_N) - send_N * logits_N).sum() + weights_F @ penalty_F / 2
        return float(value), z_NF.T @ (_sigmoid(logits_N) - send_N) + penalty_F

    bounds = [(None, 0.0 if name in COUNTED else None) for name in names]
    found = minimize(loss, np.zeros(len(names)), jac=True, bounds=bounds, method="L-BFGS-B")
    return {name: round(float(weight), 4) for name, weight in zip(names, found.x / spread_F, strict=True)}


def probabilities(weights: dict[str, float], emails: Sequence[Read]) -> Floats:
    return _sigmoid(np.array([sum(weights[name] * value for name, value in email.values.items()) for email in emails]))


def cross_validated(emails: Sequence[Read]) -> Floats:
    """The probability of each email by a fit that saw no email of its task."""
    tasks = sorted({email.task_id for email in emails})
    fold_of = {task: n % FOLDS for n, task in enumerate(np.random.default_rng(SEED).permutation(tasks).tolist())}
    found = np.zeros(len(emails))
    for fold in range(FOLDS):
        weights = fit([email for email in emails if fold_of[email.task_id] != fold])
        held = [n for n, email in enumerate(emails) if fold_of[email.task_id] == fold]
        found[held] = probabilities(weights, [emails[n] for n in held])
    return found


def threshold(found_N: Floats, send_N: NDArray[np.bool_]) -> tuple[float, float, int]:
    """The lowest probability from which on PRECISION of the emails could be sent, else the best; that, and how many."""
    best = (1.0, 0.0, 0)
    for least in sorted(set(found_N.round(2))):
        held = found_N >= least
        if held.sum() < FEWEST:
            break
        share = float(send_N[held].mean())
        if share > best[1]:
            best = (float(least), share, int(held.sum()))
        if share >= PRECISION:
            break
    return best


def area(found_N: Floats, send_N: NDArray[np.bool_]) -> float:
    """Under the ROC curve: how often an email that could be sent has the higher probability of two."""
    ranks = rankdata(found_N)[send_N]
    count = int(send_N.sum())
    return float((ranks.sum() - count * (count + 1) / 2) / (count * (len(send_N) - count)))


def _sigmoid(logits_N: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits_N))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {FITTED.name}, which the checker reads")
    args = parser.parse_args()
    emails = read_emails()
    send_N = np.array([email.send for email in emails])
    found_N = cross_validated(emails)
    least, share, held = threshold(found_N, send_N)
    weights = fit(emails)
    again = [email.again == email.send for email in emails if email.again is not None]
    twice = f"read twice: {len(again)}, the same {sum(again)} times"
    print(f"{len(emails)} emails read, {send_N.sum()} could be sent; {twice}")
    print(f"by fits to other tasks: area under the curve {area(found_N, send_N):.2f}")
    print(f"held from {least:.2f} on: {held}, of which {share:.2f} could be sent (wanted: {PRECISION})")
    for name, weight in weights.items():
        print(f"{name:>14} {weight:8.3f}")
    if args.write:
        FITTED.write_text(
            json.dumps({"threshold": round(least, 3), "weights": weights}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
