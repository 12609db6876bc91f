import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterNotFound, AdapterUnusable, ConfigError, StoreDamaged
from adapters.models import promotion
from adapters.models.base_models import BaseModel, find
from adapters.models.promotion import own_base, promote
from adapters.store.store import POINTERS, Store
from adapters.store.version import MANIFEST, Version
from tests import tiny


def publish(store: Store, base: BaseModel, rank: int = tiny.RANK, **facts: Any) -> Version:
    with tempfile.TemporaryDirectory() as scratch:
        files = tiny.make_adapter(base.path, Path(scratch) / "adapter", seed=7, rank=rank)
        known = tiny.facts(base.name, base.fingerprint, rank=rank, base_source=base.source)
        return store.publish("formal", files, known | facts)


def test_a_sound_version_is_promoted(store: Store, base_model: BaseModel):
    assert promote(store, "formal@2", base_model) == store.resolve("formal")
    assert store.resolve("formal").id == "formal@2"


def test_a_version_that_cannot_be_served_is_refused_and_nothing_changes(store: Store, base_model: BaseModel):
    wide = publish(store, base_model, rank=65)
    with pytest.raises(AdapterUnusable, match="rank is 65") as caught:
        promote(store, wide.id, base_model)
    assert caught.value.hint == "--force promotes it anyway"
    assert store.resolve("formal").id == "formal@1"


def test_a_version_that_only_a_server_with_max_rank_takes_is_refused_with_that_option(
    store: Store, base_model: BaseModel
):
    wide = publish(store, base_model, rank=32)
    with pytest.raises(AdapterUnusable, match=r"rank is 32.* `server --max-rank 32` serves it"):
        promote(store, wide.id, base_model)
    assert promote(store, wide.id, base_model, force=True) == wide


def test_the_servers_own_largest_rank_counts(store: Store, base_model: BaseModel):
    wide = publish(store, base_model, rank=65)
    assert promote(store, wide.id, base_model, max_rank=128) == wide
    with pytest.raises(AdapterUnusable, match="rank is 8"):
        promote(store, "formal@1", base_model, max_rank=4)


def test_a_version_that_did_not_pass_its_evaluation_is_refused_with_the_reasons(store: Store, base_model: BaseModel):
    failed = {"passed": False, "reasons": ["it keeps 3 of 48 facts", "it is worse than the base model"]}
    version = publish(store, base_model, evaluation=failed)
    with pytest.raises(AdapterUnusable) as caught:
        promote(store, version.id, base_model)
    assert caught.value.reasons == [
        "it did not pass its evaluation: it keeps 3 of 48 facts",
        "it did not pass its evaluation: it is worse than the base model",
    ]


def test_an_evaluation_that_failed_without_saying_why_is_refused_too(store: Store, base_model: BaseModel):
    version = publish(store, base_model, evaluation={"passed": False})
    with pytest.raises(AdapterUnusable, match="did not pass its evaluation"):
        promote(store, version.id, base_model)


@pytest.mark.parametrize("evaluation", [None, {"passed": True}], ids=["absent", "passed"])
def test_an_evaluation_that_passed_or_is_absent_speaks_against_nothing(
    store: Store, base_model: BaseModel, evaluation: dict[str, Any] | None
):
    version = publish(store, base_model, evaluation=evaluation)
    assert promote(store, version.id, base_model) == version


def test_validation_and_evaluation_are_told_at_once(store: Store, base_model: BaseModel):
    version = publish(store, base_model, rank=65, evaluation={"passed": False, "reasons": ["too short"]})
    with pytest.raises(AdapterUnusable) as caught:
        promote(store, version.id, base_model)
    assert any("rank is 65" in reason for reason in caught.value.reasons)
    assert caught.value.reasons[-1] == "it did not pass its evaluation: too short"


def test_force_promotes_whatever_speaks_against_it(store: Store, base_model: BaseModel):
    version = publish(store, base_model, rank=65, evaluation={"passed": False})
    assert promote(store, version.id, base_model, force=True) == store.resolve("formal") == version


def test_a_canary_is_checked_like_any_other(store: Store, base_model: BaseModel):
    promote(store, "formal@2", base_model, percent=10)
    canary = store.pointers("formal").canary
    assert canary
    assert (canary.version, canary.percent) == (2, 10)
    assert store.resolve("formal").id == "formal@1"
    wide = publish(store, base_model, rank=65)
    with pytest.raises(AdapterUnusable):
        promote(store, wide.id, base_model, percent=10)
    assert store.pointers("formal").canary == canary


def test_another_base_model_is_refused_where_there_is_one_to_compare_with(
    store: Store, base_model: BaseModel, tmp_path: Path
):
    other = find(str(tiny.make_base(tmp_path / "other", seed=5)))
    with pytest.raises(AdapterUnusable, match="trained on tiny-llama"):
        promote(store, "formal@2", other)
    assert promote(store, "formal@2", None).id == "formal@2"


def test_a_label_can_be_promoted(store: Store, base_model: BaseModel):
    store.label("formal@2", "candidate")
    assert promote(store, "formal@candidate", base_model).id == "formal@2"


def test_a_label_that_moves_during_the_check_promotes_what_was_checked(
    store: Store, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    store.label("formal@2", "candidate")
    check = promotion.reasons_against

    def check_while_it_moves(*given: Any, **named: Any) -> list[str]:
        store.label("formal@1", "candidate")
        return check(*given, **named)

    monkeypatch.setattr(promotion, "reasons_against", check_while_it_moves)
    assert promote(store, "formal@candidate", base_model).id == "formal@2"


def test_a_bare_name_says_no_version(store: Store, base_model: BaseModel):
    with pytest.raises(ConfigError, match="'formal' gives no version"):
        promote(store, "formal", base_model)


@pytest.mark.parametrize("reference", ["formal@9", "formal@nobody", "nobody@1", "../formal@1"])
def test_what_is_not_there_cannot_be_promoted(store: Store, base_model: BaseModel, reference: str):
    with pytest.raises(AdapterNotFound):
        promote(store, reference, base_model)


def test_a_retired_version_cannot_be_promoted_not_even_by_force(store: Store, base_model: BaseModel):
    store.retire("formal@2")
    with pytest.raises(AdapterNotFound):
        promote(store, "formal@2", base_model, force=True)


def test_promoting_a_version_by_number_mends_damaged_pointers(store: Store, base_model: BaseModel):
    (store.directory / "formal" / POINTERS).write_text("{")
    with pytest.raises(StoreDamaged):
        promote(store, "formal@candidate", base_model)
    with pytest.raises(StoreDamaged):
        promote(store, "formal@9", base_model)
    assert promote(store, "formal@2", base_model) == store.resolve("formal")


def test_a_damaged_manifest_is_a_reason_and_no_crash(store: Store, base_model: BaseModel):
    (store.resolve("formal@2").path / MANIFEST).write_text("{")
    with pytest.raises(AdapterUnusable, match=MANIFEST):
        promote(store, "formal@2", base_model)


def test_a_version_knows_its_own_base_model_if_that_is_here(store: Store, base_model: BaseModel, tmp_path: Path):
    version = store.resolve("formal@1")
    assert own_base(version) == base_model
    manifest = json.loads((version.path / MANIFEST).read_text())
    (version.path / MANIFEST).write_text(json.dumps(manifest | {"base_source": str(tmp_path / "gone")}))
    assert own_base(version) is None
    (version.path / MANIFEST).write_text("{")
    assert own_base(version) is None
