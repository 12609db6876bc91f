"""`make bench-proof`: trains the bad voices and a good one, evaluates each, and records what they wrote.

    python -m tests.proof.bench [--base MODEL] [--only NAME] [--output DIR]

Writes tests/proof/recorded/NAME.json for `make test`, and prints a line for each voice: the figures of the criteria,
and which it missed. Exit status 1 if one was not caught by its own figure, or the good one by any.
A last one, trained on another base model, is refused before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from adapters.emails.tasks import HELDOUT
from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.models.validate import reasons_against
from adapters.store.store import Store
from adapters.store.version import Version
from tests.proof.bad_voices import ANOTHER_BASE, BAD, CRITERIA, GOOD, BadVoice, formal
from trainer.console import log
from trainer.data.examples import Example, read_examples
from trainer.evaluation import criteria, forgetting
from trainer.evaluation.evaluate import Setup, evaluate
from trainer.evaluation.results import Answer
from trainer.evaluation.writers import BASE, Advance, InProcess, Prompt
from trainer.training.recipe import Recipe

RECORDED = Path(__file__).parent / "recorded"


class OneBase(InProcess):
    """The base model's answers are the same beside every voice: it writes them once."""

    written: ClassVar[dict[str, list[Answer]]] = {}

    def write(self, model: str, prompts: Sequence[Prompt], seed: int | None, advance: Advance) -> list[Answer]:
        if model != BASE:
            return super().write(model, prompts, seed, advance)
        asked = repr((prompts, seed))
        if asked not in self.written:
            self.written[asked] = super().write(model, prompts, seed, advance)
        return self.written[asked]


def main() -> int:
    names = [*(voice.name for voice in (*BAD, GOOD)), ANOTHER_BASE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="MODEL")
    parser.add_argument("--only", metavar="NAME", choices=names)
    parser.add_argument("--output", metavar="DIR", type=Path, default=RECORDED)
    args = parser.parse_args()
    args.output.mkdir(exist_ok=True)
    base = base_models.find(args.base or base_models.DEFAULT_NAME, print)
    voices = {voice.name: voice for voice in (*BAD, GOOD)}
    wrong = 0
    for name in [args.only] if args.only else names:
        with tempfile.TemporaryDirectory(prefix="mailwright-proof-") as scratch:
            voice = voices.get(name)
            recorded = record(voice, base, Path(scratch)) if voice else another_base(base, Path(scratch))
        text = json.dumps(recorded, indent=1, ensure_ascii=False)
        (args.output / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        caught = _caught(voice, recorded)
        wrong += not caught
        print(f"{name}: {_found(recorded)}: {'as expected' if caught else 'NOT EXPECTED'}", flush=True)
    return int(wrong > 0)


def _caught(voice: BadVoice | None, recorded: dict[str, Any]) -> bool:
    if not voice:
        return bool(recorded["refused"])
    return voice.caught_by in recorded["missed"] if voice.caught_by else not recorded["missed"]


def _found(recorded: dict[str, Any]) -> str:
    if "refused" in recorded:
        return f"refused {recorded['refused']}"
    figures = ", ".join(f"{name} {value:.3f}" for name, value in recorded["figures"].items())
    return f"{figures}; missed {recorded['missed'] or 'none'}"


def record(voice: BadVoice, base: BaseModel, scratch: Path) -> dict[str, Any]:
    """What the voice wrote for the shipped tasks, the everyday questions and its own tasks, greedy, and its figures."""
    training = voice.make()
    version = _train(voice.name, training, voice.epochs, base, scratch)
    writer = OneBase(base.path, {version.id: version.path})
    tasks = read_examples([HELDOUT])
    setup = Setup(version, base, tasks, training, training, example_counts=())
    found = evaluate(setup, writer, lambda _: None)
    checked = [limit for limit, _ in criteria.check_criteria(found.result, CRITERIA)]
    with torch.inference_mode():
        answers = forgetting.write_answers(writer.model, writer.tokenizer, lambda _: None)
    base_share = found.result.forgetting["answers_like_emails_base"]
    return {
        "voice": voice.name,
        "base": base.name,
        "machine": found.result.machine,
        "figures": {c.limit.split()[0]: c.value for c in checked} | {"answers_like_emails_base": base_share},
        "missed": [c.limit for c in checked if not c.held],
        "emails": [[task[0].text, task[0].ended] for task in found.answers[version.id]],
        "training_answers": found.training_answers,
        "answers": [text for text, _ in answers],
    }


def another_base(base: BaseModel, scratch: Path) -> dict[str, Any]:
    """Why a voice that was trained on a base model of the same shape is refused on `base`."""
    directory = scratch / "base"
    shutil.copytree(base.path, directory)
    for file in directory.glob("*.safetensors"):
        tensors = {name: tensor * 1.01 for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    other = base_models.find(str(directory))
    version = _train(ANOTHER_BASE, formal()[:8], 1, other, scratch)
    return {
        "voice": ANOTHER_BASE,
        "base": base.name,
        "base_fingerprint": base.fingerprint,
        "manifest": version.manifest().model_dump(mode="json"),
        "refused": reasons_against(version.path, base),
    }


def _train(name: str, training: list[Example], epochs: int, base: BaseModel, scratch: Path) -> Version:
    from trainer.training import sft  # TRL takes seconds to import, and test_bad_voices.py only wants RECORDED

    recipe = Recipe(recipe="proof", epochs=epochs, batch_size=8, max_length=2048, heldout=0, sample_tokens=1)
    return sft.train(training, name, base, recipe, Store(scratch / "store"), "CC0-1.0", log)


if __name__ == "__main__":
    sys.exit(main())
