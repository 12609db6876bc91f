import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from adapters.errors import AdapterUnusable, BaseModelError, ConfigError, StoreDamaged
from adapters.models import base_models
from adapters.models.base_models import BaseModel, find
from adapters.models.transfer import base_of, export, import_
from adapters.models.validate import reasons_against
from adapters.store.gc import verify
from adapters.store.store import Store, content_digest
from adapters.store.version import CONFIG, MANIFEST, WEIGHTS
from tests import tiny


@pytest.fixture
def foreign(base_model: BaseModel, tmp_path: Path) -> Path:
    """What somebody else's training left: the adapter, and much that is of no use here."""
    directory = tiny.make_adapter(base_model.path, tmp_path / "my-lora", seed=9)
    for name in ("README.md", "training_args.bin", "optimizer.pt", "tokenizer.json", "special_tokens_map.json"):
        (directory / name).write_text("of no use")
    (directory / "checkpoint-10").mkdir()
    return directory


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "empty-store")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_an_import_publishes_the_config_and_the_weights_alone(empty: Store, foreign: Path, base_model: BaseModel):
    version = import_(empty, foreign, "mine", base_model)
    assert version.id == "mine@1"
    assert sorted(os.listdir(version.path)) == [CONFIG, WEIGHTS, MANIFEST]
    assert content_digest(version.path) == content_digest(foreign)
    assert empty.resolve("mine") == version


@pytest.mark.parametrize("pattern", [{}, {"q_proj": 128}], ids=["r", "rank_pattern"])
def test_an_import_of_a_high_rank_is_published_and_not_promoted(
    empty: Store, base_model: BaseModel, tmp_path: Path, pattern: dict[str, int]
):
    wide = tiny.make_adapter(base_model.path, tmp_path / "wide", seed=1, rank=128)
    config = json.loads((wide / CONFIG).read_text())
    (wide / CONFIG).write_text(json.dumps(config | {"r": 8 if pattern else 128, "rank_pattern": pattern}))
    version = import_(empty, wide, "mine", base_model)
    assert version.manifest().lora.rank == 128
    assert empty.promoted("mine") is None


def test_an_imports_manifest_says_what_is_known_and_no_more(empty: Store, foreign: Path, base_model: BaseModel):
    manifest = import_(empty, foreign, "mine", base_model).manifest()
    assert (manifest.base_name, manifest.base) == (base_model.name, base_model.source)
    assert manifest.base_fingerprint == base_model.fingerprint
    shape = {"rank": 8, "alpha": 16, "rslora": False, "target_modules": tiny.target_modules()}
    assert manifest.lora.model_dump() == shape
    assert (manifest.data_licence, manifest.recipe) == ("unstated", {})
    assert manifest.data_sha256 is manifest.training is manifest.evaluation is None


def test_an_import_keeps_the_licence_that_the_caller_knows(empty: Store, foreign: Path, base_model: BaseModel):
    assert import_(empty, foreign, "mine", base_model, "CC-BY-4.0").manifest().data_licence == "CC-BY-4.0"


def test_target_modules_may_be_a_pattern(empty: Store, foreign: Path, base_model: BaseModel):
    edit(foreign / CONFIG, target_modules=".*_proj")
    assert import_(empty, foreign, "mine", base_model).manifest().lora.target_modules == [".*_proj"]


def test_an_import_is_the_next_version_and_promotes_nothing_over_another(
    store: Store, foreign: Path, base_model: BaseModel
):
    assert import_(store, foreign, "formal", base_model).id == "formal@3"
    assert store.resolve("formal").id == "formal@1"


