"""Held-out evaluation: several models write the same tasks, and their emails are scored and compared task by task.

The models are the base model without and with examples, the promoted version and the evaluated one. Every row has the
same chat template and decoding; adapters/emails/checker.py judges each email.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from itertools import chain
from statistics import fmean

from adapters.emails.prompts import Message
from adapters.emails.rules import Score, score
from adapters.models.base_models import BaseModel
from adapters.store.manifest import Comparison, Row
from adapters.store.version import Version
from trainer.compute.device import processor
from trainer.data.examples import Example, digest
from trainer.evaluation import memorisation, style
from trainer.evaluation.bootstrap import Tally, compare, interval
from trainer.evaluation.results import PRIMARY, Answer, Pair, Result
from trainer.evaluation.writers import BASE, TEMPERATURE, Advance, Writer

GREEDY = None
SAMPLING_SEEDS = (1, 2, 3)
EXAMPLE_COUNTS = (1, 3)
# Properties of a score whose mean over the tasks is a figure.
SCORE_FIGURES = (
    PRIMARY, "all_kept", "greeting", "sign_off", "subject", "placeholder", "mask", "ended", "repeats", "preamble",
    "length_ok", "words", "copied",
)  # fmt: skip
COMPARED = (PRIMARY, "facts_kept", "facts_invented")
SMALLER_IS_BETTER = ("facts_invented",)
MAX_PAIRS = 12
# The time that reading a text takes, as a share of writing one.
READING_SHARE = 0.1


@dataclass(frozen=True)
class Plan:
    """A row before it is written: its name, the model that writes, and one prompt for each task."""

    row: str
    model: str
    prompts: list[list[Message]]
    with_examples: bool = False


@dataclass(frozen=True)
class Setup:
    """What is evaluated, on what and against what.

    The base model gets `examples`, emails in the version's voice, in a row for each of `example_counts`. `training` are
    the emails that the version was trained on, as far as they are known. `full` adds sampled answers to greedy ones.
    """

    version: Version
    base: BaseModel
    tasks: Sequence[Example]
    examples: Sequence[Example]
    training: Sequence[Example] = ()
    promoted: Version | None = None
    full: bool = False
    example_counts: Sequence[int] = EXAMPLE_COUNTS
    # The system message of each version's training, by its id; the base model gets that of `version`.
    instructions: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, example: Example, model: str) -> Example:
        return example.instructed(self.instructions.get(self.version.id if model == BASE else model, ""))

    @property
    def seeds(self) -> tuple[int | None, ...]:
        return (GREEDY, *SAMPLING_SEEDS) if self.full else (GREEDY,)

    @property
    def references(self) -> list[Example]:
        """The tasks whose email is in the version's voice; all of them if none is."""
        return [task for task in self.tasks if task.voice == self.version.name] or list(self.tasks)

    def plans(self) -> list[Plan]:
        """The rows in the order of the table; the promoted version has one if it is another version."""
        tasks = [self.prompt(task, BASE) for task in self.tasks]
        prompts = [list(task.messages) for task in tasks]
        plans = [Plan(BASE, BASE, prompts)]
        for count in self.example_counts:
            row = f"base, {count} example{'s' if count > 1 else ''}"
            with_examples = [_with_examples(task, self.examples, count) for task in tasks]
            plans.append(Plan(row, BASE, with_examples, with_examples=True))
        if self.promoted and self.promoted != self.version:
            promoted = [list(self.prompt(task, self.promoted.id).messages) for task in self.tasks]
            plans.append(Plan(f"promoted: {self.promoted.id}", self.promoted.id, promoted))
        return [*plans, Plan(self.version.id, self.version.id, prompts)]

    def extraction_targets(self) -> dict[int, set[memorisation.Gram]]:
        return memorisation.extraction_targets(
            [prompt_text(example) for example in self.training], [example.email for example in self.training]
        )

    def work(self, can_score: bool) -> float:
        """What `evaluate` takes with a writer that can score texts or not, in emails written."""
        plans = self.plans()
        emails = len(plans) * len(self.tasks) * len(self.seeds) + len(self.extraction_targets())
        if not can_score:
            return emails
        from trainer.evaluation import forgetting

        scored = sum(not plan.with_examples for plan in plans) * len(self.references)
        return emails + READING_SHARE * (scored + forgetting.steps(self.base.fingerprint))


