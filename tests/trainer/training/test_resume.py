"""Runs that a signal ends, and that go on: as processes, on the tiny model."""

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import TrainingDiverged
from adapters.models.base_models import BaseModel
from adapters.store.manifest import Training
from adapters.store.store import RUNS, Store
from adapters.store.version import Version
from tests.trainer.training.test_sft import RECIPE, command, dataset, read_until, run_of
from trainer.cli import main
from trainer.training import sft
from trainer.training.sft_trainer import CompletionTrainer

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
        assert b"run the same command with --resume\n" in printed
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
        return sft.train(run_of(base_model, recipe, save_every=0, **options), store)

    losses = iter([1.0, 1.0, 1.0, math.nan])
    stock = CompletionTrainer.compute_loss
    with monkeypatch.context() as patch:
        patch.setattr(CompletionTrainer, "compute_loss", lambda *args, **named: next(losses) * stock(*args, **named))
        with pytest.raises(
            TrainingDiverged, match="the loss of step 4 is NaN or infinite, and nothing is published"
        ) as caught:
            train(0.03)
    assert "add --resume --learning-rate 0.01" in caught.value.hint
    assert "mine" not in store.names()
    training = train(0.01, resume=True).manifest().training
    assert training
    assert (training.steps, training.learning_rate) == (12, 0.01)
    assert all(map(math.isfinite, training.train_losses))


DIVERGES = """
import math, sys
from trainer.cli import main
from trainer.training.sft_trainer import CompletionTrainer
stock, factors = CompletionTrainer.compute_loss, iter([1.0, 1.0, 1.0])
CompletionTrainer.compute_loss = lambda *args, **named: next(factors, math.nan) * stock(*args, **named)
sys.exit(main(sys.argv[1:]))
"""
"""The trainer in a process whose fourth step has no number for a loss."""


def test_a_process_that_diverges_says_how_to_go_on_and_another_one_does(tiny_base: Path, tmp_path: Path):
    flags = ["--name", "mine", "--base", tiny_base, "--store", tmp_path / "store", "--data", dataset(tmp_path)]
    flags += ["--epochs", 2, "--heldout", 0, "--batch-size", 2, "--sample-tokens", 5, "--save-every", 0]
    arguments = ["sft", *map(str, flags), "--learning-rate"]
    diverged = subprocess.run(
        [sys.executable, "-c", DIVERGES, *arguments, "0.03"], capture_output=True, text=True, check=False, timeout=250
    )
    assert diverged.returncode == 2, diverged.stderr[-3000:]
    assert "the loss of step 4 is NaN or infinite, and nothing is published" in diverged.stderr
    assert "add --resume --learning-rate 0.01" in diverged.stderr
    assert Store(tmp_path / "store").versions("mine") == []
    done = subprocess.run(
        command(*arguments, "0.01", "--resume"), capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(map(math.isfinite, trained(tmp_path).train_losses))
