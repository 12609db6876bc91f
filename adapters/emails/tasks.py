"""The held-out tasks that Mailwright ships, and whether an email keeps a task's facts.

Evaluation (trainer) and comparison (ui) share both. No training may see these tasks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.emails.prompts import Turn

HELDOUT = Path(__file__).parent / "data" / "heldout.jsonl"
# Written later, for narrower intervals; half of them have roles that are easily exchanged.
MORE_HELDOUT = HELDOUT.with_name("heldout_more.jsonl")

QUOTES_AND_DASHES = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " ", "\u202f": " "}
)
# A fact stands alone: neither in a longer word nor in a longer number (300 is not in 9,300).
BEFORE, AFTER = re.compile(r"(?<!\w)(?<!\d[.,])"), re.compile(r"(?!\w)(?![.,]\d)")


@dataclass(frozen=True)
class Task:
    """One email to write; a revision has `previous` exchanges. `facts` has the spellings that count for each fact."""

    id: str
    task: str
    facts: tuple[tuple[str, ...], ...]
    previous: tuple[Turn, ...] = ()

    @property
    def told(self) -> str:
        """All that its writer is told: the exchanges before, and the task."""
        return "\n\n".join([*(text for turn in self.previous for text in turn), self.task])


def shipped_tasks(every: bool = False) -> list[Task]:
    """The 48 tasks on which figures are compared; `every`: the 96 further ones too."""
    files = [HELDOUT, MORE_HELDOUT] if every else [HELDOUT]
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        Task(
            row["id"],
            row["task"],
            tuple(tuple(fact) for fact in row["facts"]),
            tuple((turn["task"], turn["email"]) for turn in row.get("previous", [])),
        )
        for row in rows
    ]


def normalise(text: str) -> str:
    """Lower case, plain quotes and dashes, single spaces."""
    return " ".join(text.translate(QUOTES_AND_DASHES).lower().split())


def keeps(spellings: Sequence[str], answer: str) -> bool:
    """Whether one of the spellings stands in the answer, at word boundaries."""
    text = normalise(answer)
    return any(_stands(normalise(spelling), text) for spelling in spellings)


def _stands(spelling: str, text: str) -> bool:
    start = text.find(spelling)
    while start >= 0 and not (BEFORE.match(text, start) and AFTER.match(text, start + len(spelling))):
        start = text.find(spelling, start + 1)
    return start >= 0
