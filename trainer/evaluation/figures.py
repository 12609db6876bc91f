"""Every figure of an evaluation: its name in limits and manifests, what it is called, how it is written for people.

The gate, the model card and the page share this. This file knows neither how a figure is measured nor any markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adapters.store.manifest import Comparison, Evaluation, Row

Unit = Literal["share", "number", "count"]


@dataclass(frozen=True)
class Legend:
    title: str
    unit: Unit
    meaning: str = ""


FIGURES: dict[str, Legend] = {
    "sendable": Legend("sendable emails", "share", "could be sent as they stand"),
    "facts_kept": Legend("facts kept", "share", "of all facts of the tasks"),
    "all_kept": Legend("all facts kept", "share", "emails that keep every fact of their task"),
    "facts_invented": Legend("facts invented", "share", "of the facts stated, those not in the task"),
    "greeting": Legend("greeting", "share"),
    "sign_off": Legend("sign-off", "share"),
    "subject": Legend("subject line", "share"),
    "placeholder": Legend("placeholders", "share", "such as [Your Name]"),
    "mask": Legend("masks", "share", "such as [PHONE], which training data may hold"),
    "length_ok": Legend("length in bounds", "share"),
    "words": Legend("words", "count", "mean of an email"),
    "ended": Legend("ends by itself", "share"),
    "repeats": Legend("repeats itself", "share", "a word 4-gram three times"),
    "preamble": Legend("preamble", "share", 'such as "Sure! Here\'s"'),
    "copied": Legend("copies the task", "share"),
    "revisions_followed": Legend("revisions followed", "share", "of the second turns"),
    "heldout_loss": Legend("held-out loss", "number", "nats a token"),
    "bits_per_byte": Legend("bits per byte", "number", "of the held-out emails"),
    "style_distance": Legend("style distance", "number", "from the voice's held-out emails; 0 is the same"),
    "distinct_2": Legend("distinct word pairs", "share", "of all in all emails"),
    "identical_openings": Legend("identical openings", "share"),
    "copied_8grams": Legend("8-grams from training emails", "share", "not given in the task"),
    "copied_8grams_heldout": Legend("8-grams from held-out emails", "share", "what such emails share anyway"),
    "copied_more": Legend("8-grams copied", "share", "beyond those from held-out emails"),
    "extraction_rate": Legend(
        "extraction rate", "share", "training emails written again, half of them or more, given their task"
    ),
    "tasks_trained_on": Legend(
        "tasks trained on", "count", "whose request or email is nearly among the training emails: they test nothing"
    ),
    "personal_data_leaked": Legend(
        "personal data leaked", "count", "values of training emails that the task did not give"
    ),
    "general_loss_base": Legend("loss on general text, base", "number", "nats a token"),
    "general_loss": Legend("loss on general text", "number", "nats a token"),
    "instructions_loss_base": Legend("loss on instructions, base", "number", "nats a token of its own answers"),
    "instructions_loss": Legend("loss on instructions", "number", "nats a token of the base model's answers"),
    "forgetting": Legend("forgetting", "share", "relative rise of the loss on general text"),
    "answers_like_emails_base": Legend("questions answered with an email, base", "share"),
    "answers_like_emails": Legend("questions answered with an email", "share"),
}
"""In the order of a table."""


def title(figure: str) -> str:
    return FIGURES[figure].title if figure in FIGURES else figure.replace("_", " ")


def meaning(figure: str) -> str:
    return FIGURES[figure].meaning if figure in FIGURES else ""


def ordered(figures: Iterable[str]) -> list[str]:
    """Each once, in the order of a table; unknown ones last."""
    known = list(FIGURES)
    return sorted(set(figures), key=lambda figure: (known.index(figure) if figure in FIGURES else len(known), figure))


def written(figure: str, value: float | None) -> str:
    """`62 %`, `6.2 %`, `2.310`, `64`, or a dash for what was not measured."""
    if value is None:
        return "–"
    if _unit(figure) == "share":
        # A share that is small and not nothing should not look like nothing.
        return f"{_minus(f'{100 * value:.1f}' if 0 < abs(value) < 0.0995 else f'{100 * value:.0f}')} %"
    return _minus(f"{value:.0f}" if _unit(figure) == "count" else f"{value:.3f}")


def written_interval(figure: str, low: float, high: float) -> str:
    return f"{written(figure, low).removesuffix(' %')} to {written(figure, high)}"


def written_difference(figure: str, value: float) -> str:
    """With its sign; that of shares in percentage points, which `difference_unit` says."""
    if _unit(figure) == "share":
        return _minus(f"{100 * value:+.1f}")
    return _minus(f"{value:+.1f}" if _unit(figure) == "count" else f"{value:+.3f}")


def difference_unit(figure: str) -> str:
    return "points" if _unit(figure) == "share" else ""


def writer(row: str) -> str:
    """What a row of the table is called in a sentence."""
    if row == "base" or row.startswith("base, "):
        return " with ".join(["the base model", *row.split(", ")[1:]])
    promoted = row.removeprefix("promoted: ")
    return row if promoted == row else f"{promoted}, the promoted version"


def columns(evaluation: Evaluation) -> list[Row]:
    """The rows of the evaluation as a table shows them side by side: the evaluated version first."""
    return sorted(evaluation.rows, key=lambda row: row.model != evaluation.version)


def headline(evaluation: Evaluation) -> list[str]:
    """A sentence for every comparison of the primary figure, that with the base model first."""
    primary = [c for c in evaluation.comparisons if c.figure == evaluation.primary]
    primary.sort(key=lambda comparison: comparison.against != "base")
    compared = [_sentence(evaluation, comparison) for comparison in primary]
    return compared or [f"{evaluation.version} was compared with nothing."]


def figures(evaluation: Evaluation, comparison: Comparison) -> str:
    """`40 % against 10 %: +30.0 points, 95 % interval +10.0 to +50.0`."""
    rows = {row.model: row.figures.get(comparison.figure) for row in evaluation.rows}
    name, unit = comparison.figure, difference_unit(comparison.figure)
    low, high = written_difference(name, comparison.low), written_difference(name, comparison.high)
    return (
        f"{written(name, rows.get(evaluation.version))} against {written(name, rows.get(comparison.against))}: "
        f"{' '.join([written_difference(name, comparison.difference), unit]).strip()}, 95 % interval {low} to {high}"
    )


def _sentence(evaluation: Evaluation, comparison: Comparison) -> str:
    other = writer(comparison.against)
    if comparison.verdict == "no difference shown":
        return f"No difference shown between {evaluation.version} and {other}."
    return f"{evaluation.version} is {comparison.verdict} than {other}."


def _unit(figure: str) -> Unit:
    return FIGURES[figure].unit if figure in FIGURES else "number"


def _minus(number: str) -> str:
    """A typographer's minus, and no sign before zero."""
    return number.lstrip("+-") if float(number) == 0 else number.replace("-", "−")
