"""The same run gives the same adapter: through the command, on the tiny model."""

import json
from pathlib import Path

import pytest

from tests.trainer.test_sft import dataset, sft_here
from trainer.cli import main

pytestmark = [pytest.mark.training]
Capture = pytest.CaptureFixture[str]


def rerun(directory: Path, reference: str, data: Path, *arguments: str) -> int:
    return main(["rerun", reference, "--data", str(data), "--store", str(directory / "store"), *arguments])


def test_the_same_run_gives_the_same_bytes_also_one_that_began_with_a_version(
    tiny_base: Path, tmp_path: Path, capsys: Capture
):
    data = dataset(tmp_path)
    assert sft_here(tiny_base, tmp_path, "--data", data, "--dropout", 0.1) == 0
    assert sft_here(tiny_base, tmp_path, "--data", data, "--from", "mine@1", "--learning-rate", 1e-3) == 0
    for reference in ("mine@1", "mine@2"):
        capsys.readouterr()
        assert rerun(tmp_path, reference, data) == 0
        assert capsys.readouterr().out == f"the same adapter as {reference}, byte for byte\n"


def test_another_recipe_gives_other_bytes_and_status_1(tiny_base: Path, tmp_path: Path, capsys: Capture):
    data = dataset(tmp_path)
    assert sft_here(tiny_base, tmp_path, "--data", data, "--heldout", 0) == 0
    [manifest] = (tmp_path / "store" / "mine").glob("1-*/manifest.json")
    fields = json.loads(manifest.read_text())
    # As if it had been trained with dropout, and with another torch.
    fields["recipe"]["dropout"] = 0.5
    fields["training"]["versions"]["torch"] = "1.0"
    manifest.write_text(json.dumps(fields))
    capsys.readouterr()
    assert rerun(tmp_path, "mine@1", data, "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["id"], printed["same"]) == ("mine@1", False)
    assert printed["changed_versions"]["torch"][0] == "1.0"


def test_other_emails_are_refused_before_anything_is_trained(tiny_base: Path, tmp_path: Path, capsys: Capture):
    assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path)) == 0
    other = dataset(tmp_path, [{"prompt": "Thank Bo.", "completion": "Dear Bo,\n\nThank you.\n\nBest,\nKim"}] * 3)
    capsys.readouterr()
    assert rerun(tmp_path, "mine@1", other) == 2
    printed = capsys.readouterr().err
    assert "these are not the emails that mine@1 was trained on" in printed
    assert "Epoch" not in printed
