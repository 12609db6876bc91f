"""What a program reads that watches a run."""

import json
import math
from pathlib import Path

import pytest

from adapters.errors import ConfigError
from tests.trainer.training.test_sft import NAMES, dataset, sft_here
from trainer.training.events import events_to


def read(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_an_event_can_be_read_as_soon_as_it_is_told(tmp_path: Path):
    file = tmp_path / "events.jsonl"
    with events_to(file, append=False) as emit:
        emit("step", step=1, loss=1.23456789, heldout_loss=None)
        assert read(file) == [{"event": "step", "step": 1, "loss": 1.23457, "heldout_loss": None}]
        emit("step", step=2, loss=math.nan)
    assert read(file)[1] == {"event": "step", "step": 2, "loss": None}


def test_a_run_that_goes_on_appends(tmp_path: Path):
    file = tmp_path / "events.jsonl"
    for append, expected in ((False, 1), (True, 2), (False, 1)):
        with events_to(file, append) as emit:
            emit("published", version="mine@1")
        assert len(read(file)) == expected


def test_without_a_file_nobody_is_told():
    with events_to(None, append=False) as emit:
        emit("step", step=1)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path):
    with (
        pytest.raises(ConfigError, match=r"events cannot be written to .*nowhere"),
        events_to(tmp_path / "nowhere" / "events.jsonl", append=False),
    ):
        pass


@pytest.mark.training
@pytest.mark.parametrize("heldout", [0.2, 0])
def test_a_run_tells_of_its_steps_epochs_verdict_and_version_and_of_no_email(
    tiny_base: Path, tmp_path: Path, heldout: float
):
    file = tmp_path / "events.jsonl"
    options = ["--epochs", 2, "--batch-size", 4, "--heldout", heldout, "--events", file]
    assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path), *options) == 0
    events = read(file)
    epoch = ["step"] * 3 + ["epoch"]
    assert [event["event"] for event in events] == [*epoch, *epoch, "verdict", "published"]
    last = events[6]
    assert (last["step"], last["steps"], last["epoch"], last["seconds_left"]) == (6, 6, 2.0, 0.0)
    assert all(event["tokens_per_second"] for event in events if event["event"] == "step")
    assert events[7]["epoch"] == 2
    assert (events[7]["heldout_loss"] is None) == (not heldout)
    assert events[-1] == {"event": "published", "version": "mine@1"}
    assert not any(name in file.read_text() for name in NAMES)
