import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from adapters.errors import BaseModelError, ConfigError
from adapters.models import base_models, catalog, fetch
from adapters.models.base_models import (
    COMPLETE,
    find,
    fingerprint,
    shaping_config,
)
from tests import tiny


@pytest.fixture
def copy(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "Another-Name"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_directory_is_found_under_its_own_name(copy: Path):
    found = find(str(copy))
    assert (found.name, found.path) == ("another-name", copy)
    assert found.fingerprint == fingerprint(copy)


def test_a_relative_directory_is_made_absolute(copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(copy.parent)
    assert find(copy.name).path == copy
    assert find(copy.name).source == str(copy)


def test_a_directory_in_the_home_of_a_user_who_is_not_here_is_an_error():
    with pytest.raises(ConfigError, match="~nobody-here/m"):
        find("~nobody-here/m")
    assert base_models.known("~nobody-here/m") is None


def test_a_model_of_the_hub_has_its_short_name_and_is_found_again_by_its_id(
    copy: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(base_models, "_from_hub", lambda base, revision, log, fetch: copy)
    found = find("Qwen/Qwen3-4B")
    assert (found.name, found.source) == ("qwen3-4b", "Qwen/Qwen3-4B")


def test_a_model_of_the_catalog_that_lies_on_the_hub_is_found_again_by_its_name(
    copy: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def from_hub(base: str, *_: object) -> Path:
        asked.append(base)
        return copy

    monkeypatch.setattr(base_models, "_from_hub", from_hub)
    found = find("qwen3-0.6b")
    assert (found.name, found.source) == ("qwen3-0.6b", "qwen3-0.6b")
    assert set(asked) == {"Qwen/Qwen3-0.6B"}


def test_a_copy_elsewhere_has_the_same_fingerprint(tiny_base: Path, copy: Path):
    assert fingerprint(copy) == fingerprint(tiny_base)


def test_a_fingerprint_is_a_sha256(tiny_base: Path):
    kind, _, digits = fingerprint(tiny_base).partition(":")
    assert kind == "sha256"
    assert len(bytes.fromhex(digits)) == 32


@pytest.mark.parametrize("field", ["transformers_version", "_name_or_path", "dtype", "architectures", "use_cache"])
def test_bookkeeping_in_the_config_does_not_count(tiny_base: Path, copy: Path, field: str):
    edit(copy / "config.json", lambda config: config.update({field: "5.99.0"}))
    assert fingerprint(copy) == fingerprint(tiny_base)


def test_the_rotary_base_counts_the_same_in_the_old_and_the_new_place(tiny_base: Path, copy: Path):
    def move(config: dict[str, Any]) -> None:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}

    edit(copy / "config.json", move)
    assert fingerprint(copy) == fingerprint(tiny_base)


@pytest.mark.parametrize("field", ["num_attention_heads", "rms_norm_eps", "rope_theta", "tie_word_embeddings"])
def test_a_field_that_shapes_the_model_counts(tiny_base: Path, copy: Path, field: str):
    edit(copy / "config.json", lambda config: config.update({field: 1}))
    assert fingerprint(copy) != fingerprint(tiny_base)


def test_one_other_number_in_one_tensor_counts(tiny_base: Path, copy: Path):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][7] = 1.001
    save_file(tensors, copy / "model.safetensors")
    assert fingerprint(copy) != fingerprint(tiny_base)


def test_the_norms_of_a_qwen3_count(tmp_path: Path):
    qwen = tiny.make_base(tmp_path / "tiny-qwen3", qwen=True)
    before = fingerprint(qwen)
    tensors = load_file(qwen / "model.safetensors")
    tensors["model.layers.1.self_attn.q_norm.weight"][7] = 1.001
    save_file(tensors, qwen / "model.safetensors")
    assert fingerprint(qwen) != before


def test_the_name_of_a_tensor_counts(tiny_base: Path, copy: Path):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm2.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, copy / "model.safetensors")
    assert fingerprint(copy) != fingerprint(tiny_base)


def test_the_same_tensors_in_several_files_have_the_same_fingerprint(tiny_base: Path, copy: Path):
    tensors = load_file(copy / "model.safetensors")
    first = {name: tensors.pop(name) for name in sorted(tensors)[::2]}
    save_file(first, copy / "model-00001-of-00002.safetensors", metadata={"format": "np"})
    save_file(tensors, copy / "model-00002-of-00002.safetensors")
    (copy / "model.safetensors").unlink()
    assert fingerprint(copy) == fingerprint(tiny_base)


def test_the_vocabulary_counts(tiny_base: Path, copy: Path):
    edit(copy / "tokenizer.json", lambda tokenizer: tokenizer["model"]["vocab"].update({"☕": 99}))
    assert fingerprint(copy) != fingerprint(tiny_base)


def test_the_chat_template_counts(tiny_base: Path, copy: Path):
    edit(copy / "tokenizer_config.json", lambda config: config.update(chat_template="{{ messages }}"))
    assert fingerprint(copy) != fingerprint(tiny_base)


def test_the_chat_template_counts_the_same_in_a_file_of_its_own(tiny_base: Path, copy: Path):
    edit(
        copy / "tokenizer_config.json",
        lambda config: (copy / "chat_template.jinja").write_text(config.pop("chat_template")),
    )
    assert fingerprint(copy) == fingerprint(tiny_base)


def test_a_fingerprint_is_taken_again_when_a_file_has_changed(copy: Path):
    before = fingerprint(copy)
    assert fingerprint(copy) == before
    edit(copy / "config.json", lambda config: config.update(rms_norm_eps=0.1))
    assert fingerprint(copy) != before


def test_a_fingerprint_is_remembered(copy: Path, monkeypatch: pytest.MonkeyPatch):
    before = fingerprint(copy)
    monkeypatch.setattr(base_models, "_canonical_parts", lambda _: pytest.fail("it was computed again"))
    assert fingerprint(copy) == before


def test_a_cache_that_cannot_be_written_is_said_once_and_the_model_is_found(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "file"))
    said: list[str] = []
    assert find(str(copy), said.append).path == copy
    assert len(said) == 1
    assert said[0].startswith(f"warning: {tmp_path / 'file' / 'fingerprints'}")


