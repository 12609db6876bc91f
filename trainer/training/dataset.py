"""What a run trains on and what it holds out: the emails, their varied copies, and generated practice.

This file does not know models: nothing heavy is imported, so that whoever only counts need not wait.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.errors import ConfigError
from trainer.console import Say
from trainer.data.augment import augment
from trainer.data.examples import Example, split
from trainer.data.synthetic import VOICES, synthetic_examples
from trainer.training.recipe import Recipe


@dataclass(frozen=True)
class Rows:
    """What one run trains on and what it holds out; `practice` is how many of `train` were generated or varied."""

    train: list[Example]
    heldout: list[Example]
    practice: int

    @property
    def emails(self) -> list[Example]:
        """The person's own of `train`, which stand first."""
        return self.train[: len(self.train) - self.practice]


def choose_rows(
    examples: Sequence[Example], recipe: Recipe, say: Say, heldout: Sequence[Example] | None = None
) -> Rows:
    """Split the emails; to the training ones add varied copies and practice.

    With `heldout` those are held out, and all of `examples` are trained on.

    Raises:
        ConfigError: the recipe stops early by the held-out loss, and nothing is held out.
    """
    emails, kept_back = split(examples, recipe.heldout, recipe.seed) if heldout is None else (examples, heldout)
    if recipe.early_stop and not kept_back:
        raise ConfigError("early_stop looks at the held-out loss, and no email is held out", "add --heldout 0.2")
    voices = {example.voice for example in emails}
    practice: list[Example] = []
    if recipe.practice and len(voices) == 1 and voices <= set(VOICES):
        practice = synthetic_examples(voices.pop() or "", recipe.practice, recipe.seed)
    elif recipe.practice:
        say("no generated practice: it exists for rows whose voice is formal or friendly")
    chance = random.Random(recipe.seed)
    varied = [augment(email, chance) for _ in range(recipe.repeats - 1) for email in emails]
    say(
        f"{len(emails)} emails to learn from, {len(varied)} copies with other names and numbers, "
        f"{len(practice)} generated for practice; {len(kept_back)} held out"
    )
    made = [*varied, *practice]
    return Rows([*emails, *made], list(kept_back), len(made))
