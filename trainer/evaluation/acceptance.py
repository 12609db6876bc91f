"""The evaluation between a training and its publish: whether the new version meets the criteria of its recipe.

Only the rows of the table that the criteria name are written, so it takes less time than `trainer evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.emails.tasks import HELDOUT
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.console import Log, bar
from trainer.data.examples import Example, read_examples
from trainer.evaluation import card
from trainer.evaluation.criteria import manifest_evaluation, parse_criteria
from trainer.evaluation.evaluate import Setup, evaluate
from trainer.evaluation.results import Result
from trainer.evaluation.writers import InProcess

# With fewer held-out emails that have facts, the shipped tasks are taken.
MIN_TASKS = 20


@dataclass(frozen=True)
class Acceptance:
    """What a new version of `name` is measured with and against.

    `training` are the person's own emails that it learned from, without replay; `heldout` those
    kept back.
    """

    name: str
    base: BaseModel
    criteria: Sequence[str]
    training: Sequence[Example]
    heldout: Sequence[Example]

    def publish(self, store: Store, adapter: Path, facts: dict[str, Any], log: Log) -> Version:
        """Publish the directory `adapter` with its card, and with its evaluation if there are criteria."""
        result, with_texts = None, False
        if self.criteria:
            usable = [example for example in self.heldout if example.facts]
            own = len(usable) >= MIN_TASKS
            # A card may be read by others, and a person's held-out mail is private.
            with_texts = not own
            result = self._measure(store, adapter, facts, usable if own else read_examples([HELDOUT]), log)
            evaluation = manifest_evaluation(result, self.criteria)
            for reason in evaluation.reasons:
                log(f"not good enough to be promoted: {reason}")
            facts = facts | {"evaluation": evaluation}
        return store.publish(self.name, adapter, facts, lambda manifest: card.render(manifest, result, with_texts))

    def _measure(
        self, store: Store, adapter: Path, facts: dict[str, Any], tasks: Sequence[Example], log: Log
    ) -> Result:
        criteria = parse_criteria(self.criteria)
        promoted = store.promoted(self.name) if any(each.row == "promoted" for each in criteria) else None
        # It gets this number unless another process publishes the name first.
        number = max((version.number for version in store.versions(self.name)), default=0) + 1
        version = Version(self.name, number, adapter)
        counts = sorted({each.examples for each in criteria if each.examples})
        instructions = {version.id: str(facts.get("instruction", ""))}
        if promoted:
            instructions[promoted.id] = promoted.manifest().instruction
        setup = Setup(
            version,
            self.base,
            tasks,
            self.training,
            self.training,
            promoted=promoted,
            example_counts=counts,
            instructions=instructions,
        )
        log(f"evaluating {version.id} on {len(tasks)} tasks, for the {len(criteria)} criteria of the recipe")
        writer = InProcess(self.base.path, {v.id: v.path for v in (version, promoted) if v})
        with bar("evaluating", setup.work(writer.can_score)) as advance:
            return evaluate(setup, writer, advance).result
