"""`trainer sweep` as it is typed, on the tiny model: table, picture, recipe, JSON, and what is refused beforehand."""

import json
import math
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.trainer.test_cli import failed
from tests.trainer.training.test_sft import command, dataset, read_until
from trainer.cli import main
from trainer.commands import run_options
from trainer.commands.sweep import curve, recipe_with
from trainer.training.recipe import Recipe, load
from trainer.trials.learning_rates import Sweep, Trial

Capture = pytest.CaptureFixture[str]
TINY = ("--rank", 4, "--alpha", 8, "--batch-size", 2)


def sweep_here(tiny_base: Path, directory: Path, *arguments: object) -> int:
    flags = ("--data", dataset(directory), "--base", tiny_base, *TINY)
    return main([str(part) for part in ("sweep", *flags, *arguments)])


@pytest.mark.training
def test_a_sweep_prints_a_table_with_curves_and_writes_a_recipe_that_sft_takes(
    tiny_base: Path, tmp_path: Path, capsys: Capture
):
    recipe = tmp_path / "mine.yaml"
    rates = "1e-4,2e-2,1e-1"
    assert sweep_here(tiny_base, tmp_path, "--rates", rates, "--steps", 12, "--write", recipe) == 0
    printed = capsys.readouterr()
    table = [line.split() for line in printed.out.splitlines()[1:4]]
    assert [(row[0], " ".join(row[-2:])) for row in table] == [
        ("1e-4", "too slow"),
        ("2e-2", "just right"),
        ("1e-1", "too fast"),
    ]
    assert all(len(row) == 6 and len(row[3]) == 12 for row in table)
    assert "\njust right: 2e-2\n" in printed.out
    assert f"use it: trainer sft ... --recipe {recipe}" in printed.out
    assert "trials 100 %" in printed.err
    assert not any(word in printed.out + printed.err for word in ("Dear", "Thank", "Ada"))
    assert load(str(recipe), {}) == Recipe(
        recipe=str(recipe), learning_rate=2e-2, epochs=1, batch_size=2, rank=4, alpha=8
    )
    sft = ["sft", "--data", dataset(tmp_path), "--base", tiny_base, "--name", "mine", "--store", tmp_path / "store"]
    assert main([str(part) for part in (*sft, "--recipe", recipe, "--sample-tokens", 5)]) == 0
    assert "learning rate 0.02 (given)" in capsys.readouterr().err


@pytest.mark.training
@pytest.mark.usefixtures("loss_becomes_nan")
def test_as_json_with_null_for_no_number_and_status_1_where_none_is_just_right(
    tiny_base: Path, tmp_path: Path, capsys: Capture
):
    recipe = tmp_path / "mine.yaml"
    flags = ("--rates", "0.98,0.99", "--steps", 5, "--write", recipe, "--json")
    assert sweep_here(tiny_base, tmp_path, *flags) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert (found["chosen"], found["heldout_emails"], found["steps"]) == (None, 6, 5)
    assert found["advice"].startswith("none was too slow: try slower ones too")
    for trial in found["trials"]:
        assert (trial["verdict"], trial["heldout"], trial["losses"][-1]) == ("too fast", None, None)
        assert trial["losses"][0] > 0
    assert f"{recipe} was not written" in printed.err
    assert not recipe.exists()


