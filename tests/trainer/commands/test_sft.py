"""`trainer sft --tensorboard DIR`: the curves, as TensorBoard reads them."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainer.training.test_sft import dataset, sft_here
from trainer.commands import sft

pytestmark = [pytest.mark.training]


@pytest.fixture(autouse=True)
def directory_for_this_test_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")


def test_the_curves_of_a_run_are_there_and_no_email(tiny_base: Path, tmp_path: Path):
    curves = tmp_path / "curves"
    assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path), "--heldout", 0.2, "--tensorboard", curves) == 0
    read = EventAccumulator(str(curves)).Reload()
    assert len(read.Scalars("train/loss")) > 1
    assert len(read.Scalars("eval/loss")) > 1
    [file] = curves.iterdir()
    assert b"Thank you" not in file.read_bytes()


def test_a_directory_that_cannot_be_one_is_said(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "curves").write_text("")
    assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path), "--tensorboard", tmp_path / "curves") == 2
    assert "curves cannot be written: File exists" in capsys.readouterr().err


def test_without_tensorboard_the_command_says_how_to_get_it(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sft, "find_spec", lambda _: None)
    assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path), "--tensorboard", tmp_path / "curves") == 2
    assert "hint: pip install tensorboard" in capsys.readouterr().err
