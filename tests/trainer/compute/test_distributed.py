"""One run by several processes, as `accelerate launch` starts them: the losses of one process, and nothing lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.store.manifest import Training
from adapters.store.store import RUNS, Store
from tests.trainer.training.test_sft import dataset, read_until
from trainer.cli import main
from trainer.compute.device import choose

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]
LAUNCH = [*(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"), "--multi_gpu"]
LAUNCH += ["--num_processes", "2", "--main_process_port", "0", "-m", "trainer.cli"]


def options(directory: Path, base: Path, name: str, batch: int = 4) -> list[str]:
    """8 emails to learn from and 4 held out, so that no step of an epoch is filled up with emails that it had."""
    flags = ["--name", name, "--base", base, "--store", directory / "store", "--data", dataset(directory)]
    flags += ["--recipe", "article", "--epochs", 3, "--batch-size", batch, "--learning-rate", 1e-2, "--heldout", 0.34]
    return ["sft", *map(str, flags), "--sample-tokens", "5"]


def together(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*LAUNCH, *arguments],
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_two_processes_that_a_signal_ends_go_on_to_the_losses_of_one_process(tiny_base: Path, tmp_path: Path):
    assert main(options(tmp_path, tiny_base, "alone")) == 0
    arguments = [*options(tmp_path, tiny_base, "together"), "--sample-epochs", "1,3"]
    with together([*arguments, "--save-every", "0"]) as process:
        try:
            printed = read_until(process, b"Epoch 1 complete!")
            # As Ctrl-C in a terminal does: to the launcher and to both.
            os.killpg(process.pid, signal.SIGINT)
            printed += process.communicate(timeout=120)[1]
        finally:
            process.kill()
    store = Store(tmp_path / "store")
    assert printed.count(b"run the same command with --resume\n") == 1, printed.decode()[-3000:]
    assert store.versions("together") == []
    assert list((store.directory / RUNS / "together").glob("checkpoint-*"))

    with together([*arguments, "--resume"]) as process:
        printed = process.communicate(timeout=300)[1]
    assert process.returncode == 0, printed.decode()[-3000:]
    assert printed.count(b"Epoch 3 complete!") == 1
    alone, resumed = (trained(store, name) for name in ("alone", "together"))
    close = 1e-3 if choose().dtype == "float32" else 1e-2
    assert resumed.train_losses == pytest.approx(alone.train_losses, rel=close)
    assert resumed.heldout_losses == pytest.approx(alone.heldout_losses, rel=close)
    assert (resumed.steps, resumed.tokens) == (alone.steps, alone.tokens)
    assert store.resolve("together@epoch-1") != store.resolve("together@epoch-3")
    assert not (store.directory / RUNS / "together").exists()


def trained(store: Store, name: str) -> Training:
    training = store.resolve(name).manifest().training
    assert training
    return training


def test_a_step_that_two_processes_cannot_share_is_refused(tiny_base: Path, tmp_path: Path):
    with together(options(tmp_path, tiny_base, "mine", batch=3)) as process:
        printed = process.communicate(timeout=120)[1].decode()
    assert process.returncode != 0
    assert "error: a step of 3 emails cannot be shared among 2 processes" in printed
    assert "hint: give a --batch-size that 2 divides" in printed
    assert Store(tmp_path / "store").versions("mine") == []