def test_a_fingerprint_that_a_power_cut_emptied_is_taken_again(copy: Path, cache: Path):
    before = fingerprint(copy)
    for remembered in (cache / "fingerprints").iterdir():
        remembered.write_text("")
    assert fingerprint(copy) == before


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_directory_that_lacks_a_file_is_no_base_model(copy: Path, file: str):
    (copy / file).unlink()
    with pytest.raises(BaseModelError, match=r"safetensors" if "model." in file else file):
        find(str(copy))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_directory_with_a_damaged_file_is_no_base_model(copy: Path, file: str):
    (copy / file).write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(BaseModelError, match=str(copy)):
        find(str(copy))


def test_weights_that_end_too_early_are_no_base_model(copy: Path):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BaseModelError, match=str(copy)):
        find(str(copy))


@pytest.mark.parametrize("name", ["mailwright/there-is-no-such-model", "no such model", "a/b/c"])
def test_an_unknown_name_is_no_base_model(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseModelError) as caught:
        find(name)
    assert repr(name) in str(caught.value)
    assert "give --base an existing directory" in caught.value.hint
    assert "qwen2.5-coder-1.5b-instruct, which needs no hub" in caught.value.hint


def test_the_shape_names_the_rotary_base_and_leaves_bookkeeping_out(tiny_base: Path):
    shape = shaping_config(tiny_base)
    assert shape["rope_theta"] == 10000.0
    assert "dtype" not in shape


SMALL = catalog.entries()[catalog.SMALL]


