"""What a check of emails found, what that is worth, and what to do about it. No email is looked at here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainer.data.examples import Problem
from trainer.data.statistics import Languages, Tokens, Variety

Verdict = Literal["ready", "usable with warnings", "not usable"]
Level = Literal["stops", "warns", "notes"]

LEAST = 10
"""Different emails without which none is held out, so that nothing can be measured."""
FEW = 100
"""Panza (arXiv 2407.10994) learns a person's style from about as many, with a base model 50 times as large as ours."""
MOST_WITHOUT_SIGN_OFF = 0.1
MOST_OPENING = 0.3
"""Share of emails with the same first five words from which on an adapter may be expected to always begin so."""
SECOND_LANGUAGE = 0.05
"""Share of a language below which it may be a mistake of who tells languages."""
CLEANED = "cleaned.jsonl"


@dataclass(frozen=True)
class Finding:
    """What `stops` makes a file unusable as it is, what `warns` costs quality, and a note changes no verdict.

    `rows` are indices of the rows that were checked.
    """

    name: str
    level: Level
    sentence: str
    remedy: str
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found, and what it is worth; `rows` are the places of the usable ones, `file:line`.

    `flaws` has indices of rows by the name of their finding. `exact` and `near` are clusters of indices, and every
    exact one is within a near one. `tokens` is None where nobody could count.
    """

    files: tuple[str, ...]
    heldout_files: tuple[str, ...]
    rows: tuple[str, ...]
    unusable: tuple[Problem, ...]
    max_length: int
    tokens: Tokens | None
    kinds: dict[str, int]
    voices: dict[str, int]
    threads: int
    languages: Languages
    variety: Variety
    personal: dict[str, int]
    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]
    flaws: dict[str, tuple[int, ...]]
    seconds: dict[str, float]
    """How long each part of the check took."""

    @property
    def different(self) -> int:
        """Emails, each cluster of duplicates counted as one."""
        return len(self.rows) - sum(len(cluster) - 1 for cluster in self.near)

    @property
    def findings(self) -> list[Finding]:
        return [found for look in LOOKS for found in look(self)]

    @property
    def verdict(self) -> Verdict:
        levels = {finding.level for finding in self.findings}
        return "not usable" if "stops" in levels else "usable with warnings" if "warns" in levels else "ready"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: with places instead of indices, and no text of an email."""
        told = asdict(self) | {"verdict": self.verdict, "rows": len(self.rows), "different": self.different}
        del told["flaws"]
        told["unusable"] = [{"file": str(p.file), "line": p.line, "reason": p.reason} for p in self.unusable]
        told["exact"] = [self.places(cluster) for cluster in self.exact]
        told["near"] = [self.places(cluster) for cluster in self.near]
        told["findings"] = [asdict(finding) | {"rows": self.places(finding.rows)} for finding in self.findings]
        return told

    def places(self, rows: Iterable[int]) -> list[str]:
        return [self.rows[row] for row in rows]


def _fix(report: Report) -> str:
    heldout = [word for file in report.heldout_files for word in ("--heldout", file)]
    return shlex.join(["trainer", "check", *report.files, *heldout, "--fix", CLEANED])


def _emails(rows: Sized) -> str:
    return f"{len(rows)} email" + ("s" if len(rows) != 1 else "")


def _number(report: Report) -> Iterator[Finding]:
    if report.unusable:
        count = len(report.unusable)
        yield Finding(
            "unusable", "stops", f"rows that cannot be used: {count}", f"mend them, or leave them out: {_fix(report)}"
        )
    if report.different >= FEW:
        return
    few = (
        "too few to hold one out and measure" if report.different < LEAST else f"under {FEW} are learnt by heart easily"
    )
    level: Level = "stops" if report.different < LEAST else "warns"
    yield Finding(
        "few", level, f"different emails: {report.different}, {few}", "add emails: trainer import reads a mailbox"
    )


