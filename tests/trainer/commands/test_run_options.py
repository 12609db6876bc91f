"""The options that several commands share: what is wrong is found before anything slow."""

import json
from pathlib import Path

import pytest

from adapters.models.base_models import BaseModel
from trainer.cli import main


def emails(folder: Path, *texts: str) -> Path:
    file = folder / "mine.jsonl"
    file.write_text(
        "".join(json.dumps({"task": f"Thank Bo {n}.", "email": text}) + "\n" for n, text in enumerate(texts))
    )
    return file


@pytest.mark.parametrize("command", ["estimate", "sweep", "compare-starts"])
def test_emails_that_are_too_long_are_refused_as_before_a_training(
    command: str, base_model: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = emails(tmp_path, "Hi Bo,\n\nthank you.\n\nBest,\nKim", "x" * 5000)
    assert main([command, "--data", str(file), "--base", str(base_model.path)]) == 2
    assert "1 emails are too long" in capsys.readouterr().err


def test_wrong_values_of_recipe_flags_are_named_together_before_an_email_is_read(
    base_model: BaseModel, capsys: pytest.CaptureFixture[str]
):
    flags = ["--epochs", "0", "--rank", "many"]
    assert main(["estimate", "--data", "missing.jsonl", "--base", str(base_model.path), *flags]) == 2
    printed = capsys.readouterr().err
    assert "epochs = 0" in printed
    assert "rank = many" in printed
