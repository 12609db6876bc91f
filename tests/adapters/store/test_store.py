import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adapters.errors import AdapterNotFound, ConfigError
from adapters.store import store as store_module
from adapters.store.gc import verify
from adapters.store.store import POINTERS, Store, content_digest
from adapters.store.version import CONFIG, WEIGHTS
from tests import tiny

FACTS = tiny.facts("tiny-llama", f"sha256:{'a' * 64}")


def written_adapter(directory: Path, weights: bytes = b"weights") -> Path:
    """The store does not look into the files, so that any bytes do."""
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text("{}")
    (directory / WEIGHTS).write_bytes(weights)
    return directory


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return written_adapter(tmp_path / "files")


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "an-empty-store")


def test_the_first_publish_makes_version_1_and_promotes_it(empty: Store, files: Path):
    version = empty.publish("formal", files, FACTS)
    assert version.id == "formal@1"
    assert empty.promoted("formal") == version == empty.resolve("formal")


@pytest.mark.parametrize("passed", [True, False])
def test_a_first_version_that_failed_its_evaluation_is_published_and_not_promoted(
    empty: Store, files: Path, passed: bool
):
    version = empty.publish("formal", files, FACTS | {"evaluation": {"passed": passed}})
    assert empty.versions("formal") == [version]
    assert empty.promoted("formal") == (version if passed else None)
    assert empty.audit.entries(1)[0]["promoted"] is passed


@pytest.mark.parametrize(("rank", "promoted"), [(16, True), (17, False)])
def test_a_first_version_that_a_server_without_options_does_not_take_is_published_and_not_promoted(
    empty: Store, files: Path, rank: int, promoted: bool
):
    version = empty.publish("formal", files, FACTS | {"lora": FACTS["lora"] | {"rank": rank}})
    assert empty.promoted("formal") == (version if promoted else None)
    assert empty.resolve("formal@1") == version


def test_a_second_publish_leaves_the_promoted_version_alone(empty: Store, files: Path):
    first = empty.publish("formal", files, FACTS)
    second = empty.publish("formal", files, FACTS)
    assert second.id == "formal@2"
    assert empty.resolve("formal") == first


def test_a_version_lies_in_a_directory_named_by_its_digest(empty: Store, files: Path):
    version = empty.publish("formal", files, FACTS)
    assert version.path == empty.directory / "formal" / f"1-{content_digest(files)[:12]}"
    assert sorted(os.listdir(version.path)) == [CONFIG, WEIGHTS, "manifest.json"]
    assert content_digest(version.path) == content_digest(files) == version.manifest().adapter_sha256


def test_other_weights_lie_at_another_path(empty: Store, tmp_path: Path, files: Path):
    first = empty.publish("formal", files, FACTS)
    second = empty.publish("formal", written_adapter(tmp_path / "other", b"other"), FACTS)
    assert first.path.name.split("-")[1] != second.path.name.split("-")[1]


def test_a_publish_changes_nothing_of_the_older_versions(empty: Store, files: Path):
    first = empty.publish("formal", files, FACTS)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in first.path.iterdir()}
    empty.publish("formal", files, FACTS)
    empty.promote("formal@2")
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in first.path.iterdir()} == before


def test_a_published_version_keeps_its_content_when_the_source_is_gone(empty: Store, files: Path):
    version = empty.publish("formal", files, FACTS)
    shutil.rmtree(files)
    assert (version.path / WEIGHTS).read_bytes() == b"weights"


def test_the_manifest_says_name_version_and_facts(empty: Store, files: Path):
    manifest = empty.publish("formal", files, FACTS | {"data_licence": "CC0-1.0"}).manifest()
    assert (manifest.name, manifest.version, manifest.data_licence) == ("formal", 1, "CC0-1.0")
    assert manifest.created.tzinfo is not None


def test_promote_moves_the_bare_name(empty: Store, files: Path):
    empty.publish("formal", files, FACTS)
    second = empty.publish("formal", files, FACTS)
    assert empty.promote("formal@2") == second
    assert empty.resolve("formal") == second
    assert empty.promote("formal@1") == empty.resolve("formal")


