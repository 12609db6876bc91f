"""The check of a file of emails, on its own and before a training run, and a cleaned copy of the file.

trainer/data/statistics.py counts, trainer/data/findings.py judges.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.emails.form import MASK, PLACEHOLDER, has_sign_off
from adapters.emails.tasks import shipped_tasks
from adapters.errors import DataError
from trainer.console import Log
from trainer.data import statistics
from trainer.data.examples import Example, PlacedExample, Problem, row_of, same_requests, task_example
from trainer.data.findings import CheckReport
from trainer.text.duplicates import clusters, exact_clusters

CountTokens = Callable[[Sequence[Example]], list[int]]

# Examples whose tokens are counted at once.
BATCH_EXAMPLES = 500
# Why a cleaned copy leaves out a row with a flaw; of several the first counts.
LEFT_OUT = {
    "too_long": "it is too long",
    "placeholder": "it has a placeholder",
    "leak": "it is held out",
    "shipped_task": "its task is one of the shipped evaluation",
}


@dataclass(frozen=True)
class Change:
    """A row that a cleaned copy leaves out, or with `line` 0 a whole file."""

    file: str
    line: int
    reason: str


def check(
    rows: Sequence[PlacedExample],
    problems: Sequence[Problem],
    count_tokens: CountTokens | None,
    max_length: int,
    heldout: Sequence[PlacedExample] = (),
    begin: Log = lambda _: None,
) -> CheckReport:
    """The report on `rows`; `problems` are the rows that cannot be read.

    `max_length` is in tokens of task and email together; `heldout` are emails that will be measured on. `begin` is
    called with the name of every part of the work. 10,000 emails take about 20 s on one core.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        begin(name)
        started = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - started, 2)

    examples = [row.example for row in rows]
    emails = [example.email for example in examples]
    with part("tokens"):
        counts = count_tokens(examples) if count_tokens and examples else []
    with part("duplicates"):
        exact = exact_clusters(emails)
        near = clusters([*emails, *(row.example.email for row in heldout)])
    with part("leaks"):
        flaws = _leaks(examples, [row.example for row in heldout], near)
    with part("personal data"):
        personal = statistics.personal(f"{example.task}\n\n{example.email}" for example in examples)
    with part("languages"):
        languages = statistics.languages(emails)
    with part("endings and variety"):
        variety = statistics.variety(emails)
        flaws |= _flaws(emails)
    flaws["too_long"] = tuple(row for row, count in enumerate(counts) if count > max_length)
    own = ([row for row in cluster if row < len(rows)] for cluster in near)
    return CheckReport(
        files=tuple(dict.fromkeys(str(file) for file in [*(r.file for r in rows), *(p.file for p in problems)])),
        heldout_files=tuple(dict.fromkeys(str(row.file) for row in heldout)),
        rows=tuple(f"{row.file}:{row.line}" for row in rows),
        unusable=tuple(problems),
        max_length=max_length,
        tokens=statistics.tokens(counts) if counts else None,
        kinds=dict(Counter(example.kind or "unlabelled" for example in examples).most_common()),
        voices=dict(Counter(example.voice or "unlabelled" for example in examples).most_common()),
        threads=len({example.thread for example in examples} - {None}),
        languages=languages,
        variety=variety,
        personal=personal,
        exact=tuple(map(tuple, exact)),
        near=tuple(tuple(cluster) for cluster in own if len(cluster) > 1),
        flaws=flaws,
        seconds=seconds,
    )


def fix(rows: Sequence[PlacedExample], report: CheckReport) -> tuple[list[dict[str, Any]], list[Change]]:
    """(rows of a cleaned copy, changes): without unusable, too long and leaked rows, placeholders and duplicates."""
    left_out: dict[int, str] = {}
    for name, reason in LEFT_OUT.items():
        left_out = dict.fromkeys(report.flaws[name], reason) | left_out
    for clustered, how in ((report.exact, "the same email as"), (report.near, "nearly the same email as")):
        for cluster in clustered:
            kept, *repeats = [row for row in cluster if row not in left_out] or [-1]
            left_out |= dict.fromkeys(repeats, f"{how} {report.rows[kept]}")
    changes = [Change(str(problem.file), problem.line, problem.reason) for problem in report.unusable]
    changes += [Change(str(rows[row].file), rows[row].line, left_out[row]) for row in sorted(left_out)]
    return list(_cleaned(rows, left_out)), changes