def _length(report: Report) -> Iterator[Finding]:
    rows = report.flaws["too_long"]
    if rows and report.tokens:
        longest = report.tokens.longest
        yield Finding(
            "too_long",
            "stops",
            f"{_emails(rows)} with more than {report.max_length} tokens, the longest {longest}",
            f"take them: trainer sft --max-length {longest}, or leave them out: {_fix(report)}",
            rows,
        )


def _leaks(report: Report) -> Iterator[Finding]:
    for name, what in (
        ("leak", "that nearly stand among the held-out ones, whose figures would measure memory"),
        ("shipped_task", "with a task that is nearly one of the shipped evaluation, whose figures would mean nothing"),
    ):
        if rows := report.flaws[name]:
            yield Finding(name, "warns", f"{_emails(rows)} {what}", f"leave them out: {_fix(report)}", rows)


def _duplicates(report: Report) -> Iterator[Finding]:
    exact = sum(len(cluster) - 1 for cluster in report.exact)
    near = len(report.rows) - report.different - exact
    if exact or near:
        rows = tuple(row for cluster in report.near for row in cluster)
        clusters = f"in {len(report.near)} cluster" + ("s" if len(report.near) != 1 else "")
        sentence = f"duplicates {clusters}: {exact} repeat an email exactly, {near} nearly"
        yield Finding("duplicates", "warns", sentence, f"keep one of each: {_fix(report)}", rows)


def _flaws(report: Report) -> Iterator[Finding]:
    """What an adapter would learn to write."""
    fakes = "import the mailbox again with trainer import --privacy fake, which puts invented values there"
    for name, what, remedy in (
        (
            "placeholder",
            "with a placeholder such as [Your Name]",
            f"write what belongs there, or leave them out: {_fix(report)}",
        ),
        ("mask", "with a mask such as [PHONE], which an adapter would write too", fakes),
        ("breaks_off", "that end within a sentence", "complete them: an adapter would stop there too"),
    ):
        if rows := report.flaws[name]:
            yield Finding(name, "warns", f"{_emails(rows)} {what}", remedy, rows)
    rows = report.flaws["no_sign_off"]
    if len(rows) > MOST_WITHOUT_SIGN_OFF * len(report.rows):
        yield Finding(
            "no_sign_off",
            "warns",
            f"{_emails(rows)} without a closing phrase on one of the last lines",
            "add one: the evaluation takes an email without it for unfinished",
            rows,
        )


def _sameness(report: Report) -> Iterator[Finding]:
    if report.variety.opening > MOST_OPENING and len(report.rows) >= LEAST:
        yield Finding(
            "same_opening",
            "warns",
            f"{report.variety.opening:.0%} of the emails begin with the same five words",
            "add emails that begin otherwise: an adapter would begin every email so",
        )
    if len(report.voices) > 1:
        voices = ", ".join(f"{voice} {count}" for voice, count in report.voices.items())
        yield Finding(
            "voices",
            "warns",
            f"several voices in one set: {voices}",
            "train one adapter for each: it learns the average",
        )


def _notes(report: Report) -> Iterator[Finding]:
    second = [lang for lang, n in report.languages.found.items() if n >= SECOND_LANGUAGE * report.languages.asked]
    if len(second) > 1:
        yield Finding(
            "languages",
            "notes",
            f"several languages: {', '.join(second)}",
            "name the language in the tasks, or train one each",
        )
    if report.personal:
        found = ", ".join(f"{count} {kind}" for kind, count in report.personal.items())
        yield Finding(
            "personal",
            "notes",
            f"personal data, invented values included: {found}",
            "an adapter can repeat it to whoever it is served to: trainer import --privacy fake",
        )
    if report.tokens is None and report.rows:
        yield Finding(
            "tokens", "notes", "the tokens were not counted: no base model on this machine", "name one: --base MODEL"
        )


LOOKS: tuple[Callable[[Report], Iterator[Finding]], ...] = (
    _number,
    _length,
    _leaks,
    _duplicates,
    _flaws,
    _sameness,
    _notes,
)
