from pathlib import Path

import pytest

from adapters.models import catalog
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests import tiny

GB = 10**9


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAILWRIGHT_BASE")


def test_every_name_has_what_people_ask_before_they_fetch_it():
    for name, entry in catalog.entries().items():
        assert entry.name == name
        assert entry.licence == "apache-2.0"
        assert entry.memory.train > entry.memory.serve > entry.bf16_bytes


@pytest.mark.parametrize("bytes_", [{"file": None}, {"repo": "Qwen/Qwen3-0.6B"}, {"directory": ""}])
def test_an_entry_comes_from_one_place(bytes_: dict[str, object]):
    entry = catalog.entries()[catalog.SMALL]
    with pytest.raises(ValueError, match="needs a file and its directory, or a repo"):
        catalog.Entry.model_validate(entry.model_dump() | bytes_)


@pytest.mark.parametrize(
    ("cuda", "free", "base", "why"),
    [
        (False, 8 * GB, "qwen2.5-coder-1.5b-instruct", "the default without a GPU (8.0 GB of memory free)"),
        (
            False,
            8 * GB - 1,
            "smollm2-135m-instruct",
            "the default without a GPU with less than 8 GB (8.0 GB of memory free)",
        ),
        (True, GB, "qwen3-4b-instruct-2507", "the default on a GPU"),
    ],
)
def test_gpu_and_free_memory_choose(cuda: bool, free: int, base: str, why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "free_memory", lambda: free)
    assert str(catalog.choose(cuda)) == f"{base}, {why}"


def test_the_environment_wins(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAILWRIGHT_BASE", "mine")
    assert str(catalog.choose(True, store.directory)) == "mine, which MAILWRIGHT_BASE names"


def test_the_first_publish_decides_for_a_store(
    store: Store, base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = BaseModel("other", base_model.path, f"sha256:{'1' * 64}", "other")
    tiny.publish(store, other, "formal", 9)
    monkeypatch.setattr(catalog, "free_memory", lambda: 99 * GB)
    choice = catalog.choose(False, store.directory)
    assert choice.base == base_model.source
    assert choice.why == f"on which the voices in {store.directory} were trained"


def test_a_store_whose_first_voices_are_retired_follows_the_next(store: Store, base_model: BaseModel):
    other = BaseModel("other", base_model.path, f"sha256:{'1' * 64}", "other")
    tiny.publish(store, other, "warm", 9)
    store.retire("formal")
    store.retire("friendly")
    assert catalog.of_store(store.directory) == "other"


def test_a_store_without_voices_leaves_it_to_the_machine(tmp_path: Path):
    assert catalog.of_store(tmp_path / "nowhere") is None


def test_damaged_files_of_a_store_decide_nothing(store: Store, base_model: BaseModel):
    (store.directory / "formal" / "pointers.json").write_text("{")
    for version in store.versions("friendly"):
        (version.path / "manifest.json").write_text("{")
    assert catalog.of_store(store.directory) is None


def test_the_memory_of_this_machine_is_read():
    assert 10**7 < catalog.free_memory() < 10**14


def test_a_container_has_no_more_memory_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figures = {"memory.max": 5 * 10**6, "memory.current": 10**6}
    monkeypatch.setattr(catalog, "_number", lambda file: figures[file.name])
    assert catalog.free_memory() == 4 * 10**6
