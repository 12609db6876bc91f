"""What was predicted and what came out, in a file of the cache."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.store.manifest import Manifest
from tests import tiny
from trainer.trials import predictions
from trainer.trials.predictions import LATEST_RUNS, Prediction, correction, keep, read, remember

RECIPE = {"rank": 16, "batch_size": 8, "dropout": 0.0, "max_length": 1024, "epochs": 1}
FINGERPRINT = "sha256:" + "1" * 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prediction(**fields: Any) -> Prediction:
    known: dict[str, Any] = {
        "date": datetime(2026, 11, 26, tzinfo=UTC),
        "machine": "a laptop",
        "dtype": "float32",
        "base_fingerprint": FINGERPRINT,
        "recipe": RECIPE,
        "data_sha256": "0" * 64,
        "heldout_sha256": None,
        "tokens": 1000,
        "steps": 10,
        "tokens_a_second": 5.0,
        "probed_seconds": 200.0,
        "seconds": 240.0,
    }
    return Prediction(**known | fields)


def manifest(seconds: float, steps: int = 10, recipe: dict[str, Any] = RECIPE) -> Manifest:
    facts = tiny.facts("tiny", FINGERPRINT)
    training = facts["training"] | {"seconds": seconds, "steps": steps}
    changed = {"recipe": recipe, "training": training}
    return Manifest(name="mine", version=1, created=datetime.now(UTC), adapter_sha256="2" * 64, **facts | changed)


def said_of(manifest: Manifest, machine: str = "a laptop") -> list[str]:
    said: list[str] = []
    remember(manifest, machine, said.append)
    return said


def nobody_listens(_: str) -> None: ...


def nothing_is_said(sentence: str) -> None:
    pytest.fail(sentence)


def test_a_finished_run_is_compared_with_its_prediction_and_kept():
    keep(prediction(), nothing_is_said)
    assert said_of(manifest(251.0)) == ["predicted 240 s, took 251 s (+5%)"]
    assert [p.actual_seconds for p in read(nothing_is_said)] == [251.0]


def test_nothing_is_said_of_a_run_that_nobody_predicted():
    assert said_of(manifest(251.0)) == []
    keep(prediction(), nothing_is_said)
    assert said_of(manifest(251.0), machine="another") == []
    assert said_of(manifest(251.0, recipe=RECIPE | {"epochs": 2})) == []
    assert [p.actual_seconds for p in read(nothing_is_said)] == [None]


def test_the_latest_prediction_of_a_run_counts():
    keep(prediction(), nothing_is_said)
    keep(prediction(seconds=100.0), nothing_is_said)
    assert said_of(manifest(110.0)) == ["predicted 100 s, took 110 s (+10%)"]


def test_a_run_that_ended_early_is_not_compared():
    keep(prediction(), nothing_is_said)
    assert said_of(manifest(90.0, steps=4)) == ["the run ended after 4 of 10 steps: not compared with its prediction"]
    assert [p.actual_seconds for p in read(nothing_is_said)] == [None]


def test_a_correction_is_the_median_of_the_latest_runs_against_what_their_probes_said():
    past = [prediction(actual_seconds=200.0 * ratio) for ratio in (9, 9, 1.0, 1.1, 1.2, 1.3, 5)]
    assert correction(prediction(), past) == (pytest.approx(1.2), LATEST_RUNS)


@pytest.mark.parametrize(
    "other", [{"machine": "another"}, {"dtype": "bfloat16"}, {"recipe": RECIPE | {"rank": 8}}, {"actual_seconds": None}]
)
def test_runs_on_another_machine_in_another_way_or_unfinished_correct_nothing(other: dict[str, Any]):
    past = [prediction(**{"actual_seconds": 400.0} | other)]
    assert correction(prediction(), past) == (1.0, 0)


def test_more_epochs_of_other_emails_are_a_run_alike():
    past = [prediction(actual_seconds=400.0)]
    assert correction(prediction(data_sha256="3" * 64, recipe=RECIPE | {"epochs": 9}), past) == (2.0, 1)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"machine": "x"}', '[{"machine": "x"}]', "\x00"])
def test_a_damaged_file_is_not_used_which_is_said_and_the_next_prediction_replaces_it(text: str):
    predictions.file().parent.mkdir(parents=True)
    predictions.file().write_text(text)
    said: list[str] = []
    assert read(said.append) == []
    (sentence,) = said
    assert sentence.startswith(f"warning: past estimates in {predictions.file()} are not used: it is damaged")
    keep(prediction(), nobody_listens)
    assert read(nothing_is_said) == [prediction()]


def test_a_cache_that_cannot_be_written_stops_nothing(cache: Path):
    cache.write_text("a file where the directory would be")
    said: list[str] = []
    keep(prediction(), said.append)
    assert "the prediction was not kept" in said[0]


def test_old_predictions_go_and_no_other_file_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(predictions, "MAX_KEPT", 2)
    for tokens in (1, 2, 3):
        keep(prediction(tokens=tokens), nothing_is_said)
    assert [p.tokens for p in read(nothing_is_said)] == [2, 3]
    assert {file.name for file in predictions.file().parent.iterdir()} == {"predictions.json", ".lock"}
