"""What an unfinished run leaves, and who may go on with it; no trainer here. The real runs: test_resume.py."""

import shutil
from collections import namedtuple
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import ConfigError, StoreUnwritable
from adapters.store.store import RUNS, Store
from trainer.training.checkpoints import STATE, SavedRun, identity, open_run
from trainer.training.recipe import Recipe

RECIPE = Recipe(epochs=3, batch_size=4)
STARTED = identity("0" * 64, "sha256:1", RECIPE)


def nobody_listens(_: str) -> None: ...


def saved(run: SavedRun, step: int, whole: bool = True) -> Path:
    checkpoint = run.path / f"checkpoint-{step}"
    checkpoint.mkdir()
    if whole:
        (checkpoint / STATE).write_text("{}")
    return checkpoint


def left_behind(store: Store, *steps: int, started: dict[str, Any] = STARTED) -> None:
    with suppress(KeyboardInterrupt), open_run(store, "mine", started, False, nobody_listens) as run:
        for step in steps:
            saved(run, step)
        run.note(12.34)
        raise KeyboardInterrupt


def test_a_run_that_ends_well_leaves_nothing(store: Store):
    with open_run(store, "mine", STARTED, False, nobody_listens) as run:
        saved(run, 3)
    assert not run.path.exists()
    assert "mine" not in store.names()


def test_a_run_that_was_never_saved_leaves_nothing(store: Store):
    left_behind(store)
    assert not (store.directory / RUNS / "mine").exists()


def test_the_newest_whole_checkpoint_is_gone_on_with(store: Store):
    left_behind(store, 9, 100)
    with open_run(store, "mine", STARTED, True, nobody_listens) as run:
        saved(run, 200, whole=False)
        assert run.checkpoint() == run.path / "checkpoint-100"
        assert run.seconds() == 12.3


def test_other_speed_and_length_may_go_on(store: Store):
    left_behind(store, 9)
    other = RECIPE.model_copy(update={"epochs": 5, "learning_rate": 1e-4, "early_stop": 2})
    with open_run(store, "mine", identity("0" * 64, "sha256:1", other), True, nobody_listens) as run:
        assert run.checkpoint()


@pytest.mark.parametrize(
    ("started", "said"),
    [
        (identity("1" * 64, "sha256:1", RECIPE), "other emails"),
        (identity("0" * 64, "sha256:2", RECIPE), "other base model"),
        (identity("0" * 64, "sha256:1", RECIPE.model_copy(update={"rank": 8})), "rank 16, not 8"),
        # What was not kept at its time cannot be published.
        (identity("0" * 64, "sha256:1", RECIPE.model_copy(update={"sample_epochs": (1,)})), "sample_epochs"),
    ],
)
def test_a_run_of_something_else_is_not_gone_on_with_and_not_lost(store: Store, started: dict[str, Any], said: str):
    left_behind(store, 9)
    with pytest.raises(ConfigError, match=said), open_run(store, "mine", started, True, nobody_listens):
        pass
    with open_run(store, "mine", STARTED, True, nobody_listens) as run:
        assert run.checkpoint()


def test_without_an_unfinished_run_there_is_nothing_to_go_on_with(store: Store):
    with pytest.raises(ConfigError, match="no unfinished run of mine"), open_run(store, "mine", STARTED, True, print):
        pass


def test_a_new_run_says_that_it_gives_up_an_unfinished_one(store: Store):
    left_behind(store, 9)
    said: list[str] = []
    with open_run(store, "mine", STARTED, False, said.append) as run:
        assert run.checkpoint() is None
    assert said == ["deleting the unfinished run of mine, saved at step 9; --resume would continue it"]


def test_two_runs_of_one_name_do_not_share_a_directory(store: Store):
    with open_run(store, "mine", STARTED, False, nobody_listens) as run:
        checkpoint = saved(run, 3)
        for resume in (False, True):
            with pytest.raises(ConfigError, match="another run"), open_run(store, "mine", STARTED, resume, print):
                pass
        with open_run(store, "yours", STARTED, False, nobody_listens):
            pass
        assert checkpoint.is_dir()


def test_a_disk_that_is_too_full_is_found_before_the_run(store: Store, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(40_000_000))
    with open_run(store, "mine", STARTED, False, nobody_listens) as run:
        run.check_room(900_000)
        with pytest.raises(StoreUnwritable, match="has 40 MB free, and this run needs 44 MB"):
            run.check_room(1_000_000)
