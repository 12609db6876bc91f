"""`trainer estimate` as a user types it, on a tiny random Llama."""

import json
from pathlib import Path

import pytest

from tests.trainer.training.test_sft import dataset
from trainer.cli import main
from trainer.commands.estimate import lines
from trainer.compute.device import choose
from trainer.trials import prices
from trainer.trials.estimate import Estimate, work

Capture = pytest.CaptureFixture[str]
FLAGS = ["--epochs", 2, "--batch-size", 2, "--sample-tokens", 5]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def estimated(base: Path, directory: Path, *arguments: object) -> int:
    return run("estimate", "--data", dataset(directory), "--base", base, *FLAGS, *arguments)


def test_without_a_probe_it_prints_tokens_gpus_and_the_break_even(tiny_base: Path, tmp_path: Path, capsys: Capture):
    assert estimated(tiny_base, tmp_path, "--no-probe") == 0
    printed = capsys.readouterr()
    assert "11 to learn from, 0 general examples beside them, 1 held out" in printed.out
    assert "(exact): " in printed.out
    assert "time here" not in printed.out
    assert "not run there" in printed.out
    assert "Colab, free" in printed.out
    assert "pays for itself after " in printed.out


def test_without_a_probe_nothing_is_kept(tiny_base: Path, tmp_path: Path, cache: Path):
    assert estimated(tiny_base, tmp_path, "--no-probe") == 0
    assert not (cache / "estimates").exists()


def test_old_prices_are_warned_of(tiny_base: Path, tmp_path: Path, capsys: Capture):
    file = tmp_path / "mine.yaml"
    file.write_text(prices.SHIPPED.read_text().replace("2026-05-07", "2020-01-02").replace("2026-03-01", "2020-01-01"))
    assert estimated(tiny_base, tmp_path, "--no-probe", "--prices", file) == 0
    assert "warning: the prices are old: the newest is from 2020-01-02" in capsys.readouterr().err


def test_a_wrong_file_of_prices_is_an_error_before_anything_is_read(tmp_path: Path, capsys: Capture):
    arguments = ["--data", tmp_path / "none.jsonl", "--prices", tmp_path / "none.yaml"]
    assert run("estimate", *arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: the prices {tmp_path}/none.yaml cannot be read")


def test_a_run_that_fits_nowhere_and_a_card_that_never_pays_are_named(base_model, tmp_path: Path):
    from trainer.data.examples import read_examples
    from trainer.training.recipe import load

    recipe = load("article", {})
    wanted, _ = work(read_examples([dataset(tmp_path)]), recipe, base_model, choose(), lambda _: None)
    known = prices.load()

    def printed(memory: float, dear: float) -> str:
        own = known.own.model_copy(update={"usd_a_kwh": dear})
        with_own = known.model_copy(update={"own": own})
        rented = prices.quotes(with_own, wanted.size, wanted.tokens, wanted.steps, memory)
        card = prices.own_quote(with_own, wanted.size, wanted.tokens, wanted.steps, memory)
        even = prices.break_even(own.usd, rented, card)
        found = Estimate(recipe, wanted, None, memory, rented, card, even)
        return "\n".join(lines(found, with_own))

    assert "cannot be compared: the run does not fit on any rented GPU" in printed(500, 0.3)
    assert printed(500, 0.3).count("does not fit  ") == 11
    assert "never pays for itself: its electricity is $" in printed(2, 1e9)


@pytest.mark.training
def test_a_prediction_then_the_run_then_what_was_off_and_a_corrected_estimate(
    tiny_base: Path, tmp_path: Path, capsys: Capture
):
    assert estimated(tiny_base, tmp_path, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["here"]["runs"] == 0
    assert first["here"]["seconds"]["middle"] > 0
    assert len(first["rented"]) == len(prices.load().rented)

    store = tmp_path / "store"
    arguments = ["--data", dataset(tmp_path), "--base", tiny_base, "--store", store]
    assert run("sft", "--name", "mine", *arguments, *FLAGS, "--json") == 0
    printed = capsys.readouterr()
    training = json.loads(printed.out)["training"]
    assert (first["tokens"], first["steps"]) == (training["tokens"], training["steps"])
    assert f" s, took {training['seconds']:.0f} s (" in printed.err

    assert estimated(tiny_base, tmp_path) == 0
    printed = capsys.readouterr()
    assert "the last run like it on this machine, against its probe" in printed.out
    assert "the peak of the probe" in printed.out
