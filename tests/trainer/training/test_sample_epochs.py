"""The models of some epochs as versions of their own, on the tiny model."""

import pytest

from adapters.errors import AdapterUnusable
from adapters.models.base_models import BaseModel
from adapters.models.promotion import promote
from adapters.store.store import Store
from tests.trainer.training.test_sft import RECIPE, run_of
from tests.trainer.training.test_verdicts import with_nothing_in_common
from trainer.cli import main
from trainer.training import sft

pytestmark = [pytest.mark.training]
RECIPE_OF_FOUR = RECIPE.model_copy(update={"epochs": 4, "sample_epochs": (1, 3, 4, 50)})


def test_the_models_of_the_epochs_are_labelled_versions_that_are_not_promoted(base_model: BaseModel, store: Store):
    said: list[str] = []
    last = sft.train(run_of(base_model, RECIPE_OF_FOUR, log=said.append), store)
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
    sft.train(run_of(base_model, RECIPE_OF_FOUR, log=said.append), store)
    shown = [said[at - 1].split()[1] for at, sentence in enumerate(said) if sentence.startswith("  sample email")]
    assert shown == ["1", "3", "4"]
    assert sum(sentence.startswith("Epoch ") for sentence in said) == 4


def test_after_an_early_stop_a_label_is_on_the_model_of_its_epoch(base_model: BaseModel, store: Store):
    recipe = RECIPE.model_copy(
        update={"epochs": 25, "rank": 16, "heldout": 0.25, "early_stop": 2, "sample_epochs": tuple(range(1, 26))}
    )
    best = sft.train(run_of(base_model, recipe, examples=with_nothing_in_common()), store)
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
    sft.train(run_of(base_model, recipe), store)
    assert len(store.versions("mine")) == 2


def test_an_epoch_in_which_the_adapter_learned_nothing_is_not_published(base_model: BaseModel, store: Store):
    """One step an epoch, and the first one of the warm-up has the learning rate 0."""
    said: list[str] = []
    recipe = RECIPE.model_copy(update={"batch_size": 16, "warmup": 0.5, "sample_epochs": (1, 2)})
    last = sft.train(run_of(base_model, recipe, log=said.append), store)
    assert [version.id for version in store.versions("mine")] == [last.id]
    assert sorted(store.pointers("mine").labels) == ["epoch-2"]
    (reason,) = [line for line in said if line.startswith("the model after epoch 1 is not published: ")]
    assert "every product of lora_A and lora_B is zero" in reason


@pytest.mark.parametrize("given", ["0", "1,x", "-1"])
def test_epochs_that_cannot_be_are_refused(given: str, capsys: pytest.CaptureFixture[str]):
    assert main(["sft", "--data", "mine.jsonl", "--name", "mine", f"--sample-epochs={given}"]) == 2
    assert "sample_epochs." in capsys.readouterr().err
