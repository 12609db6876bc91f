"""What a run trains on and what it holds out: emails and replay.

    trainer sft ... --mix 0.2

Replay examples are everyday requests (trainer/data/shipped/everyday.jsonl) with the base model's own answers. Without
them a voice learns that every request asks for an email.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from trainer.console import Log, bar
from trainer.data.examples import DATA, Example, split, task_example
from trainer.evaluation.memorisation import trained_on
from trainer.training.recipe import Recipe

if TYPE_CHECKING:
    from trainer.compute.device import Device
    from trainer.evaluation.results import Answer

# Other requests than those that trainer/evaluation/forgetting.py measures with.
REQUESTS = DATA / "everyday.jsonl"
# An answer that has not ended by then is left out: the voice would learn to end there.
MAX_ANSWER_TOKENS = 160
# A trial trains on and measures with at least so many; twice as many are held out, or half of all.
MIN_TRIAL_EMAILS = 4


@dataclass(frozen=True)
class Rows:
    """What one run trains on and holds out; the last `replay` rows of `train` are not the person's own emails."""

    train: list[Example]
    heldout: list[Example]
    replay: int = 0

    @property
    def emails(self) -> list[Example]:
        return self.train[: len(self.train) - self.replay]

    def leaked(self) -> int:
        """How many of the emails held out nearly stand among those that are trained on."""
        return trained_on(self.heldout, self.train)


def training_set(
    examples: Sequence[Example],
    recipe: Recipe,
    base: BaseModel,
    device: Device,
    log: Log,
    heldout: Sequence[Example] | None = None,
) -> Rows:
    """The rows of a run of `recipe`, replay included; the base model writes its answers once, then they are cached.

    Raises:
        ConfigError: early stopping without held-out emails, or the base model ends no answer.
    """
    rows = choose_rows(examples, recipe, log, heldout)
    if not recipe.mix:
        return rows
    ended = _ended_answers(base, device, log)
    if not ended:
        raise ConfigError(
            f"{base.name} ends none of its answers within {MAX_ANSWER_TOKENS} tokens, so that there is nothing to mix "
            "in",
            "leave --mix out, or take a base model that was taught to answer",
        )
    replay = in_turn(ended, round(recipe.mix / (1 - recipe.mix) * len(rows.train)), recipe.seed)
    log(f"{len(replay)} general examples mixed in: {len(ended)} requests with the base model's own answers")
    return Rows([*rows.train, *replay], rows.heldout, len(replay))


def trial_set(
    examples: Sequence[Example], recipe: Recipe, base: BaseModel, device: Device, log: Log, purpose: str
) -> Rows:
    """The rows of trainings that are only compared: those of a run, with enough held out to measure on.

    Raises:
        ConfigError: too few emails for the `purpose`.
    """
    heldout = max(recipe.heldout, min(2 * MIN_TRIAL_EMAILS / len(examples), 0.5))
    rows = training_set(examples, recipe.model_copy(update={"heldout": heldout}), base, device, log)
    if min(len(rows.emails), len(rows.heldout)) < MIN_TRIAL_EMAILS:
        raise ConfigError(
            f"{len(examples)} emails are too few {purpose}: {len(rows.emails)} to learn from and "
            f"{len(rows.heldout)} held out to measure on, where {MIN_TRIAL_EMAILS} of each are needed",
            f"give {2 * MIN_TRIAL_EMAILS} emails or more that are not nearly the same",
        )
    return rows


def choose_rows(
    examples: Sequence[Example], recipe: Recipe, log: Log, heldout: Sequence[Example] | None = None
) -> Rows:
    """Split the emails; if `heldout` is given, that is held out and all of `examples` are trained on."""
    emails, kept_back = split(examples, recipe.heldout, recipe.seed) if heldout is None else (examples, heldout)
    if recipe.early_stop and not kept_back:
        raise ConfigError("early_stop looks at the held-out loss, and no email is held out", "add --heldout 0.2")
    log(f"{len(emails)} emails to learn from; {len(kept_back)} held out")
    train, held_out = ([each.instructed(recipe.instruction) for each in part] for part in (emails, kept_back))
    return Rows(train, held_out)


def requests() -> list[str]:
    return [json.loads(line)["request"] for line in REQUESTS.read_text(encoding="utf-8").splitlines()]


def in_turn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` of them in a shuffled order; none comes twice before all came."""
    chance = random.Random(seed)
    found: list[Example] = []
    while len(found) < count:
        found += chance.sample(examples, min(len(examples), count - len(found)))
    return found


def _ended_answers(base: BaseModel, device: Device, log: Log) -> list[Example]:
    """Every request with the base model's answer, where that ended by itself."""
    from trainer.evaluation import base_answers

    asked = requests()
    answers = base_answers.load_answers(base.fingerprint, asked, MAX_ANSWER_TOKENS)
    if answers is None:
        log(f"the base model answers {len(asked)} everyday requests, once:")
        answers = _write_answers(base, device, asked)
        base_answers.save_answers(base.fingerprint, asked, MAX_ANSWER_TOKENS, answers)
    pairs = zip(asked, answers, strict=True)
    return [task_example(request, text) for request, (text, ended) in pairs if text and ended]


def _write_answers(base: BaseModel, device: Device, asked: Sequence[str]) -> list[Answer]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.compute.attention import ATTENTION
    from trainer.compute.packed import pack
    from trainer.evaluation import base_answers

    tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=device.dtype, attn_implementation=ATTENTION)
    model.to(device.kind).eval().requires_grad_(False)
    pack(model)
    with bar("answering", len(asked) * MAX_ANSWER_TOKENS) as advance:
        return base_answers.write_answers(model, tokenizer, asked, MAX_ANSWER_TOKENS, advance)
