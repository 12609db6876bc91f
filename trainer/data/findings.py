"""What a check of emails found, what that is worth, and what to do about it. No email is looked at here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainer.data.examples import Problem
from trainer.data.statistics import Languages, Tokens, Variety

Fitness = Literal["ready", "usable with warnings", "not usable"]
Level = Literal["stops", "warns", "notes"]

# Below this none is held out, so that nothing can be measured.
MIN_EMAILS = 10
# Panza (arXiv 2407.10994) learns a person's style from about as many, with a base model 50 times as large as ours.
FEW_EMAILS = 100
MAX_SHARE_WITHOUT_SIGN_OFF = 0.1
# With more emails of one opening an adapter may always begin so.
MAX_SHARE_OF_OPENING = 0.3
# The share of a language below which it may be a mistake of the classifier.
SECOND_LANGUAGE_SHARE = 0.05
CLEANED = "cleaned.jsonl"
LEAVE_OUT = "leave them out: {fix}"
# What an adapter would learn of emails with a flaw, and what to do; {fix} is the command that leaves them out.
FLAWS = {
    "leak": ("that nearly stand among the held-out ones, whose figures would measure memory", LEAVE_OUT),
    "shipped_task": (
        "with a task that is nearly one of the shipped evaluation, whose figures would mean nothing",
        LEAVE_OUT,
    ),
    "placeholder": ("with a placeholder such as [Your Name]", f"write what belongs there, or {LEAVE_OUT}"),
    "mask": (
        "with a mask such as [PHONE], which an adapter would write too",
        "import the mailbox again with trainer import --privacy fake, which puts invented values there",
    ),
    "breaks_off": ("that end within a sentence", "complete them: an adapter would stop there too"),
    "no_sign_off": (
        "without a closing phrase on one of the last lines",
        "add one: the evaluation takes an email without it for unfinished",
    ),
}


@dataclass(frozen=True)
class Finding:
    """`stops`: the file is not usable as it is; `warns`: it costs quality; `notes`: the verdict stays.

    `rows` are indices of the checked rows.
    """

    name: str
    level: Level
    sentence: str
    remedy: str
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """Everything that a check counted; `rows` are the places of the usable rows, `file:line`.

    `flaws` has indices of rows by the name of their finding. `exact` and `near` are clusters of indices, and every
    exact one is within a near one. `tokens` is None without a tokenizer.
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

    @property
    def different(self) -> int:
        """Emails, each cluster of duplicates counted as one."""
        return len(self.rows) - sum(len(cluster) - 1 for cluster in self.near)

    @property
    def findings(self) -> list[Finding]:
        return [*_number(self), *_length(self), *_flaws(self), *_duplicates(self), *_sameness(self), *_notes(self)]

    @property
    def verdict(self) -> Fitness:
        levels = {finding.level for finding in self.findings}
        return "not usable" if "stops" in levels else "usable with warnings" if "warns" in levels else "ready"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: with places instead of indices, and no text of an email."""
        report = asdict(self) | {"verdict": self.verdict, "rows": len(self.rows), "different": self.different}
        del report["flaws"]
        report["unusable"] = [{"file": str(p.file), "line": p.line, "reason": p.reason} for p in self.unusable]
        report["exact"] = [self.places(cluster) for cluster in self.exact]
        report["near"] = [self.places(cluster) for cluster in self.near]
        report["findings"] = [asdict(finding) | {"rows": self.places(finding.rows)} for finding in self.findings]
        return report

    def places(self, rows: Iterable[int]) -> list[str]:
        return [self.rows[row] for row in rows]


def _fix(report: CheckReport) -> str:
    heldout = [word for file in report.heldout_files for word in ("--heldout", file)]
    return shlex.join(["trainer", "check", *report.files, *heldout, "--fix", CLEANED])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


def _number(report: CheckReport) -> Iterator[Finding]:
    if report.unusable:
        remedy = f"mend them, or {LEAVE_OUT.format(fix=_fix(report))}"
        yield Finding("unusable", "stops", f"rows that cannot be used: {len(report.unusable)}", remedy)
    count, remedy = f"different emails: {report.different}", "add emails: trainer import reads a mailbox"
    if report.different < MIN_EMAILS:
        yield Finding("few", "stops", f"{count}, too few to hold one out and measure", remedy)
    elif report.different < FEW_EMAILS:
        yield Finding("few", "warns", f"{count}, under {FEW_EMAILS} are learnt by heart easily", remedy)


def _length(report: CheckReport) -> Iterator[Finding]:
    rows = report.flaws["too_long"]
    if rows and report.tokens:
        longest = report.tokens.longest
        emails = _counted(len(rows), "email")
        sentence = f"{emails} with more than {report.max_length} tokens, the longest {longest}"
        remedy = f"take them: trainer sft --max-length {longest}, or {LEAVE_OUT.format(fix=_fix(report))}"
        yield Finding("too_long", "stops", sentence, remedy, rows)


def _duplicates(report: CheckReport) -> Iterator[Finding]:
    exact = sum(len(cluster) - 1 for cluster in report.exact)
    near = len(report.rows) - report.different - exact
    if exact or near:
        rows = tuple(row for cluster in report.near for row in cluster)
        clusters = _counted(len(report.near), "cluster")
        sentence = f"duplicates in {clusters}: {exact} repeat an email exactly, {near} nearly"
        yield Finding("duplicates", "warns", sentence, f"keep one of each: {_fix(report)}", rows)


def _flaws(report: CheckReport) -> Iterator[Finding]:
    for name, (flaw, remedy) in FLAWS.items():
        rows = report.flaws[name]
        allowed = MAX_SHARE_WITHOUT_SIGN_OFF * len(report.rows) if name == "no_sign_off" else 0
        if len(rows) > allowed:
            sentence = f"{_counted(len(rows), 'email')} {flaw}"
            yield Finding(name, "warns", sentence, remedy.format(fix=_fix(report)), rows)


def _sameness(report: CheckReport) -> Iterator[Finding]:
    opening = report.variety.opening
    if opening > MAX_SHARE_OF_OPENING and len(report.rows) >= MIN_EMAILS:
        sentence = f"{opening:.0%} of the emails begin with the same five words"
        remedy = "add emails that begin otherwise: an adapter would begin every email so"
        yield Finding("same_opening", "warns", sentence, remedy)
    if len(report.voices) > 1:
        voices = ", ".join(f"{voice} {count}" for voice, count in report.voices.items())
        remedy = "train one adapter for each: it learns the average"
        yield Finding("voices", "warns", f"several voices in one set: {voices}", remedy)


def _notes(report: CheckReport) -> Iterator[Finding]:
    least = SECOND_LANGUAGE_SHARE * report.languages.asked
    languages = [language for language, count in report.languages.found.items() if count >= least]
    if len(languages) > 1:
        sentence = f"several languages: {', '.join(languages)}"
        yield Finding("languages", "notes", sentence, "name the language in the tasks, or train one each")
    if report.personal:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.personal.items())
        remedy = "an adapter can repeat it to all its users: trainer import --privacy fake"
        yield Finding("personal", "notes", f"personal data, invented values included: {kinds}", remedy)
    if report.tokens is None and report.rows:
        sentence = "the tokens were not counted: no base model on this machine"
        yield Finding("tokens", "notes", sentence, "name one: --base MODEL")