def check_before_training(examples: Sequence[Example], tokenizer: Any, max_length: int, log: Log) -> None:
    """The check inside `trainer sft`: an email that is too long stops the run, a warning is one line of the log.

    A leak is only a warning, because the evaluation's criteria decide what is promoted.

    Raises:
        DataError: emails that are too long, all listed.
    """
    counts = token_counter(tokenizer)(examples)
    problems = [
        f"email {number} ({example.task[:40]!r}...) has {count} tokens with its task, at most {max_length}"
        for number, (example, count) in enumerate(zip(examples, counts, strict=True), start=1)
        if count > max_length
    ]
    if problems:
        hint = "shorten them, or raise --max-length (cutting would lose the sign-off)"
        raise DataError(f"{len(problems)} emails are too long:", problems, hint)
    rows = [PlacedExample(Path("FILE"), number, example) for number, example in enumerate(examples, start=1)]
    for finding in check(rows, [], lambda _: counts, max_length).findings:
        if finding.level != "notes":
            log(f"warning: {finding.sentence}; {finding.remedy}")


def token_counter(tokenizer: Any) -> CountTokens:
    """Counts the tokens of examples as training sees them, with the chat template of a tokenizer of transformers."""

    def count(examples: Sequence[Example]) -> list[int]:
        counts: list[int] = []
        for at in range(0, len(examples), BATCH_EXAMPLES):
            batch = examples[at : at + BATCH_EXAMPLES]
            chats = [[*e.messages, {"role": "assistant", "content": e.email}] for e in batch]
            counts += map(len, tokenizer.apply_chat_template(chats, return_dict=True)["input_ids"])
        return counts

    return count


def _leaks(
    examples: Sequence[Example], heldout: Sequence[Example], near: Sequence[list[int]]
) -> dict[str, tuple[int, ...]]:
    """Rows with nearly a held-out email or request, and rows with nearly a shipped task."""
    shipped = [task_example(task.task, "", previous=task.previous) for task in shipped_tasks(every=True)]
    requests = same_requests([*examples, *heldout, *shipped])
    own, until = range(len(examples)), len(examples) + len(heldout)
    leaks: dict[str, set[int]] = {"leak": set(), "shipped_task": set()}
    for cluster in [*near, *requests]:
        if any(len(own) <= member < until for member in cluster):
            leaks["leak"].update(member for member in cluster if member in own)
    for cluster in requests:
        if cluster[-1] >= until:
            leaks["shipped_task"].update(member for member in cluster if member in own)
    return {name: tuple(sorted(rows)) for name, rows in leaks.items()}


def _flaws(emails: Sequence[str]) -> dict[str, tuple[int, ...]]:
    rules: dict[str, Callable[[str], object]] = {
        "placeholder": lambda email: PLACEHOLDER.search(MASK.sub("", email)),
        "mask": MASK.search,
        "breaks_off": statistics.breaks_off,
        "no_sign_off": lambda email: not has_sign_off(email),
    }
    return {name: tuple(row for row, email in enumerate(emails) if rule(email)) for name, rule in rules.items()}


def _cleaned(rows: Sequence[PlacedExample], left_out: dict[int, str]) -> Iterator[dict[str, Any]]:
    """Raw rows; of a conversation that loses examples, a row for each that stays."""
    incomplete = {id(rows[index].raw) for index in left_out}
    written: set[int] = set()
    for index, row in enumerate(rows):
        raw = id(row.raw)
        if index in left_out or raw in written:
            continue
        if row.raw is None or raw in incomplete:
            yield row_of(row.example)
        else:
            written.add(raw)
            yield row.raw
