"""Out of memory in a run: as a process that may take little, and with a GPU's error on this CPU; the tiny model."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel
from adapters.store.manifest import Training
from adapters.store.store import RUNS, Store
from tests.trainer.training.test_resume import trained
from tests.trainer.training.test_sft import RECIPE, dataset, nobody_listens, run_of
from trainer.training import sft
from trainer.training.sft_trainer import CompletionTrainer

pytestmark = [pytest.mark.training]
LIMITED = """
import re, resource, sys
from pathlib import Path
from trainer.training import sft
from trainer.cli import main
used = int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 900_000_000,) * 2)
sys.exit(main(sys.argv[1:]))
"""
"""The trainer in a process that may take 900 MB beyond what its imports hold."""


def test_a_batch_that_the_memory_does_not_hold_is_read_in_parts(tiny_base: Path, tmp_path: Path):
    long = [{"prompt": f"Write {number}.", "completion": f"{number} " + "word " * 500} for number in range(16)]
    flags = ["--name", "mine", "--base", tiny_base, "--store", tmp_path / "store", "--data", dataset(tmp_path, long)]
    flags += ["--epochs", 1, "--batch-size", 16, "--max-length", 4000, "--heldout", 0]
    command = [sys.executable, "-c", LIMITED, "sft", *map(str, flags), "--sample-tokens", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out of memory with 16 emails at once: now 8 at once, still 16 a step" in done.stderr
    assert trained(tmp_path).steps == 1


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("saved", [False, True])
def test_out_of_memory_is_answered_with_fewer_emails_at_once_and_the_same_losses(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch, saved: bool
):
    """On this CPU the error is a GPU's, from the second step on; a step has 4 emails, of which 1 at a time fits."""
    recipe = RECIPE.model_copy(update={"batch_size": 4, "epochs": 3})

    def train(name: str, log: Callable[[str], None] = nobody_listens) -> Training:
        every = 0 if saved else 10_000
        version = sft.train(run_of(base_model, recipe, name=name, log=log, save_every=every), store)
        training = version.manifest().training
        assert training
        return training

    wanted = train("wanted")
    stock, steps = CompletionTrainer.compute_loss, []

    def one_fits(trainer: CompletionTrainer, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        steps.append(len(inputs["input_ids"]))
        if trainer.state.global_step and len(inputs["input_ids"]) > 1 and model.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return stock(trainer, model, inputs, *args, **options)

    said: list[str] = []
    monkeypatch.setattr(CompletionTrainer, "compute_loss", one_fits)
    training = train("mine", said.append)
    assert [sentence for sentence in said if "out of memory" in sentence] == [
        "out of memory with 4 emails at once: now 2 at once, still 4 a step",
        "out of memory with 2 emails at once: now 1 at once, still 4 a step",
    ]
    assert (training.steps, training.tokens) == (wanted.steps, wanted.tokens)
    assert training.train_losses == pytest.approx(wanted.train_losses, rel=1e-3)
    assert training.heldout_losses == pytest.approx(wanted.heldout_losses, rel=1e-3)


def test_an_email_that_no_memory_holds_is_said_to_be_one(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch
):
    def nothing_fits(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(CompletionTrainer, "compute_loss", nothing_fits)
    recipe = RECIPE.model_copy(update={"heldout": 0})
    with pytest.raises(ConfigError, match="the memory does not hold one email in training"):
        sft.train(run_of(base_model, recipe), store)
    assert not (store.directory / RUNS / "mine").exists()


def test_an_error_that_is_not_the_memory_s_is_not_hidden(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch
):
    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(CompletionTrainer, "compute_loss", breaks)
    with pytest.raises(RuntimeError, match="shapes cannot"):
        sft.train(run_of(base_model), store)