@dataclass(frozen=True)
class Outcome:
    """The result, every answer by row and task (the greedy one first), and the answers to tasks of training emails."""

    result: Result
    answers: dict[str, list[list[Answer]]]
    training_answers: list[str]


def evaluate(setup: Setup, writer: Writer, advance: Advance) -> Outcome:
    """`advance` is called with increments that add up to `setup.work(writer.can_score)`."""
    started = time.monotonic()
    version, tasks, plans = setup.version, setup.tasks, setup.plans()

    def read(texts: float) -> None:
        advance(READING_SHARE * texts)

    answers, tallies, styles = {}, {}, {}
    for plan in plans:
        answers[plan.row] = written = _write(plan, writer, setup.seeds, advance)
        tallies[plan.row] = _scores(tasks, written) | _losses(plan, setup, writer, read)
        styles[plan.row] = _style(written, [task.email for task in setup.references])
    memory, training_answers = _memorisation(setup, writer, answers[version.id], advance)
    forgetting = writer.forgetting(version.id, setup.base.fingerprint, read)
    result = Result(
        version=version.id,
        base=setup.base.name,
        tasks=len(tasks),
        tasks_sha256=digest(tasks),
        decoding=f"greedy and {len(SAMPLING_SEEDS)} seeds at temperature {TEMPERATURE}" if setup.full else "greedy",
        through=writer.through,
        machine=_machine(writer),
        rows=[_row(plan.row, tallies[plan.row], styles[plan.row]) for plan in plans],
        comparisons=_comparisons(tallies, version.id),
        memorisation=memory,
        forgetting=forgetting,
        pairs=_pairs(tasks, answers[BASE], answers[version.id]),
        seconds=round(time.monotonic() - started, 1),
    )
    return Outcome(result, answers, training_answers)


def prompt_text(task: Example) -> str:
    """All that the writer of the task's email is given, earlier turns included."""
    return "\n\n".join(message["content"] for message in task.messages)


def _machine(writer: Writer) -> str:
    """This machine, which need not be the server's."""
    versions = [f"{package} {installed_version(package)}" for package in ("torch", "transformers")]
    parts = [processor(), f"{len(os.sched_getaffinity(0))} cores", writer.device, *versions]
    return ", ".join(part for part in parts if part)


def _with_examples(task: Example, examples: Sequence[Example], count: int) -> list[Message]:
    """The task after `count` examples as finished exchanges, those of its kind first; never the task itself."""
    fitting = [example for example in examples if len(example.turns) == 1 and example.task != task.task]
    fitting.sort(key=lambda example: example.kind != task.kind)
    exchanges = [(*each.turns, {"role": "assistant", "content": each.email}) for each in fitting[:count]]
    # A system message stays first.
    start = int(task.messages[0]["role"] == "system")
    return [*task.messages[:start], *chain.from_iterable(exchanges), *task.messages[start:]]


def _write(plan: Plan, writer: Writer, seeds: Sequence[int | None], advance: Advance) -> list[list[Answer]]:
    columns = [writer.write(plan.model, plan.prompts, seed, advance) for seed in seeds]
    return [list(answers) for answers in zip(*columns, strict=True)]


def _scores(tasks: Sequence[Example], written: Sequence[Sequence[Answer]]) -> dict[str, Tally]:
    """What each task contributes to every figure of the checker: the mean over its answers."""
    scores = [
        [score(task.task, task.facts, answer.text, prompt_text(task), answer.ended) for answer in answers]
        for task, answers in zip(tasks, written, strict=True)
    ]
    revisions = [of_task for task, of_task in zip(tasks, scores, strict=True) if len(task.turns) > 1]
    return {name: Tally.mean(_means(scores, name)) for name in SCORE_FIGURES} | {
        "facts_kept": Tally(_means(scores, "facts_kept"), _means(scores, "facts")),
        "facts_invented": Tally(_means(scores, "invented"), _means(scores, "stated")),
        "revisions_followed": Tally(_means(revisions, "facts_kept"), _means(revisions, "facts")),
    }


