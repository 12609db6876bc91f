"""Held-out evaluation against honest baselines: the base model with no, one and three examples, and what is promoted.

Every row gets the same tasks, the same chat template and the same decoding. What an email is worth is for
adapters/emails/checker.py to say; this file adds up and compares task by task. It knows neither the store nor how
results are shown.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from itertools import chain
from statistics import fmean

from adapters.emails.checker import Score, score
from adapters.emails.prompts import Message, few_shot_messages
from adapters.models.base_models import BaseModel
from adapters.store.manifest import Comparison, Row
from adapters.store.version import Version
from trainer.compute.device import processor
from trainer.data.examples import Example, digest
from trainer.evaluation import memorisation, style
from trainer.evaluation.bootstrap import Tally, difference, interval
from trainer.evaluation.results import PRIMARY, Pair, Result
from trainer.evaluation.writers import BASE, TEMPERATURE, Advance, Writer, Written

SEEDS = (1, 2, 3)
"""Of the sampled answers that `full` adds to the greedy one."""
EXAMPLES = (1, 3)
"""How many the base model is shown, in rows of their own."""
MEANS = (
    *(PRIMARY, "all_kept", "greeting", "sign_off", "subject", "placeholder", "mask", "ended", "repeats", "preamble"),
    *("length_ok", "words", "copied"),
)
"""Marks of a score whose mean over the tasks is a figure of its own."""
COMPARED = (PRIMARY, "facts_kept", "facts_invented")
SMALLER_IS_BETTER = ("facts_invented",)
PAIRS = 12
READING = 0.1
"""How long reading a text takes of what writing one takes, for the time left."""


@dataclass(frozen=True)
class Plan:
    """A row before it is written: its label, the model that writes, and what that is asked, one prompt a task."""

    row: str
    model: str
    prompts: list[list[Message]]


@dataclass(frozen=True)
class Evaluation:
    result: Result
    answers: dict[str, list[list[Written]]]
    """By row and task: the greedy answer, and those of the seeds after it."""
    training_answers: list[str]
    """Greedy answers to the tasks of its own training emails, in the order of memorisation.extraction_targets."""


def evaluate(
    version: Version,
    base: BaseModel,
    writer: Writer,
    tasks: Sequence[Example],
    examples: Sequence[Example],
    advance: Advance,
    promoted: Version | None = None,
    own: bool = False,
    full: bool = False,
    shown: Sequence[int] = EXAMPLES,
) -> Evaluation:
    """Every row's figures, the differences of `version` from the others, and every answer.

    `examples` are emails in the version's voice, to show to the base model; if they are the version's `own` training
    emails, the answers may not have been copied from them. `shown`: how many examples the base model sees, in a row
    each beside that without. `advance` gets `work(...)` in all, where `own` are the examples if they are.
    """
    started = time.monotonic()
    planned = plans(version, promoted, tasks, examples, shown)
    references = in_voice(tasks, version.name)
    answers, tallies, plain = {}, {}, {}
    for plan in planned:
        answers[plan.row] = written = _written(plan, writer, full, advance)
        tallies[plan.row] = _marks(tasks, written) | _losses(plan, writer, tasks, references, advance)
        plain[plan.row] = _style(written, [task.email for task in references])
    written_by_version = answers[version.id]
    memory, training_answers = _memorisation(
        version, writer, tasks, written_by_version, examples if own else (), advance
    )
    result = Result(
        version=version.id,
        base=base.name,
        tasks=len(tasks),
        tasks_sha256=digest(tasks),
        decoding=f"greedy and {len(SEEDS)} seeds at temperature {TEMPERATURE}" if full else "greedy",
        through=writer.through,
        machine=machine(writer),
        seconds=0,
        rows=[_row(plan.row, tallies[plan.row], plain[plan.row]) for plan in planned],
        comparisons=[*chain.from_iterable(_compared(tallies, version.id, plan.row) for plan in planned)],
        memorisation=memory,
        forgetting=writer.forgetting(version.id, base.fingerprint, lambda texts: advance(READING * texts)),
        pairs=_pairs(tasks, answers[BASE], written_by_version),
    )
    return Evaluation(
        result.model_copy(update={"seconds": round(time.monotonic() - started, 1)}), answers, training_answers
    )


def work(
    version: Version,
    promoted: Version | None,
    base: BaseModel,
    tasks: Sequence[Example],
    reads: bool,
    full: bool = False,
    shown: Sequence[int] = EXAMPLES,
    own: Sequence[Example] = (),
) -> float:
    """What `advance` gets in all, in emails; `reads` is the writer's, `own` the voice's training emails if known."""
    without = 2 + (promoted not in (None, version))
    emails = (without + len(shown)) * len(tasks) * (1 + (len(SEEDS) if full else 0)) + len(_targets(own))
    if not reads:
        return emails
    from trainer.evaluation import forgetting

    return emails + READING * (without * len(in_voice(tasks, version.name)) + forgetting.steps(base.fingerprint))


def plans(
    version: Version,
    promoted: Version | None,
    tasks: Sequence[Example],
    examples: Sequence[Example],
    shown: Sequence[int] = EXAMPLES,
) -> list[Plan]:
    """The rows in the order of the table; the promoted version has one if it is another."""
    asked = [list(task.messages) for task in tasks]
    rows = [Plan(BASE, BASE, asked)]
    for count in shown:
        prompts = [_with_examples(task, examples, count) for task in tasks]
        rows.append(Plan(f"base, {count} example{'s' * (count > 1)}", BASE, prompts))
    if promoted and promoted != version:
        rows.append(Plan(f"promoted: {promoted.id}", promoted.id, asked))
    return [*rows, Plan(version.id, version.id, asked)]


def in_voice(tasks: Sequence[Example], voice: str) -> list[Example]:
    """The tasks whose reference email is in the voice of that name; all where none is."""
    return [task for task in tasks if task.voice == voice] or list(tasks)


def told(task: Example) -> str:
    """All that the writer of the task's email is told, earlier turns included."""
    return "\n\n".join(message["content"] for message in task.messages)