def test_a_promote_is_seen_by_another_store_object(store: Store):
    reader = Store(store.directory)
    assert reader.resolve("formal").id == "formal@1"
    store.promote("formal@2")
    assert reader.resolve("formal").id == "formal@2"


def test_a_store_of_0_1_0_keeps_its_promoted_version_until_the_next_change(store: Store):
    home = store.directory / "formal"
    (home / POINTERS).unlink()
    (home / "promoted").write_text("2\n")
    assert store.resolve("formal").id == "formal@2"
    assert verify(store, lambda _: [], watch_seconds=0) == []
    store.label("formal@1", "first")
    assert store.resolve("formal").id == "formal@2"
    store.promote("formal@1")
    assert store.resolve("formal").id == "formal@1"
    assert store.roll_back("formal").id == "formal@2"


@pytest.mark.parametrize("content", [b"", b"no number", b"\xff"])
def test_an_old_pointer_that_is_no_number_promotes_nothing(store: Store, content: bytes):
    (store.directory / "formal" / POINTERS).unlink()
    (store.directory / "formal" / "promoted").write_bytes(content)
    with pytest.raises(AdapterNotFound):
        store.resolve("formal")


def test_a_promote_without_a_version_says_how(store: Store):
    with pytest.raises(ConfigError) as caught:
        store.promote("formal")
    assert "formal@1" in caught.value.hint


@pytest.mark.parametrize("reference", ["formal@3", "unknown@1"])
def test_a_promote_of_what_is_not_there_changes_nothing(store: Store, reference: str):
    with pytest.raises(AdapterNotFound):
        store.promote(reference)
    assert store.resolve("formal").id == "formal@1"
    assert store.names() == ["formal", "friendly"]


def test_an_exact_version_resolves_to_itself(store: Store):
    assert [store.resolve(f"formal@{number}").id for number in (1, 2)] == ["formal@1", "formal@2"]


def test_an_unknown_name_is_answered_with_near_names(store: Store):
    with pytest.raises(AdapterNotFound) as caught:
        store.resolve("freindly")
    assert "'freindly'" in str(caught.value)
    assert caught.value.hint == "did you mean friendly?"


def test_an_unknown_version_is_answered_with_the_versions_there_are(store: Store):
    with pytest.raises(AdapterNotFound) as caught:
        store.resolve("formal@9")
    assert caught.value.hint == "it has the versions formal@1, formal@2"


def test_a_name_without_a_promoted_version_is_not_found_but_its_versions_are(store: Store):
    (store.directory / "formal" / POINTERS).unlink()
    with pytest.raises(AdapterNotFound, match="formal"):
        store.resolve("formal")
    assert store.resolve("formal@2").number == 2


@pytest.mark.parametrize(
    "reference", ["formal@", "formal@01", "formal@1@1", "formal@1 ", "formal@-1", "formal@+1", "@1"]
)
def test_only_the_exact_spelling_of_a_version_counts(store: Store, reference: str):
    with pytest.raises(AdapterNotFound):
        store.resolve(reference)


def test_a_store_that_is_not_there_holds_nothing(empty: Store):
    assert (empty.names(), empty.versions("formal"), empty.promoted("formal")) == ([], [], None)
    with pytest.raises(AdapterNotFound):
        empty.resolve("formal")
    assert not empty.directory.exists()


def test_versions_are_in_the_order_of_their_numbers(empty: Store, files: Path):
    for _ in range(11):
        empty.publish("formal", files, FACTS)
    assert [version.number for version in empty.versions("formal")] == list(range(1, 12))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text() | st.text("./\\@0123456789-~%\0 abcsecret"))