def test_links_as_in_the_hubs_cache_are_followed(empty: Store, foreign: Path, base_model: BaseModel, tmp_path: Path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for part in (CONFIG, WEIGHTS):
        (snapshot / part).symlink_to(foreign / part)
    version = import_(empty, snapshot, "mine", base_model)
    assert not any((version.path / part).is_symlink() for part in (CONFIG, WEIGHTS))
    assert content_digest(version.path) == content_digest(foreign)


def test_what_cannot_be_served_is_refused_with_every_reason_before_anything_is_written(
    empty: Store, foreign: Path, base_model: BaseModel
):
    edit(foreign / CONFIG, use_dora=True, bias="all")
    with pytest.raises(AdapterUnusable) as caught:
        import_(empty, foreign, "mine", base_model)
    assert str(foreign) in str(caught.value)
    assert len(caught.value.reasons) == 2
    assert not empty.directory.exists()


def test_an_adapter_of_another_architecture_is_refused(empty: Store, foreign: Path, base_model: BaseModel):
    tensors = load_file(foreign / WEIGHTS)
    save_file({name.replace("layers.1", "layers.7"): value for name, value in tensors.items()}, foreign / WEIGHTS)
    with pytest.raises(AdapterUnusable, match=r"layers\.7"):
        import_(empty, foreign, "mine", base_model)


def test_weights_that_are_no_safetensors_are_refused(empty: Store, foreign: Path, base_model: BaseModel):
    (foreign / WEIGHTS).rename(foreign / "adapter_model.bin")
    with pytest.raises(AdapterUnusable, match=WEIGHTS):
        import_(empty, foreign, "mine", base_model)


@pytest.mark.parametrize("part", [CONFIG, WEIGHTS])
def test_a_pipe_instead_of_a_file_is_refused_and_not_waited_for(
    empty: Store, foreign: Path, base_model: BaseModel, part: str
):
    (foreign / part).unlink()
    os.mkfifo(foreign / part)
    with pytest.raises(AdapterUnusable, match=part):
        import_(empty, foreign, "mine", base_model)


@pytest.mark.parametrize("changes", [{"lora_alpha": 16.5}, {"target_modules": None}], ids=str)
def test_what_no_manifest_can_say_is_refused(
    empty: Store, foreign: Path, base_model: BaseModel, changes: dict[str, Any]
):
    edit(foreign / CONFIG, **changes)
    with pytest.raises(AdapterUnusable, match=next(iter(changes))):
        import_(empty, foreign, "mine", base_model)
    assert not empty.directory.exists()


def test_a_name_that_no_adapter_may_have_is_refused(empty: Store, foreign: Path, base_model: BaseModel):
    with pytest.raises(ConfigError, match="reserved"):
        import_(empty, foreign, "text", base_model)


@pytest.mark.parametrize("missing", ["nowhere", f"my-lora/{CONFIG}"])
def test_what_is_no_directory_cannot_be_imported(
    empty: Store, foreign: Path, base_model: BaseModel, tmp_path: Path, missing: str
):
    with pytest.raises(ConfigError, match="there is no directory"):
        import_(empty, tmp_path / missing, "mine", base_model)
    with pytest.raises(ConfigError, match="there is no directory"):
        base_of(tmp_path / missing)


def test_an_exported_version_comes_back_elsewhere_with_its_facts(
    store: Store, empty: Store, base_model: BaseModel, tmp_path: Path
):
    version = store.resolve("formal@2")
    export(version, tmp_path / "out")
    copy = find(str(shutil.copytree(base_model.path, tmp_path / "the-same-model")))
    back = import_(empty, tmp_path / "out", "polite", copy)
    before, after = version.manifest(), back.manifest()
    assert (after.name, after.version, after.base) == ("polite", 1, str(tmp_path / "the-same-model"))
    anew = {"name", "version", "created", "base_name", "base_source"}
    assert after.model_dump(exclude=anew) == before.model_dump(exclude=anew)
    assert after.training is not None
    assert after.data_sha256 == "0" * 64


def test_an_exported_version_is_refused_on_another_base_model(
    store: Store, empty: Store, base_model: BaseModel, tmp_path: Path
):
    export(store.resolve("formal@2"), tmp_path / "out")
    with pytest.raises(AdapterUnusable, match="trained on tiny-llama"):
        import_(empty, tmp_path / "out", "polite", find(str(tiny.make_base(tmp_path / "other", seed=5))))


def test_an_exported_version_that_was_changed_is_refused(
    store: Store, empty: Store, base_model: BaseModel, tmp_path: Path
):
    export(store.resolve("formal@2"), tmp_path / "out")
    shutil.copyfile(store.resolve("formal@1").path / WEIGHTS, tmp_path / "out" / WEIGHTS)
    with pytest.raises(AdapterUnusable):
        import_(empty, tmp_path / "out", "polite", base_model)
    assert not empty.directory.exists()


def test_an_export_is_the_version_and_nothing_else(store: Store, tmp_path: Path):
    version = store.resolve("formal@2")
    export(version, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out", "store"]
    assert sorted(os.listdir(tmp_path / "out")) == [CONFIG, WEIGHTS, MANIFEST]
    for part in (CONFIG, WEIGHTS, MANIFEST):
        assert (tmp_path / "out" / part).read_bytes() == (version.path / part).read_bytes()


def test_a_model_card_is_written_for_the_version_that_it_gets_is_no_damage_and_goes_along(
    store: Store, base_model: BaseModel, tmp_path: Path
):
    version = store.resolve("formal@2")
    facts = version.manifest().model_dump(exclude={"name", "version", "created", "adapter_sha256"})
    third = store.publish("formal", version.path, facts, card=lambda manifest: f"# formal@{manifest.version}\n")
    assert verify(store, lambda version: reasons_against(version.path, base_model)) == []
    export(third, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "# formal@3\n"
    assert import_(store, tmp_path / "out", "polite", base_model).id == "polite@1"


@pytest.mark.parametrize("kind", ["an empty directory", "a file", "a link to nowhere"])
def test_an_export_overwrites_nothing(store: Store, tmp_path: Path, kind: str):
    out = tmp_path / "out"
    if kind == "an empty directory":
        out.mkdir()
    elif kind == "a file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists already"):
        export(store.resolve("formal"), out)


def test_an_export_needs_a_directory_to_lie_in(store: Store, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"formal@1 cannot be copied to .*nowhere") as caught:
        export(store.resolve("formal"), tmp_path / "nowhere" / "out")
    assert "in one that exists" in caught.value.hint


@pytest.mark.parametrize("part", [CONFIG, WEIGHTS, MANIFEST])
def test_a_damaged_version_is_not_exported(store: Store, tmp_path: Path, part: str):
    version = store.resolve("formal@2")
    (version.path / part).write_bytes(b"{}")
    with pytest.raises(StoreDamaged, match=r"not what was published|damaged"):
        export(version, tmp_path / "out")
    assert os.listdir(tmp_path) == ["store"]


def test_an_adapter_says_itself_which_base_model_it_needs(
    store: Store, foreign: Path, base_model: BaseModel, tmp_path: Path
):
    assert base_of(foreign) == base_model
    export(store.resolve("formal"), tmp_path / "out")
    edit(tmp_path / "out" / CONFIG, base_model_name_or_path=None)
    assert base_of(tmp_path / "out") == base_model


def test_upstreams_name_of_the_packaged_model_means_that(
    foreign: Path, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    known = {"smollm2-135m-instruct": base_model}
    monkeypatch.setattr(base_models, "known", known.get)
    edit(foreign / CONFIG, base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct")
    assert base_of(foreign) == base_model
    edit(foreign / CONFIG, base_model_name_or_path="HuggingFaceTB/SmolLM2-360M-Instruct")
    with pytest.raises(BaseModelError, match=r"SmolLM2-360M-Instruct'.* is not on this machine") as caught:
        base_of(foreign)
    assert "--base" in caught.value.hint


@pytest.mark.parametrize("content", ["{}", "[]", "{", "[" * 100_000, '{"base_model_name_or_path": 3}'], ids=len)
def test_an_adapter_that_does_not_say_its_base_model_needs_to_be_told(foreign: Path, content: str):
    (foreign / CONFIG).write_text(content)
    with pytest.raises(BaseModelError, match="does not name its base model"):
        base_of(foreign)
