"""`make bench-proof`: trains the bad voices and a good one, evaluates each, and records what they wrote.

    python -m tests.proof.bench [--base MODEL] [--only NAME] [--output DIR]

Writes tests/proof/recorded/NAME.json for `make test`, and prints a line for each voice: the figures that have limits,
and which it missed. Exit status 1 if one was not caught by its own figure, or the good one by any.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from adapters import base_model
from adapters.base_model import BaseModel
from adapters.store import Store
from adapters.tasks import HELDOUT
from tests.proof.bad_voices import BAD, GOOD, LIMITS, BadVoice
from trainer import forgetting, gate
from trainer.data import read_examples
from trainer.evaluate import evaluate
from trainer.progress import say
from trainer.recipe import Recipe
from trainer.writing import BASE, Advance, InProcess, Prompt, Written

RECORDED = Path(__file__).parent / "recorded"


class OneBase(InProcess):
    """The base model's answers are the same beside every voice: it writes them once."""

    written: ClassVar[dict[str, list[Written]]] = {}

    def write(self, model: str, prompts: Sequence[Prompt], seed: int | None, advance: Advance) -> list[Written]:
        if model != BASE:
            return super().write(model, prompts, seed, advance)
        asked = repr((prompts, seed))
        if asked not in self.written:
            self.written[asked] = super().write(model, prompts, seed, advance)
        return self.written[asked]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="MODEL")
    parser.add_argument("--only", metavar="NAME", choices=[voice.name for voice in (*BAD, GOOD)])
    parser.add_argument("--output", metavar="DIR", type=Path, default=RECORDED)
    args = parser.parse_args()
    base = base_model.find(args.base or base_model.DEFAULT_NAME, print)
    wrong = 0
    for voice in (*BAD, GOOD):
        if args.only in (None, voice.name):
            with tempfile.TemporaryDirectory(prefix="mailwright-proof-") as scratch:
                recorded = record(voice, base, Store(Path(scratch) / "store"))
            args.output.mkdir(exist_ok=True)
            text = json.dumps(recorded, indent=1, ensure_ascii=False)
            (args.output / f"{voice.name}.json").write_text(text + "\n", encoding="utf-8")
            missed = recorded["missed"]
            caught = voice.caught_by in missed if voice.caught_by else not missed
            wrong += not caught
            figures = ", ".join(f"{name} {value:.3f}" for name, value in recorded["figures"].items())
            print(f"{voice.name}: {figures}; missed {missed or 'none'}: {'as expected' if caught else 'NOT EXPECTED'}")
    return int(wrong > 0)


def record(voice: BadVoice, base: BaseModel, store: Store) -> dict[str, Any]:
    """What the voice wrote for the shipped tasks and the everyday questions, greedy, and its figures."""
    from trainer import sft  # TRL takes seconds to import, and test_bad_voices.py only wants RECORDED

    training = voice.make()
    recipe = Recipe(recipe="proof", epochs=voice.epochs, batch_size=8, max_length=2048, heldout=0, sample_tokens=1)
    version = sft.train(training, voice.name, base, recipe, store, "CC0-1.0", say)
    writer = OneBase(base.path, {version.id: version.path})
    tasks = read_examples([HELDOUT])
    found = evaluate(
        version,
        base,
        writer,
        tasks,
        training,
        lambda _: None,
        own=True,
        shown=(),
    )
    checked = gate.check(found.result, LIMITS)
    with torch.inference_mode():
        answers = forgetting._write(writer.model, writer.tokenizer, lambda _: None)
    base_share = found.result.forgetting["answers_like_emails_base"]
    return {
        "voice": voice.name,
        "base": base.name,
        "machine": found.result.machine,
        "figures": {c.limit.split()[0]: c.value for c in checked} | {"answers_like_emails_base": base_share},
        "missed": [c.limit for c in checked if not c.held],
        "emails": [[task[0].text, task[0].ended] for task in found.answers[version.id]],
        "answers": [text for text, _ in answers],
    }


if __name__ == "__main__":
    sys.exit(main())
