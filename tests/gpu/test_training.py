"""A run on the GPU, in a process of its own so that this one holds none of its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.models.base_models import find
from adapters.models.validate import reasons_against
from adapters.store.store import Store
from tests import tiny
from tests.serving import ROOT


@pytest.mark.timeout(900)
def test_a_run_on_the_gpu_publishes_a_voice_that_learned(tmp_path: Path):
    qwen = tiny.make_base(tmp_path / "tiny-qwen3", qwen=True)
    emails = [{"task": f"Thank {n} for {n} chairs.", "email": f"Dear {n},\n\nThank you.\n\nKim"} for n in range(40)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, emails)))
    flags = ["--data", tmp_path / "mine.jsonl", "--name", "mine", "--base", qwen, "--store", tmp_path / "store"]
    command = [sys.executable, "-m", "trainer.cli", "sft", *flags, "--recipe", "gpu", "--learning-rate", "1e-2"]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "device CUDA, " in done.stderr
    version = Store(tmp_path / "store").resolve("mine")
    training = version.manifest().training
    assert reasons_against(version.path, find(str(qwen))) == []
    assert training.heldout_loss_before is not None
    assert training.heldout_loss is not None
    assert training.heldout_loss < training.heldout_loss_before