@example("../secret@1")
@example("../secret")
@example("formal/../../secret@1")
@example("/etc/passwd")
@example("formal\n")
@example("formal/1-0123456789ab")
@example("formal@1/../../secret")
@example("formal@١")
@example("..")
@example("")
def test_no_reference_leads_out_of_the_store(store: Store, reference: str):
    outside = store.directory.parent / "secret"
    if not outside.exists():
        shutil.copytree(store.directory / "formal", outside)
    if reference in ("formal", "formal@1", "formal@2", "friendly", "friendly@1"):
        assert store.resolve(reference).path.parent.parent == store.directory
    else:
        with pytest.raises(AdapterNotFound):
            store.resolve(reference)


@pytest.mark.parametrize("name", ["../formal", "Formal", "text", "a/b", ""])
def test_a_publish_under_a_wrong_name_writes_nothing(empty: Store, files: Path, name: str):
    with pytest.raises(ConfigError):
        empty.publish(name, files, FACTS)
    assert not empty.directory.exists()
    assert sorted(os.listdir(empty.directory.parent)) == ["files"]


def publish_five_times(directory: Path, files: Path, start) -> None:
    start.wait(30)
    for _ in range(5):
        Store(directory).publish("formal", files, FACTS)


def test_two_processes_that_publish_one_name_at_once_get_different_versions(empty: Store, files: Path):
    processes = multiprocessing.get_context("spawn")
    start = processes.Barrier(2)
    both = [processes.Process(target=publish_five_times, args=(empty.directory, files, start)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert [version.number for version in empty.versions("formal")] == list(range(1, 11))
    assert {version.manifest().version for version in empty.versions("formal")} == set(range(1, 11))


class Crash(BaseException):
    """Stands for the process's end: no `except Exception` sees it."""


def crash(*_: object, **__: object) -> None:
    raise Crash


def test_a_crash_before_the_rename_leaves_the_old_state(store: Store, files: Path, monkeypatch: pytest.MonkeyPatch):
    before = store.versions("formal")
    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(Crash):
        store.publish("formal", files, FACTS)
    monkeypatch.undo()
    assert store.versions("formal") == before
    assert store.publish("formal", files, FACTS).id == "formal@3"


def test_a_crash_in_the_first_publish_leaves_no_adapter(empty: Store, files: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(Crash):
        empty.publish("formal", files, FACTS)
    monkeypatch.undo()
    assert (empty.versions("formal"), empty.promoted("formal")) == ([], None)


def test_a_crash_before_the_pointer_moves_leaves_it_where_it_was(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module.os, "replace", crash)
    with pytest.raises(Crash):
        store.promote("formal@2")
    monkeypatch.undo()
    assert store.resolve("formal").id == "formal@1"
    assert store.promote("formal@2") == store.resolve("formal")


def test_leftovers_of_a_crash_are_no_versions(store: Store):
    shutil.copytree(store.resolve("formal").path, store.directory / "formal" / ".incoming-abc" / "version")
    (store.directory / "formal" / ".new-abc").write_text("2\n")
    (store.directory / "formal" / "3-notadigest").mkdir()
    (store.directory / ".trash").mkdir()
    assert [version.id for version in store.versions("formal")] == ["formal@1", "formal@2"]
    assert store.names() == ["formal", "friendly"]


def test_a_publish_with_wrong_facts_leaves_no_version(empty: Store, files: Path):
    with pytest.raises(ValueError, match="base_fingerprint"):
        empty.publish("formal", files, FACTS | {"base_fingerprint": "md5:1"})
    assert empty.versions("formal") == []


def test_a_publish_without_weights_leaves_no_version(store: Store, files: Path):
    (files / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError):
        store.publish("formal", files, FACTS)
    assert [version.id for version in store.versions("formal")] == ["formal@1", "formal@2"]


def test_the_digest_changes_with_config_and_weights(tmp_path: Path, files: Path):
    before = content_digest(files)
    assert content_digest(written_adapter(tmp_path / "same")) == before
    assert content_digest(written_adapter(tmp_path / "other", b"other")) != before
    (files / CONFIG).write_text(json.dumps({"r": 8}))
    assert content_digest(files) != before
