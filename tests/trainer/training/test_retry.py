"""Runs with their remedies applied, on the tiny model and without one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import TrainingDiverged
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from adapters.store.version import Version
from tests import tiny
from tests.trainer.training.test_sft import dataset, run_of
from trainer.cli import main
from trainer.training.recipe import Recipe
from trainer.training.retry import train_mended
from trainer.training.run import TrainingRun

RECIPE = Recipe(epochs=2, batch_size=4, learning_rate=0.9)
TRAINING = {
    **dict.fromkeys(("examples", "replay_examples", "heldout_examples", "epochs", "steps", "tokens"), 1),
    **dict.fromkeys(("seconds", "learning_rate", "train_loss", "heldout_loss_before"), 1.0),
    "versions": {},
}


class Scripted:
    """Stands for the trainer: publishes versions with the given held-out losses and remedies, None for a divergence."""

    def __init__(self, store: Store, tmp_path: Path, runs: list[tuple[float | None, dict[str, float]]]) -> None:
        self.store, self.tmp_path, self.runs = store, tmp_path, iter(runs)
        self.recipes: list[Recipe] = []

    def __call__(self, run: TrainingRun, store: Store) -> Version:
        self.recipes.append(run.recipe)
        loss, remedy = next(self.runs)
        if loss is None:
            raise TrainingDiverged("the loss is no number", "", remedy)
        seen = self.store.resolve("formal")
        adapter = self.tmp_path / str(len(self.recipes))
        shutil.copytree(seen.path, adapter)
        of: dict[str, Any] = seen.manifest().model_dump(exclude={"name", "version", "created", "adapter_sha256"})
        return self.store.publish(
            "mine", adapter, of | {"training": TRAINING | {"heldout_loss": loss, "remedy": remedy}}
        )


def test_a_healthy_run_is_not_run_again(store: Store, base_model: BaseModel, tmp_path: Path):
    train = Scripted(store, tmp_path, [(1.0, {})])
    assert train_mended(run_of(base_model, RECIPE), store, train).id == "mine@1"
    assert train.recipes == [RECIPE]


def test_a_remedy_is_applied_and_the_better_version_promoted(store: Store, base_model: BaseModel, tmp_path: Path):
    said: list[str] = []
    train = Scripted(store, tmp_path, [(2.0, {"learning_rate": 0.3, "epochs": 4.0}), (1.0, {})])
    assert (
        train_mended(run_of(base_model, RECIPE, log=said.append), store, train)
        == store.promoted("mine")
        == store.resolve("mine@2")
    )
    assert train.recipes[1] == RECIPE.model_copy(update={"learning_rate": 0.3, "epochs": 4})
    assert said == ["--auto: the run again with learning_rate 0.3, epochs 4"]


def test_after_two_remedies_the_best_of_three_counts(store: Store, base_model: BaseModel, tmp_path: Path):
    runs: list[tuple[float | None, dict[str, float]]] = [
        (2.0, {"epochs": 4}),
        (1.0, {"epochs": 8}),
        (1.5, {"epochs": 9}),
    ]
    train = Scripted(store, tmp_path, runs)
    assert train_mended(run_of(base_model, RECIPE), store, train).id == "mine@2"
    assert [recipe.epochs for recipe in train.recipes] == [2, 4, 8]
    assert store.promoted("mine") == store.resolve("mine@2")


def test_what_was_promoted_before_stays(store: Store, tmp_path: Path, base_model: BaseModel):
    before = tiny.publish(store, base_model, "mine", 7)
    train_mended(run_of(base_model, RECIPE), store, Scripted(store, tmp_path, [(2.0, {"epochs": 4}), (1.0, {})]))
    assert store.promoted("mine") == before


def test_a_loss_that_is_no_number_has_a_remedy_too(store: Store, base_model: BaseModel, tmp_path: Path):
    train = Scripted(store, tmp_path, [(None, {"learning_rate": 0.3}), (1.0, {})])
    assert train_mended(run_of(base_model, RECIPE), store, train).id == "mine@1"
    always = Scripted(store, tmp_path, [(None, {"learning_rate": 0.3})] * 3)
    with pytest.raises(TrainingDiverged):
        train_mended(run_of(base_model, RECIPE), store, always)


@pytest.mark.training
@pytest.mark.usefixtures("float32")
def test_the_real_trainer_mends_a_rate_that_is_too_high(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--name", "mine", "--base", tiny_base, "--store", tmp_path / "store", "--data", dataset(tmp_path)]
    flags += ["--epochs", 8, "--batch-size", 2, "--rank", 4, "--alpha", 8, "--heldout", 0.25, "--sample-tokens", 6]
    flags += ["--learning-rate", 0.067, "--auto"]
    assert main(["sft", *map(str, flags)]) == 0
    printed = capsys.readouterr()
    assert "--auto: the run again with learning_rate 0.022" in printed.err
    assert len(Store(tmp_path / "store").versions("mine")) >= 2
    assert not printed.out.startswith("published mine@1")


def test_auto_and_resume_are_refused_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["sft", "--data", str(dataset(tmp_path)), "--name", "mine", "--auto", "--resume"]) == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.training
@pytest.mark.usefixtures("float32")
def test_a_leak_is_said_and_not_trained_again(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = dataset(tmp_path)
    flags = ["--name", "mine", "--base", tiny_base, "--store", tmp_path / "store", "--data", data, "--epochs", 1]
    assert main(["sft", *map(str, [*flags, "--rank", 4, "--heldout-data", data, "--auto"])]) == 0
    assert [version.id for version in Store(tmp_path / "store").versions("mine")] == ["mine@1"]
    assert "hint: leave --heldout-data out" in capsys.readouterr().err
