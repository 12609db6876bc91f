"""The models of some epochs as versions of their own, on the tiny model."""

import pytest

from adapters.errors import AdapterUnusable
from adapters.models.base_models import BaseModel
from adapters.models.promotion import promote
from adapters.store.store import Store
from tests.trainer.training.test_sft import RECIPE, emails
from tests.trainer.training.test_verdicts import with_nothing_in_common
from trainer.cli import main
from trainer.training import sft

pytestmark = [pytest.mark.training]
RECIPE_OF_FOUR = RECIPE.model_copy(update={"epochs": 4, "sample_epochs": (1, 3, 4, 50)})


def test_the_models_of_the_epochs_are_labelled_versions_that_are_not_promoted(base_model: BaseModel, store: Store):
    said: list[str] = []
    last = sft.train(emails(), "mine", base_model, RECIPE_OF_FOUR, store, "", said.append)
    versions = {label: store.resolve(f"mine@{label}") for label in ("epoch-1", "epoch-3", "epoch-4")}
    assert versions["epoch-4"] == last == store.promoted("mine")
    assert sorted(store.pointers("mine").labels) == ["epoch-1", "epoch-3", "epoch-4"]
    assert len({version.digest for version in versions.values()}) == 3
    with pytest.raises(AdapterUnusable, match="after epoch 1 of a run that kept another"):
        promote(store, "mine@epoch-1", base_model)

    first, third, fourth = (version.manifest().training for version in versions.values())
    assert (first.epochs, third.epochs, fourth.epochs) == (1, 3, 4)
    assert (first.steps, third.steps, fourth.steps) == (6, 18, 24)
    assert fourth.train_losses[:3] == third.train_losses
    assert first.heldout_loss == fourth.heldout_losses[0]
    assert first.seconds <= third.seconds <= fourth.seconds
    assert (first.verdict, bool(fourth.verdict)) == ("", True)


def test_only_after_those_epochs_an_email_is_written(base_model: BaseModel, store: Store):
    said: list[str] = []
    sft.train(emails(), "mine", base_model, RECIPE_OF_FOUR, store, "", said.append)
    shown = [said[at - 1].split()[1] for at, sentence in enumerate(said) if sentence.startswith("  sample email")]
    assert shown == ["1", "3", "4"]
    assert sum(sentence.startswith("Epoch ") for sentence in said) == 4


def test_after_an_early_stop_a_label_is_on_the_model_of_its_epoch(base_model: BaseModel, store: Store):
    recipe = RECIPE.model_copy(
        update={"epochs": 25, "rank": 16, "heldout": 0.25, "early_stop": 2, "sample_epochs": tuple(range(1, 26))}
    )
    best = sft.train(with_nothing_in_common(), "mine", base_model, recipe, store, "", lambda _: None)
    training = best.manifest().training
    assert training
    kept = training.heldout_losses.index(min(training.heldout_losses)) + 1
    assert kept < training.epochs < 25
    assert store.resolve(f"mine@epoch-{kept}") == best
    last = store.resolve(f"mine@epoch-{training.epochs}").manifest().training
    assert last
    assert last.heldout_loss == training.heldout_losses[-1] > training.heldout_loss
    assert len(store.pointers("mine").labels) == training.epochs


def test_an_epoch_that_is_given_twice_is_published_once(base_model: BaseModel, store: Store):
    recipe = RECIPE.model_copy(update={"sample_epochs": (1, 1)})
    sft.train(emails(), "mine", base_model, recipe, store, "", lambda _: None)
    assert len(store.versions("mine")) == 2


@pytest.mark.parametrize("given", ["0", "1,x", "", "1,,2", "-1"])
def test_epochs_that_are_none_are_refused(given: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["sft", "--data", "mine.jsonl", "--name", "mine", f"--sample-epochs={given}"])
    assert "is not a list of numbers from 1 on" in capsys.readouterr().err