def _means(scores: Sequence[Sequence[Score]], name: str) -> list[float]:
    return [fmean(getattr(each, name) for each in of_task) for of_task in scores]


def _losses(plan: Plan, setup: Setup, writer: Writer, advance: Advance) -> dict[str, Tally]:
    """How well the row's model expects the reference emails; empty with examples or a writer that cannot score."""
    if plan.with_examples:
        return {}
    references = setup.references
    prompts = [prompt for prompt, task in zip(plan.prompts, setup.tasks, strict=True) if task in references]
    emails = [task.email for task in references]
    losses = writer.losses(plan.model, prompts, emails, advance)
    if not losses:
        return {}
    nats = [loss.nats for loss in losses]
    return {
        "heldout_loss": Tally(nats, [float(loss.tokens) for loss in losses]),
        "bits_per_byte": Tally([each / math.log(2) for each in nats], [float(len(email.encode())) for email in emails]),
    }


def _style(written: Sequence[Sequence[Answer]], emails: Sequence[str]) -> dict[str, float | None]:
    """Figures of all answers with one seed together, then their mean over the seeds."""
    columns = [[answer.text for answer in answers] for answers in zip(*written, strict=True)]
    by_seed = {
        "style_distance": [style.distance(texts, emails) for texts in columns],
        "distinct_2": [style.distinct_2(texts) for texts in columns],
        "identical_openings": [style.identical_openings(texts) for texts in columns],
    }
    measured = {name: [value for value in values if value is not None] for name, values in by_seed.items()}
    return {name: fmean(values) if values else None for name, values in measured.items()}


def _row(model: str, tallies: Mapping[str, Tally], styles: Mapping[str, float | None]) -> Row:
    intervals = {name: ends for name, tally in tallies.items() if (ends := interval(tally))}
    return Row(
        model=model,
        figures={name: tally.figure for name, tally in tallies.items()} | dict(styles),
        low={name: low for name, (low, _) in intervals.items()},
        high={name: high for name, (_, high) in intervals.items()},
    )


def _comparisons(tallies: Mapping[str, Mapping[str, Tally]], version: str) -> list[Comparison]:
    comparisons = [
        compare(figure, tallies[version][figure], row, tallies[row][figure], figure in SMALLER_IS_BETTER)
        for row in tallies
        if row != version
        for figure in COMPARED
    ]
    return [comparison for comparison in comparisons if comparison]


def _memorisation(
    setup: Setup, writer: Writer, written: Sequence[Sequence[Answer]], advance: Advance
) -> tuple[dict[str, float], list[str]]:
    """The figures, and the version's answers to tasks of training emails; both empty if these are not known."""
    tasks, training = setup.tasks, setup.training
    if not training:
        return {}, []
    targets = setup.extraction_targets()
    examples = [training[number] for number in targets]
    messages = [list(setup.prompt(example, setup.version.id).messages) for example in examples]
    training_answers = [answer.text for answer in writer.write(setup.version.id, messages, GREEDY, advance)]
    answers = [answer.text for answers in written for answer in answers]
    prompts = [prompt_text(task) for task, answers in zip(tasks, written, strict=True) for _ in answers]
    emails = [example.email for example in training]
    leaked = memorisation.leaked_personal_data(
        [*answers, *training_answers], [*prompts, *map(prompt_text, examples)], emails
    )
    return {
        **memorisation.copying(answers, prompts, emails, [task.email for task in tasks]),
        "extraction_rate": memorisation.extraction_rate(training_answers, targets.values()),
        "personal_data_leaked": float(len(leaked)),
        "tasks_trained_on": float(memorisation.trained_on(tasks, training)),
    }, training_answers


def _pairs(
    tasks: Sequence[Example], before: Sequence[Sequence[Answer]], after: Sequence[Sequence[Answer]]
) -> list[Pair]:
    """Greedy answers to some tasks: one of every kind before any kind has two."""
    of_kind: Counter[str | None] = Counter()
    order = []
    for number, task in enumerate(tasks):
        of_kind[task.kind] += 1
        order.append((of_kind[task.kind], number))
    chosen = sorted(number for _, number in sorted(order)[:MAX_PAIRS])
    return [Pair(task=prompt_text(tasks[n]), before=before[n][0].text, after=after[n][0].text) for n in chosen]
