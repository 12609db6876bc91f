"""Between a training and its publish: the evaluation that the recipe's limits ask for, for the manifest and the card.

Only the rows of the table that the limits name are written, so that it takes a part of what `trainer evaluate` does.
This file does not know how an adapter is trained or how a figure is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.emails.tasks import HELDOUT
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.console import bar
from trainer.data.examples import Example, read_examples
from trainer.evaluation import card, criteria
from trainer.evaluation.evaluate import evaluate, work
from trainer.evaluation.results import Result
from trainer.evaluation.writers import InProcess

LEAST_TASKS = 20
"""Held-out emails with facts that are enough to judge by; with fewer the shipped tasks are taken."""


@dataclass(frozen=True)
class Proof:
    """What a new version of `name` is measured with and against.

    `training` are the person's own emails that it learned from, without copies and practice; `heldout` those kept back.
    """

    name: str
    base: BaseModel
    limits: Sequence[str]
    training: Sequence[Example]
    heldout: Sequence[Example]

    def publish(self, store: Store, adapter: Path, facts: dict[str, Any], log: Callable[[str], None]) -> Version:
        """Publish the adapter in the directory `adapter` with its card, and with its evaluation if there are limits."""
        result, texts = None, False
        if self.limits:
            tasks = self._tasks()
            # Held-out mail of the person's own is nobody else's to read.
            texts = not any(task in self.heldout for task in tasks)
            result = self.measure(store, adapter, tasks, log)
            missed = criteria.misses(result, self.limits)
            for reason in missed:
                log(f"not good enough to be promoted: {reason}")
            facts = facts | {"evaluation": criteria.evaluation(result, self.limits, missed)}
        return store.publish(self.name, adapter, facts, card=lambda manifest: card.render(manifest, result, texts))

    def measure(self, store: Store, adapter: Path, tasks: Sequence[Example], log: Callable[[str], None]) -> Result:
        rows = [limit.row for limit in criteria.parse(self.limits)]
        shown = sorted({int(row.split()[1]) for row in rows if row and "example" in row})
        promoted = store.promoted(self.name) if "promoted" in rows else None
        # The number that it gets, unless somebody else publishes the name meanwhile.
        version = Version(self.name, max((v.number for v in store.versions(self.name)), default=0) + 1, adapter)
        log(f"evaluating {version.id} on {len(tasks)} tasks, for the {len(self.limits)} limits of the recipe")
        writer = InProcess(self.base.path, {v.id: v.path for v in (version, promoted) if v})
        total = work(version, promoted, self.base, tasks, True, False, shown, self.training)
        with bar("evaluating", total) as advance:
            return evaluate(
                version,
                self.base,
                writer,
                tasks,
                self.training,
                advance,
                promoted=promoted,
                own=True,
                shown=shown,
            ).result

    def _tasks(self) -> list[Example]:
        with_facts = [example for example in self.heldout if example.facts]
        return with_facts if len(with_facts) >= LEAST_TASKS else read_examples([HELDOUT])