@pytest.mark.training
def test_ctrl_c_leaves_nothing_behind(tiny_base: Path, tmp_path: Path):
    (tmp_path / "tmp").mkdir()
    recipe = tmp_path / "mine.yaml"
    arguments = ["--data", dataset(tmp_path), "--base", tiny_base, *TINY, "--rates", "1e-4,1e-3", "--steps", 1000]
    with subprocess.Popen(
        command("sweep", *arguments, "--write", recipe),
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        start_new_session=True,
        # A test run in the background of a shell has Ctrl-C ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            printed = read_until(process, b"trials   1 %")
            process.send_signal(signal.SIGINT)
            printed += process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130, printed.decode()[-2000:]
    assert b"Traceback" not in printed
    assert not recipe.exists()
    assert list((tmp_path / "tmp").glob("mailwright-*")) == []


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--rates", "1e-4,fast"], "--rates 1e-4,fast: 'fast' is not a number"),
        (["--rates", "1e-4,"], "--rates 1e-4,: '' is not a number"),
        (["--rates", "1e-4,1"], "--rates 1e-4,1: 1 is not between 0 and 1"),
        (["--rates", "0,1e-4"], "--rates 0,1e-4: 0 is not between 0 and 1"),
        (["--rates", "nan,1e-4"], "--rates nan,1e-4: nan is not between 0 and 1"),
        (["--rates", "1e-4,0.0001"], "--rates 1e-4,0.0001 leaves nothing to compare"),
        (["--learning-rate", "1e-3"], "--learning-rate 1e-3 is one rate, and a sweep compares several"),
        (["--steps", "4"], "--steps 4 shows nothing"),
        (["--write", "nowhere/mine.yaml"], "nowhere/mine.yaml cannot be written: there is no directory nowhere"),
        (["--write", "."], ". cannot be written: it is a directory"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, flags: list[str], error: str
):
    monkeypatch.setattr(run_options, "chosen", lambda _: pytest.fail("the emails were read"))
    printed = failed(capsys, "sweep", "--data", "mine.jsonl", *flags)
    assert printed.startswith(f"error: {error}\nhint: ")


def test_a_recipe_that_is_there_is_not_overwritten_without_force(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("epochs: 1\n")
    printed = failed(capsys, "sweep", "--data", "mine.jsonl", "--write", recipe)
    assert printed == f"error: {recipe} is there already\nhint: --force overwrites it, or name another file\n"
    # With it the next thing that is missed are the emails.
    forced = failed(capsys, "sweep", "--data", tmp_path / "mine.jsonl", "--write", recipe, "--force")
    assert "mine.jsonl: cannot be read" in forced


def test_a_written_recipe_keeps_what_was_given_and_nothing_else(tmp_path: Path):
    (tmp_path / "old.yaml").write_text("epochs: 2\nbatch_size: 4\nlearning_rate: 0.5\nlimits: [facts_kept >= 0.5]\n")
    old = load(str(tmp_path / "old.yaml"), {"dropout": 0.0})
    trial = Trial(1e-5, (4.0, 3.0), 3.0)
    text = recipe_with(old, trial, Sweep((trial,), 4.0, 2, 4, 8))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "learning_rate: 1.0e-05",
        "epochs: 2",
        "batch_size: 4",
        "dropout: 0.0",
        "limits:",
        "- facts_kept >= 0.5",
    ]
    new = tmp_path / "new.yaml"
    new.write_text(text)
    assert load(str(new), {}) == old.model_copy(update={"learning_rate": 1e-5, "recipe": str(new)})


def test_a_curve_shows_what_leaves_the_scale_and_what_is_no_number():
    calm = Trial(1e-3, (4.0, 3.0, 2.0, 0.0), 1.0)
    wild = Trial(1e-1, (4.0, 9.0, math.nan), math.nan)
    sweep = Sweep((calm, wild), 4.0, 4, 8, 8)
    assert (curve(calm, sweep), curve(wild, sweep)) == ("█▇▅▁", "█^x")


def test_a_long_curve_is_shown_in_24_characters():
    trial = Trial(1e-3, tuple(4.0 - step / 100 for step in range(100)), 3.0)
    assert len(curve(trial, Sweep((trial,), 4.0, 100, 8, 8))) == 24


def test_the_help_says_the_rules_and_shows_commands_to_copy(capsys: Capture):
    with pytest.raises(SystemExit) as caught:
        main(["sweep", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "trainer sweep --data mine.jsonl --rates 3e-4,1e-3,3e-3" in shown
    # argparse breaks lines at hyphens.
    assert "(default:1e-5,1e-4,3e-4,1e-3,3e-3,1e-2)" in "".join(shown.split())
    assert "within 10 % of the best one's gain, if the best took 2 % or more off" in " ".join(shown.split())
