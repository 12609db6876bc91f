"""`trainer compare-starts` as it is typed, on the tiny model: tables, emails, JSON, and what is refused beforehand."""

import json
import math
import tempfile
from pathlib import Path

import pytest

from tests.trainer.test_cli import failed
from tests.trainer.training.test_sft import NAMES, dataset
from trainer.cli import main
from trainer.commands import run_options
from trainer.commands.compare_starts import difference

Capture = pytest.CaptureFixture[str]
TINY = ("--rank", 4, "--alpha", 8, "--batch-size", 2, "--sample-tokens", 8)


def compare_here(tiny_base: Path, directory: Path, *arguments: object) -> int:
    flags = ("--data", dataset(directory), "--base", tiny_base, *TINY)
    return main([str(part) for part in ("compare-starts", *flags, *arguments)])


@pytest.mark.training
def test_it_shows_both_side_by_side_and_what_each_writes(tiny_base: Path, tmp_path: Path, capsys: Capture):
    assert compare_here(tiny_base, tmp_path, "--minutes", 0.02) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split() == ["begins", "with", "base", "model,", "LoRA", "random", "weights"]
    figures = {line[:24].strip(): line[24:].split() for line in lines[1:9]}
    assert list(figures) == [
        "steps",
        "emails read",
        "weights trained",
        "learning rate",
        "held-out loss before",
        "held-out loss after",
        "training loss at the end",
        "tokens a second",
    ]
    assert all(len(cells) == 2 for cells in figures.values())
    assert figures["learning rate"][1] == "1e-3"
    assert lines[9].startswith("0.02 minutes each, 2 emails a step; held out: 6; ")
    assert lines[9].endswith("blind chance among 99 tokens is 4.595")
    assert [line for line in lines if line.startswith("minutes")] != []
    assert any(line in printed.out for line in (f"\n  | Thank {name}.\n" for name in NAMES))
    for said in (
        "tiny-llama before training writes:",
        "from its weights, after 0.02 minutes:",
        "from random weights, after 0.02 minutes:",
    ):
        assert f"\n{said}\n  |" in printed.out
    assert lines[-1].startswith("after 0.02 minutes the pretrained start is at ")
    assert "training 100 %" in printed.err
    assert "published" not in printed.out + printed.err


@pytest.mark.training
def test_as_json_with_both(tiny_base: Path, tmp_path: Path, capsys: Capture):
    assert compare_here(tiny_base, tmp_path, "--minutes", 1e-6, "--json", "--learning-rate", 0.01) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert (found["heldout_emails"], found["vocabulary"], found["minutes"]) == (6, 99, 1e-6)
    for start in ("pretrained", "random"):
        figures = found[start]
        assert (figures["start"], figures["steps"], figures["learning_rate"]) == (start, 1, 0.01)
        assert len(figures["losses"]) == 1
        assert figures["after"] == figures["heldout"][-1][1] > 0
        assert figures["tokens_per_second"] > 0
    assert found["random"]["before"] == pytest.approx(math.log(99), abs=0.15)
    assert found["task"].startswith("Thank ")
    assert found["difference"].startswith("after 1e-06 minutes the pretrained start is at ")


@pytest.mark.training
def test_ctrl_c_leaves_nothing_behind(
    tiny_base: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.trials.compare_starts.CompletionTrainer.training_step", interrupted)
    assert compare_here(tiny_base, tmp_path, "--minutes", 5) == 130
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("stopped; nothing was left half done\n")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_minutes_that_are_none_are_refused_before_anything_is_read(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, minutes: str
):
    monkeypatch.setattr(run_options, "chosen", lambda _: pytest.fail("the emails were read"))
    printed = failed(capsys, "compare-starts", "--data", "mine.jsonl", f"--minutes={minutes}")
    assert printed == f"error: --minutes must be above 0, got {minutes}\nhint: give minutes, such as 5\n"


@pytest.mark.training
@pytest.mark.parametrize(
    ("ended", "so"), [(6.9, ", so that the random one is not yet where the pretrained one began"), (1.8, "")]
)
def test_the_last_sentence_says_whether_the_random_start_has_caught_up(ended: float, so: str):
    from trainer.trials.compare_starts import Comparison, Trained

    def start(name: str, before: float, after: float) -> Trained:
        return Trained(name, 10, 1e-3, 8, 100, 300.0, (before, after), ((0.0, before), (300.0, after)), None, "Hi")

    pair = start("pretrained", 2.2, 1.35), start("random", 10.8, ended)
    assert difference(Comparison("tiny", 1.0, 8, 4, 49152, "Thank Ada.", *pair)) == (
        f"after 1 minute the pretrained start is at 1.350 nats a token and the random one at {ended:.3f}; "
        f"they began at 2.200 and 10.800{so}"
    )


def test_the_help_shows_commands_to_copy(capsys: Capture):
    with pytest.raises(SystemExit) as caught:
        main(["compare-starts", "--help"])
    assert caught.value.code == 0
    assert "trainer compare-starts --data mine.jsonl --minutes 20 --recipe quick" in capsys.readouterr().out
