"""What a request means, answered from memory: every change is seen, and nothing is read twice."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterNotFound
from adapters.store.store import Store
from server.engine.store_reader import StoreReader


def meant(reader: StoreReader, reference: str, key: bytes = b"") -> str:
    return asyncio.run(reader.route(reference, key))[0].id


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names whose pointers or directory the store was asked for."""
    names: list[str] = []
    for method in ("pointers", "versions"):
        original = getattr(Store, method)

        def counted(self: Store, name: str, original: Callable[[Store, str], object] = original) -> object:
            names.append(name)
            return original(self, name)

        monkeypatch.setattr(Store, method, counted)
    return names


def test_a_known_name_is_not_read_again(store: Store, reads: list[str]):
    reader = StoreReader(store)
    store.label("formal@2", "candidate")
    assert meant(reader, "formal") == "formal@1"
    reads.clear()
    assert [meant(reader, each) for each in ("formal", "formal@2", "formal@candidate")] == [
        *("formal@1", "formal@2", "formal@2")
    ]
    assert reads == []


def test_every_change_is_seen_by_the_next_request(store: Store, tmp_path: Path):
    reader = StoreReader(store)
    assert meant(reader, "formal") == "formal@1"
    for version in ("formal@2", "formal@1"):
        store.promote(version)
        assert meant(reader, "formal") == version
    store.retire("formal@2")
    with pytest.raises(AdapterNotFound):
        meant(reader, "formal@2")
    store.bring_back("formal@2")
    assert meant(reader, "formal@2") == "formal@2"


def test_a_version_published_without_a_move_of_the_pointers_is_found(store: Store):
    reader = StoreReader(store)
    assert meant(reader, "formal") == "formal@1"
    facts = store.resolve("formal").manifest().model_dump()
    for given_by_the_store in ("name", "version", "created", "adapter_sha256"):
        del facts[given_by_the_store]
    store.publish("formal", store.resolve("formal").path, facts)
    assert meant(reader, "formal@3") == "formal@3"


def test_a_canary_answers_its_share_of_the_keys_as_the_store_says(store: Store):
    reader = StoreReader(store)
    store.promote("formal@2", percent=50)
    keys = [str(number).encode() for number in range(40)]
    answers = [asyncio.run(reader.route("formal", key)) for key in keys]
    assert answers == [store.route("formal", key) for key in keys]
    assert {canary for _, canary in answers} == {True, False}


@pytest.mark.parametrize("reference", ["frmal", "formal@9", "formal@", "../formal", "", "@1", "formal@None"])
def test_what_is_not_there_is_not_found(store: Store, reference: str):
    reader = StoreReader(store)
    meant(reader, "formal")
    with pytest.raises(AdapterNotFound):
        meant(reader, reference)
