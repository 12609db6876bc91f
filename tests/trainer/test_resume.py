"""Runs that a signal ends, and that go on: as processes, on the tiny model."""

import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.base_model import BaseModel
from adapters.errors import ConfigError, TrainingDiverged
from adapters.manifest import Training
from adapters.store import RUNS, Store, Version
from tests.trainer.test_sft import RECIPE, command, dataset, emails, nobody_listens, read_until
from trainer import sft
from trainer.cli import main
from trainer.completion_trainer import CompletionTrainer

pytestmark = [pytest.mark.training]
EPOCHS = 8


def options(directory: Path, base: Path) -> list[str]:
    flags = ["--name", "mine", "--base", base, "--store", directory / "store", "--data", dataset(directory)]
    # With dropout the losses also depend on the random numbers, which the state holds.
    flags += ["--epochs", EPOCHS, "--dropout", 0.1, "--heldout", 0.2, "--batch-size", 2, "--sample-tokens", 5]
    return [str(flag) for flag in flags]


def trained(directory: Path) -> Training:
    training = Store(directory / "store").resolve("mine@1").manifest().training
    assert training
    return training


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Training:
    directory = tmp_path_factory.mktemp("uninterrupted")
    assert main(["sft", *options(directory, tiny_base)]) == 0
    return trained(directory)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_a_signal_ends_goes_on_to_the_losses_of_one_that_nothing_ended(
    uninterrupted: Training, tiny_base: Path, tmp_path: Path, number: signal.Signals, status: int
):
    arguments = ["sft", *options(tmp_path, tiny_base), "--save-every", "0"]
    with subprocess.Popen(
        command(*arguments),
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A test run in the background of a shell has Ctrl-C ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            printed = read_until(process, b"Epoch 2 complete!")
            process.send_signal(number)
            printed += process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == status, printed.decode()[-2000:]
    assert b"Traceback" not in printed
    if number != signal.SIGKILL:
        assert b"go on: the same with --resume\n" in printed
    assert Store(tmp_path / "store").versions("mine") == []
    [saved] = (tmp_path / "store" / RUNS / "mine").glob("checkpoint-*")
    # An epoch's last step is saved after it was reported.
    assert int(saved.name.partition("-")[2]) >= 2 * uninterrupted.steps / EPOCHS - 1

    assert main([*arguments, "--resume"]) == 0
    training = trained(tmp_path)
    assert training.train_losses == pytest.approx(uninterrupted.train_losses, rel=1e-3)
    assert training.heldout_losses == pytest.approx(uninterrupted.heldout_losses, rel=1e-3)
    assert (training.steps, training.tokens) == (uninterrupted.steps, uninterrupted.tokens)
    assert training.heldout_loss_before == uninterrupted.heldout_loss_before
    assert not (tmp_path / "store" / RUNS / "mine").exists()


def test_a_loss_that_is_no_number_leaves_the_state_before_to_go_on_with(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch
):
    def train(learning_rate: float, **options: Any) -> Version:
        recipe = RECIPE.model_copy(update={"learning_rate": learning_rate, "heldout": 0})
        return sft.train(emails(), "mine", base_model, recipe, store, "", nobody_listens, save_every=0, **options)

    losses = iter([1.0, 1.0, 1.0, math.nan])
    stock = CompletionTrainer.compute_loss
    with monkeypatch.context() as patch:
        patch.setattr(CompletionTrainer, "compute_loss", lambda *args, **named: next(losses) * stock(*args, **named))
        with pytest.raises(
            TrainingDiverged, match="the loss of step 4 is no number, and nothing is published"
        ) as caught:
            train(0.03)
    assert "add --resume --learning-rate 0.01" in caught.value.hint
    assert "mine" not in store.names()
    training = train(0.01, resume=True).manifest().training
    assert training
    assert (training.steps, training.learning_rate) == (12, 0.01)
    assert all(map(math.isfinite, training.train_losses))


LIMITED = """
import re, resource, sys
from pathlib import Path
from trainer import sft
from trainer.cli import main
used = int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 700_000_000,) * 2)
sys.exit(main(sys.argv[1:]))
"""
"""The trainer in a process that may take 700 MB beyond what its imports hold."""


def test_a_batch_that_the_memory_does_not_hold_is_read_in_parts(tiny_base: Path, tmp_path: Path):
    long = [{"prompt": f"Write {number}.", "completion": f"{number} " + "word " * 500} for number in range(16)]
    flags = ["--name", "mine", "--base", tiny_base, "--store", tmp_path / "store", "--data", dataset(tmp_path, long)]
    flags += ["--epochs", 1, "--batch-size", 16, "--max-length", 4000, "--heldout", 0, "--practice", 0, "--repeats", 1]
    command = [sys.executable, "-c", LIMITED, "sft", *map(str, flags), "--sample-tokens", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out of memory with 16 emails at once: on with 8 at once, and 16 a step as before" in done.stderr
    assert trained(tmp_path).steps == 1


@pytest.mark.parametrize("saved", [False, True])
def test_out_of_memory_is_answered_with_fewer_emails_at_once_and_the_same_losses(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch, saved: bool
):
    """On this CPU the error is a GPU's, from the second step on; a step has 4 emails, of which 1 at a time fits."""
    recipe = RECIPE.model_copy(update={"batch_size": 4, "epochs": 3})

    def train(name: str, say: Callable[[str], None] = nobody_listens) -> Training:
        every = 0 if saved else 10_000
        version = sft.train(emails(), name, base_model, recipe, store, "", say, save_every=every)
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
        "out of memory with 4 emails at once: on with 2 at once, and 4 a step as before",
        "out of memory with 2 emails at once: on with 1 at once, and 4 a step as before",
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
        sft.train(emails(), "mine", base_model, recipe, store, "", nobody_listens)
    assert not (store.directory / RUNS / "mine").exists()


def test_an_error_that_is_not_the_memory_s_is_not_hidden(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch
):
    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(CompletionTrainer, "compute_loss", breaks)
    with pytest.raises(RuntimeError, match="shapes cannot"):
        sft.train(emails(), "mine", base_model, RECIPE, store, "", nobody_listens)