class Default:
    """The small model with stand-ins for the download and the conversion; `calls` is what happened, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tiny_base: Path, cache: Path) -> None:
        self.calls: list[str] = []
        self.target = cache / "models" / "smollm2-135m-instruct-bcc81830d10c"
        self.downloads = cache / "downloads"
        self.tiny_base = tiny_base
        monkeypatch.setattr(base_models.fetch, "fetch", self.fetch)
        monkeypatch.setattr(base_models.gguf, "convert", self.convert)

    def fetch(self, file: catalog.File, log: object) -> Path:
        self.calls.append("fetch")
        (self.downloads / file.sha256).write_bytes(b"GGUF")
        return self.downloads / file.sha256

    def convert(self, gguf: Path, target: Path, *_: object) -> None:
        self.calls.append("convert")
        assert gguf.read_bytes() == b"GGUF"
        assert not self.target.exists() or not (self.target / COMPLETE).exists()
        shutil.copytree(self.tiny_base, target)


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch, tiny_base: Path, cache: Path) -> Default:
    return Default(monkeypatch, tiny_base, cache)


def test_the_default_is_fetched_converted_and_marked_complete(default: Default, tiny_base: Path):
    said: list[str] = []
    found = find(catalog.SMALL, said.append)
    assert (found.name, found.path, found.source) == (catalog.SMALL, default.target, catalog.SMALL)
    assert default.calls == ["fetch", "convert"]
    assert (default.target / COMPLETE).is_file()
    assert found.fingerprint == fingerprint(tiny_base)
    assert len(said) == 2


def test_the_default_is_fetched_once(default: Default):
    assert find(catalog.SMALL) == find(catalog.SMALL)
    assert default.calls == ["fetch", "convert"]


def test_nothing_but_the_default_is_left_in_the_cache(default: Default):
    find(catalog.SMALL)
    assert list(default.target.parent.iterdir()) == [default.target]
    assert [file.name for file in default.downloads.iterdir()] == [".lock"]


def test_a_cache_that_cannot_take_the_default_is_named_with_what_to_do(
    default: Default, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BaseModelError, match=r"cannot be kept in .*: Not a directory") as refused:
        find(catalog.SMALL)
    assert "MAILWRIGHT_CACHE" in refused.value.hint


def test_a_half_written_default_is_made_again(default: Default):
    default.target.mkdir(parents=True)
    (default.target / "config.json").write_text("{")
    found = find(catalog.SMALL)
    assert default.calls == ["fetch", "convert"]
    assert json.loads((found.path / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize("step", ["fetch.fetch", "gguf.convert"])
def test_a_step_that_fails_leaves_no_default(default: Default, monkeypatch: pytest.MonkeyPatch, step: str):
    with monkeypatch.context() as broken:
        broken.setattr(f"adapters.models.{step}", lambda *_: (_ for _ in ()).throw(MemoryError(step)))
        with pytest.raises(MemoryError):
            find(catalog.SMALL)
    assert list(default.target.parent.iterdir()) == []
    assert find(catalog.SMALL).path == default.target


def test_a_conversion_that_stops_halfway_leaves_no_default(default: Default, monkeypatch: pytest.MonkeyPatch):
    def half(gguf: Path, target: Path, *_: object) -> None:
        default.convert(gguf, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(base_models.gguf, "convert", half)
    with pytest.raises(KeyboardInterrupt):
        find(catalog.SMALL)
    assert not default.target.exists()


def test_a_default_that_another_process_finished_first_is_used(default: Default, monkeypatch: pytest.MonkeyPatch):
    def meanwhile(gguf: Path, target: Path, *_: object) -> None:
        default.convert(gguf, target)
        shutil.copytree(target, default.target)
        (default.target / COMPLETE).touch()

    monkeypatch.setattr(base_models.gguf, "convert", meanwhile)
    assert find(catalog.SMALL).path == default.target


def test_a_file_of_a_mirror_on_this_machine_stays_there(
    default: Default, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mirrored = tmp_path / "mirrored"
    mirrored.write_bytes(b"GGUF")
    monkeypatch.setattr(base_models.fetch, "fetch", lambda *_: mirrored)
    find(catalog.SMALL)
    assert mirrored.is_file()


def test_nothing_is_fetched_where_the_disk_has_no_room(default: Default, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8))
    with pytest.raises(BaseModelError, match=r"needs 0\.4 GB on the disk of .*, and 0\.1 GB are free") as refused:
        find(catalog.SMALL)
    assert "MAILWRIGHT_CACHE" in refused.value.hint
    assert default.calls == []


def test_nothing_is_fetched_where_the_memory_is_too_small_to_convert(default: Default, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "free_memory", lambda: 2 * 10**8)
    with pytest.raises(BaseModelError, match=r"needs 1\.5 GB of memory, 0\.2 GB are free"):
        find(catalog.SMALL)
    assert default.calls == []


def test_a_model_that_is_here_is_known(copy: Path):
    assert base_models.known(str(copy)) == find(str(copy))


@pytest.mark.parametrize("source", [catalog.SMALL, "nobody/Nothing-1B", "not a name at all", "~nobody-here/model", ""])
def test_a_model_that_is_not_here_is_not_known_and_nothing_is_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(fetch, "fetch", fail)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", fail)
    assert base_models.known(source) is None


def test_a_directory_without_a_model_is_not_known(tmp_path: Path):
    assert base_models.known(str(tmp_path)) is None


def test_the_converted_default_is_known(cache: Path, tiny_base: Path):
    converted = cache / "models" / SMALL.directory
    shutil.copytree(tiny_base, converted)
    assert base_models.known(catalog.SMALL) is None
    (converted / COMPLETE).touch()
    found = base_models.known(catalog.SMALL)
    assert found
    assert (found.name, found.path, found.source) == (catalog.SMALL, converted, catalog.SMALL)


def test_a_model_in_the_hubs_cache_is_known_without_asking_the_hub(tiny_base: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def snapshot(repo: str, local_files_only: bool, **_: object) -> str:
        asked.append((repo, local_files_only))
        return str(tiny_base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    found = base_models.known("Qwen/Qwen3-4B")
    assert found
    assert (found.name, found.source) == ("qwen3-4b", "Qwen/Qwen3-4B")
    assert asked == [("Qwen/Qwen3-4B", True)]