def machine(writer: Writer) -> str:
    """What the figures depend on beside the models: of this machine, which need not be the server's."""
    versions = [f"{package} {installed_version(package)}" for package in ("torch", "transformers")]
    parts = [processor(), f"{len(os.sched_getaffinity(0))} cores", writer.device, *versions]
    return ", ".join(part for part in parts if part)


def _with_examples(task: Example, examples: Sequence[Example], count: int) -> list[Message]:
    """The task after `count` finished exchanges, of its kind as far as there are; never the task itself."""
    fitting = [example for example in examples if len(example.messages) == 1 and example.task != task.task]
    shown = sorted(fitting, key=lambda example: example.kind != task.kind)[:count]
    system = [message for message in task.messages[:1] if message["role"] == "system"]
    *earlier, last = task.messages[len(system) :]
    previous = [(earlier[i]["content"], earlier[i + 1]["content"]) for i in range(0, len(earlier) - 1, 2)]
    turns = [(example.task, example.email) for example in shown]
    return [*system, *few_shot_messages(turns, last["content"], previous)]


def _written(plan: Plan, writer: Writer, full: bool, advance: Advance) -> list[list[Written]]:
    seeds = (None, *SEEDS) if full else (None,)
    columns = [writer.write(plan.model, plan.prompts, seed, advance) for seed in seeds]
    return [list(answers) for answers in zip(*columns, strict=True)]


def _marks(tasks: Sequence[Example], written: Sequence[Sequence[Written]]) -> dict[str, Tally]:
    """What each task contributes to every figure of the rubric: the mean over its answers."""
    scores = [
        [score(task.task, task.facts, answer.text, told(task), answer.ended) for answer in answers]
        for task, answers in zip(tasks, written, strict=True)
    ]
    tallies = {name: Tally.mean([_mean(of_task, name) for of_task in scores]) for name in MEANS}
    tallies["facts_kept"] = _ratio(scores, "facts_kept", "facts")
    tallies["facts_invented"] = _ratio(scores, "invented", "stated")
    second = [of_task for task, of_task in zip(tasks, scores, strict=True) if len(task.messages) > 2]
    tallies["revisions_followed"] = _ratio(second, "facts_kept", "facts")
    return tallies


def _mean(scores: Sequence[Score], name: str) -> float:
    return fmean(getattr(each, name) for each in scores)


def _ratio(scores: Sequence[Sequence[Score]], above: str, below: str) -> Tally:
    return Tally([_mean(of_task, above) for of_task in scores], [_mean(of_task, below) for of_task in scores])


