"""May an email be sent as it stands? Rules and what its writer thought of it, put together by a small fitted rule.

The rules (adapters/emails/findings.py) see facts, form and names; how likely the model found its own words tells more
of the meaning than asking it. Each caller fills `Signals` in its own way: a server from its engine, the trainer from
the model in its process. trainer/evaluation/fit_checker.py fits the weights to emails that were read one by one,
and writes data/checker.json; docs/decisions/evaluation.md says what they are worth.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapters.emails.findings import Finding, FindingKind, find
from adapters.emails.form import WORD
from adapters.emails.tasks import Task

FITTED = Path(__file__).parent / "data" / "checker.json"
DOUBT = Finding("meaning", "", "Emails like this one often say something else than their task.")
COUNTED: tuple[FindingKind, ...] = ("missing", "invented", "form", "sender", "order", "swapped")
MOST_COUNTED = 2
# Of content: words of four letters or more, without endings, that are not what an order or any email is made of.
CONTENT, STEM_LETTERS = re.compile(r"[^\W\d_]{4,}"), 5
COMMON = frozenset(
    (
        "about after also asking because been before best could dear email from have into just kind like mail make "
        "more much name need only over please regards said sender should sign signed sincerely some still sure tell "
        "than thank thanks that their them then there they this very want were what when which will with would write "
        "your"
    ).split()
)


@dataclass(frozen=True)
class Signals:
    """What the model that wrote an email says of it."""

    # The mean log probability of its tokens, in nats, at temperature 1.
    likelihood: float


@dataclass(frozen=True)
class Verdict:
    """`probability` that a careful reader would send the email; `holds`: high enough to call it sendable."""

    probability: float
    holds: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Fitted:
    """A logistic rule: the weight of each feature, and the probability from which an email holds."""

    weights: Mapping[str, float]
    threshold: float


@cache
def fitted() -> Fitted:
    found = json.loads(FITTED.read_text(encoding="utf-8"))
    return Fitted(found["weights"], found["threshold"])


def check(task: Task, email: str, ended: bool, signals: Signals, rule: Fitted | None = None) -> Verdict:
    """What is found in an `email` for `task`, whose facts are found in its text; `ended`: by itself, not by a limit."""
    rule = rule or fitted()
    findings = find(task.task, email, task.told, ended)
    values = features(task, email, findings, signals)
    logit = sum(rule.weights[name] * value for name, value in values.items())
    probability = 1 / (1 + math.exp(-logit))
    holds = probability >= rule.threshold
    return Verdict(probability, holds, tuple(findings) if holds or findings else (DOUBT,))


def features(task: Task, email: str, findings: Sequence[Finding], signals: Signals) -> dict[str, float]:
    """What the fitted rule weighs: findings of each kind, the likelihood, and how the words of task and email meet."""
    kinds = [finding.kind for finding in findings]
    asked, written = _content(task.task), _content(email)
    return {
        "constant": 1.0,
        **{str(kind): float(min(MOST_COUNTED, kinds.count(kind))) for kind in COUNTED},
        "likelihood": signals.likelihood,
        "content_kept": len(asked & written) / max(1, len(asked)),
        "content_added": len(written - _content(task.told)) / max(1, len(written)),
        "words": len(WORD.findall(email)) / 100,
        "task_words": len(WORD.findall(task.task)) / 100,
    }


def _content(text: str) -> set[str]:
    return {word[:STEM_LETTERS] for word in map(str.lower, CONTENT.findall(text)) if word not in COMMON}
