"""Training that begins with a published version, on the tiny model."""

from pathlib import Path

import pytest

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel, find
from adapters.store.manifest import Training
from adapters.store.store import Store
from adapters.store.version import Version
from tests import tiny
from tests.trainer.training.test_sft import RECIPE, dataset, run_of, sft_here
from trainer.training import sft

pytestmark = [pytest.mark.training]


def training_of(version: Version) -> Training:
    training = version.manifest().training
    assert training
    return training


def test_it_goes_on_where_the_version_ended(base_model: BaseModel, store: Store):
    first = sft.train(run_of(base_model), store)
    other_shape = RECIPE.model_copy(update={"rank": 2, "alpha": 64, "rslora": True, "learning_rate": 1e-3})
    second = sft.train(run_of(base_model, other_shape, start=first), store)
    assert training_of(second).heldout_loss_before == pytest.approx(training_of(first).heldout_loss, rel=1e-4)
    assert training_of(second).heldout_loss < training_of(first).heldout_loss
    assert second.manifest().trained_from == f"mine@1 {first.digest}"
    assert second.manifest().lora == first.manifest().lora
    assert first.manifest().trained_from is None


def test_a_version_of_another_base_model_is_refused(base_model: BaseModel, store: Store, tmp_path: Path):
    other = find(str(tiny.make_base(tmp_path / "other", seed=9)))
    with pytest.raises(ConfigError, match=r"formal@1 was trained on another base model \(tiny-llama\)"):
        sft.train(run_of(other, start=store.resolve("formal@1")), store)


def test_the_command_takes_a_name_or_a_version(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = ["--data", dataset(tmp_path)]
    assert sft_here(tiny_base, tmp_path, *data) == 0
    assert sft_here(tiny_base, tmp_path, *data, "--from", "mine") == 0
    trained_from = Store(tmp_path / "store").resolve("mine@2").manifest().trained_from
    assert trained_from
    assert trained_from.startswith("mine@1 ")
    assert sft_here(tiny_base, tmp_path, *data, "--from", "nine") == 2
    assert sft_here(tiny_base, tmp_path, *data, "--from", "mine", "--rank", 2) == 2
    assert "leave out --rank, --alpha and --rslora" in capsys.readouterr().err