def _losses(
    plan: Plan, writer: Writer, tasks: Sequence[Example], references: Sequence[Example], advance: Advance
) -> dict[str, Tally]:
    """How well the row's model expects the reference emails; nothing where the writer cannot know, or with examples."""
    if plan.model == BASE != plan.row:
        return {}
    prompts = [prompt for prompt, task in zip(plan.prompts, tasks, strict=True) if task in references]
    emails = [task.email for task in references]
    losses = writer.losses(plan.model, prompts, emails, lambda texts: advance(READING * texts))
    if not losses:
        return {}
    nats = [loss.nats for loss in losses]
    return {
        "heldout_loss": Tally(nats, [float(loss.tokens) for loss in losses]),
        "bits_per_byte": Tally([each / math.log(2) for each in nats], [float(len(email.encode())) for email in emails]),
    }


def _style(written: Sequence[Sequence[Written]], emails: Sequence[str]) -> dict[str, float | None]:
    """Figures of all answers together: of each seed's for itself, then their mean."""
    columns = [[answer.text for answer in answers] for answers in zip(*written, strict=True)]
    found = {
        "style_distance": [style.distance(texts, emails) for texts in columns],
        "distinct_2": [style.distinct_2(texts) for texts in columns],
        "identical_openings": [style.identical_openings(texts) for texts in columns],
    }
    measured = {name: [value for value in values if value is not None] for name, values in found.items()}
    return {name: fmean(values) if values else None for name, values in measured.items()}


def _row(model: str, tallies: Mapping[str, Tally], plain: Mapping[str, float | None]) -> Row:
    figures = {name: tally.figure for name, tally in tallies.items()} | dict(plain)
    ends = {name: found for name, tally in tallies.items() if (found := interval(tally))}
    low, high = ({name: found[end] for name, found in ends.items()} for end in (0, 1))
    return Row(model=model, figures=figures, low=low, high=high)


def _compared(tallies: Mapping[str, Mapping[str, Tally]], version: str, other: str) -> list[Comparison]:
    found = []
    for figure in COMPARED if other != version else ():
        by = difference(tallies[version][figure], tallies[other][figure], figure in SMALLER_IS_BETTER)
        if by:
            found.append(
                Comparison(
                    against=other,
                    figure=figure,
                    difference=by.value,
                    low=by.low,
                    high=by.high,
                    verdict=by.verdict,
                )
            )
    return found


def _targets(training: Sequence[Example]) -> dict[int, set[memorisation.Gram]]:
    return memorisation.extraction_targets([told(e) for e in training], [e.email for e in training])


def _memorisation(
    version: Version,
    writer: Writer,
    tasks: Sequence[Example],
    written: Sequence[Sequence[Written]],
    training: Sequence[Example],
    advance: Advance,
) -> tuple[dict[str, float], list[str]]:
    """Its figures, and what the version wrote when asked for training emails; nothing where none are known."""
    if not training:
        return {}, []
    own = _targets(training)
    asked_for = [training[number] for number in own]
    training_answers = [
        answer.text for answer in writer.write(version.id, [list(e.messages) for e in asked_for], None, advance)
    ]
    answers = [answer.text for answers in written for answer in answers]
    asked = [told(task) for task, answers in zip(tasks, written, strict=True) for _ in answers]
    emails = [example.email for example in training]
    leaked = memorisation.leaked_personal_data([*answers, *training_answers], [*asked, *map(told, asked_for)], emails)
    return {
        **memorisation.copying(answers, asked, emails, [task.email for task in tasks]),
        "extraction_rate": memorisation.extraction_rate(training_answers, own.values()),
        "personal_data_leaked": float(len(leaked)),
        "tasks_trained_on": float(memorisation.trained_on(tasks, training)),
    }, training_answers


def _pairs(
    tasks: Sequence[Example], before: Sequence[Sequence[Written]], after: Sequence[Sequence[Written]]
) -> list[Pair]:
    """Greedy answers to at least ten tasks, of every kind one before any has two."""
    seen: dict[str | None, int] = {}
    order = []
    for number, task in enumerate(tasks):
        seen[task.kind] = seen.get(task.kind, 0) + 1
        order.append((seen[task.kind], number))
    chosen = sorted(number for _, number in sorted(order)[:PAIRS])
    return [Pair(task=told(tasks[n]), before=before[n][0].text, after=after[n][0].text) for n in chosen]
