"""The figures of an evaluation: their names in criteria and manifests, their definitions, and how values are written.

The criteria, the model card, the page and the documentation share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adapters.store.manifest import Comparison, Evaluation, Row


@dataclass(frozen=True)
class Figure:
    title: str
    unit: Literal["share", "number", "count"]
    meaning: str = ""


# In the order of a table.
FIGURES: dict[str, Figure] = {
    "sendable": Figure("sendable emails", "share", "could be sent as they stand"),
    "facts_kept": Figure("facts kept", "share", "of all facts of the tasks"),
    "all_kept": Figure("all facts kept", "share", "emails that keep every fact of their task"),
    "facts_invented": Figure("facts invented", "share", "of the facts stated, those not in the task"),
    "greeting": Figure("greeting", "share"),
    "sign_off": Figure("sign-off", "share"),
    "subject": Figure("subject line", "share"),
    "placeholder": Figure("placeholders", "share", "such as [Your Name]"),
    "mask": Figure("masks", "share", "such as [PHONE], which training data may hold"),
    "length_ok": Figure("length in bounds", "share"),
    "words": Figure("words", "count", "mean of an email"),
    "ended": Figure("ends by itself", "share"),
    "repeats": Figure("repeats itself", "share", "a word 4-gram three times"),
    "preamble": Figure("preamble", "share", 'such as "Sure! Here\'s"'),
    "copied": Figure("copies the task", "share"),
    "revisions_followed": Figure("revisions followed", "share", "of the second turns"),
    "heldout_loss": Figure("held-out loss", "number", "nats a token"),
    "bits_per_byte": Figure("bits per byte", "number", "of the held-out emails"),
    "style_distance": Figure("style distance", "number", "from the voice's held-out emails; 0 is the same"),
    "distinct_2": Figure("distinct word pairs", "share", "of all pairs in all emails"),
    "identical_openings": Figure("identical openings", "share"),
    "copied_8grams": Figure("8-grams from training emails", "share", "not given in the task"),
    "copied_8grams_heldout": Figure("8-grams from held-out emails", "share", "the language that such emails share"),
    "copied_more": Figure("8-grams copied", "share", "beyond those from held-out emails"),
    "extraction_rate": Figure(
        "extraction rate", "share", "training emails written again (half or more) for their task"
    ),
    "tasks_trained_on": Figure("tasks trained on", "count", "nearly among the training emails, so they test nothing"),
    "personal_data_leaked": Figure("personal data leaked", "count", "values of training emails, not given in the task"),
    "general_loss_base": Figure("loss on general text, base", "number", "nats a token"),
    "general_loss": Figure("loss on general text", "number", "nats a token"),
    "instructions_loss_base": Figure("loss on instructions, base", "number", "nats a token of its own answers"),
    "instructions_loss": Figure("loss on instructions", "number", "nats a token of the base model's answers"),
    "forgetting": Figure("forgetting", "share", "relative rise of the loss on general text"),
    "answers_like_emails_base": Figure("questions answered with an email, base", "share"),
    "answers_like_emails": Figure("questions answered with an email", "share"),
}


def definition(name: str) -> Figure:
    return FIGURES.get(name) or Figure(name.replace("_", " "), "number")


def ordered(names: Iterable[str]) -> list[str]:
    """Each once, in the order of a table; unknown ones last."""
    found = set(names)
    return [name for name in FIGURES if name in found] + sorted(found - FIGURES.keys())


def format_value(name: str, value: float | None) -> str:
    """`62 %`, `6.2 %`, `2.310`, `64`, or a dash for a figure that was not measured."""
    if value is None:
        return "–"
    unit = definition(name).unit
    if unit == "share":
        # A small share must not look like 0.
        digits = 1 if 0 < abs(value) < 0.0995 else 0
        return f"{_with_minus(f'{100 * value:.{digits}f}')} %"
    return _with_minus(f"{value:.0f}" if unit == "count" else f"{value:.3f}")


def format_interval(name: str, low: float, high: float) -> str:
    return f"{format_value(name, low).removesuffix(' %')} to {format_value(name, high)}"


def format_difference(name: str, value: float) -> str:
    """With its sign, without its unit."""
    unit = definition(name).unit
    if unit == "share":
        return _with_minus(f"{100 * value:+.1f}")
    return _with_minus(f"{value:+.1f}" if unit == "count" else f"{value:+.3f}")


def difference_unit(name: str) -> str:
    return "points" if definition(name).unit == "share" else ""


def format_comparison(evaluation: Evaluation, comparison: Comparison) -> str:
    """`40 % against 10 %: +30.0 points, 95 % interval +10.0 to +50.0`."""
    name = comparison.figure
    values = {row.model: row.figures.get(name) for row in evaluation.rows}
    own, other = (format_value(name, values.get(row)) for row in (evaluation.version, comparison.against))
    by, low, high = (format_difference(name, x) for x in (comparison.difference, comparison.low, comparison.high))
    return f"{own} against {other}: {f'{by} {difference_unit(name)}'.strip()}, 95 % interval {low} to {high}"


def version_first(evaluation: Evaluation) -> list[Row]:
    return sorted(evaluation.rows, key=lambda row: row.model != evaluation.version)


def verdicts(evaluation: Evaluation) -> list[str]:
    """A sentence for every comparison of the primary figure, the one with the base model first."""
    primary = [comparison for comparison in evaluation.comparisons if comparison.figure == evaluation.primary]
    primary.sort(key=lambda comparison: comparison.against != "base")
    return [_verdict(evaluation.version, comparison) for comparison in primary] or [
        f"{evaluation.version} was compared with nothing."
    ]


def _verdict(version: str, comparison: Comparison) -> str:
    other = comparison.against
    if other.startswith("promoted: "):
        other = f"{other.removeprefix('promoted: ')}, the promoted version"
    elif other.startswith("base"):
        other = other.replace("base, ", "base with ").replace("base", "the base model")
    if comparison.verdict == "no difference shown":
        return f"No difference shown between {version} and {other}."
    return f"{version} is {comparison.verdict} than {other}."


def _with_minus(number: str) -> str:
    """A typographer's minus, and no sign before zero."""
    return number.lstrip("+-") if float(number) == 0 else number.replace("-", "−")
