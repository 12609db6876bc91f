import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from adapters.errors import AdapterNotFound, ConfigError
from adapters.store.gc import collect, verify
from adapters.store.leases import HEARTBEAT, LEASES, Lease
from adapters.store.store import POINTERS, RUNS, Store
from adapters.store.version import CONFIG, MANIFEST, WEIGHTS, Version

NO_WAIT = 0.0


def found(store: Store, reasons=lambda _: []) -> dict[str, tuple[str, bool]]:
    """By path in the store; one finding a path."""
    findings = verify(store, reasons, watch_seconds=NO_WAIT)
    by_path = {str(f.path.relative_to(store.directory)): (f.what, f.removable) for f in findings}
    assert len(by_path) == len(findings)
    return by_path


def only(store: Store) -> tuple[str, bool]:
    (finding,) = found(store).values()
    return finding


def everything(store: Store) -> list[tuple[str, int]]:
    paths = [path for path in store.directory.rglob("*") if path.name != ".lock"]
    return sorted((str(path), path.stat().st_mtime_ns) for path in paths)


def dead_lease(store: Store) -> str:
    path = store.directory / LEASES / "elsewhere-7-abcdef"
    path.mkdir(parents=True)
    (path / HEARTBEAT).write_text("another-boot 1\n")
    (path / "formal@2").touch()
    return str(path.relative_to(store.directory))


def test_a_sound_store_has_no_findings_and_nothing_to_collect(store: Store):
    with_lease = Lease(store.directory)
    with_lease.acquire(store.resolve("formal"))
    before = everything(store)
    assert found(store) == {}
    collected = collect(store, watch_seconds=NO_WAIT)
    assert (collected.removed, collected.kept) == ([], [])
    assert everything(store) == before


def test_a_store_that_is_not_there_has_no_findings_and_is_not_made(tmp_path: Path):
    store = Store(tmp_path / "none")
    assert (found(store), collect(store).removed) == ({}, [])
    assert not store.directory.exists()


def test_a_retired_version_is_removed_and_its_number_never_given_out_again(store: Store, tmp_path: Path):
    store.retire("formal@2")
    assert collect(store).removed == ["formal@2"]
    assert [version.id for version in store.versions("formal")] == ["formal@1"]
    with pytest.raises(AdapterNotFound):
        store.resolve("formal@2")
    with pytest.raises(ConfigError, match="formal@2"):
        store.bring_back("formal@2")
    facts = store.resolve("formal").manifest().model_dump()
    for said_by_the_store in ("name", "version", "created", "adapter_sha256"):
        del facts[said_by_the_store]
    assert store.publish("formal", store.resolve("formal").path, facts).id == "formal@3"
    assert found(store) == {}


def test_what_is_not_retired_stays_whatever_is_promoted(store: Store):
    store.promote("formal@2")
    collect(store)
    assert [version.id for version in store.versions("formal")] == ["formal@1", "formal@2"]


def test_a_retired_version_that_a_living_server_holds_is_kept_until_it_lets_go(store: Store):
    lease = Lease(store.directory)
    lease.acquire(version := store.resolve("formal@2"))
    store.retire("formal@2")
    collected = collect(store)
    assert collected.removed == []
    assert collected.kept == [f"formal@2: a server may have it loaded (lease {lease.path.name})"]
    lease.release(version)
    assert collect(store).removed == ["formal@2"]


def test_a_server_that_ended_keeps_nothing_and_its_lease_goes(store: Store):
    lease = dead_lease(store)
    store.retire("formal@2")
    assert found(store) == {lease: ("the lease of a server that has ended", True)}
    assert collect(store, watch_seconds=NO_WAIT).removed == ["formal@2", lease]
    assert found(store) == {}


def test_a_version_that_is_held_between_the_watch_and_the_lock_is_kept(store: Store):
    """A server that starts to load while gc waits for the lock wins."""
    lease, version = Lease(store.directory), store.resolve("formal@2")
    store.retire("formal@2")
    collecting = threading.Thread(target=collect, args=(store,))
    with store.locked("formal"):
        collecting.start()
        (lease.path / version.id).touch()
    collecting.join(30)
    assert version.path.is_dir()


def test_a_dry_run_says_what_would_go_and_changes_nothing(store: Store):
    lease = dead_lease(store)
    store.retire("formal@2")
    (store.directory / "friendly/.incoming-dead").mkdir()
    before = everything(store)
    would = collect(store, dry_run=True, watch_seconds=NO_WAIT)
    assert everything(store) == before
    assert would.removed == ["formal@2", "friendly/.incoming-dead", lease]
    assert collect(store, watch_seconds=NO_WAIT) == would


def test_leftovers_are_named_and_removed_but_not_a_publish_that_is_under_way(store: Store):
    home = store.directory / "formal"
    (home / ".incoming-dead").mkdir()
    (home / ".new-77").write_text("{}")
    shutil.copytree(store.resolve("formal").path, home / ".removing-9-abc")
    with store._incoming("formal") as under_way:
        assert {path: removable for path, (_, removable) in found(store).items()} == {
            f"formal/{name}": True for name in (".incoming-dead", ".new-77", ".removing-9-abc")
        }
        assert len(collect(store).removed) == 3
        assert under_way.is_dir()
        assert (found(store), collect(store).removed) == ({}, [])


def test_two_collections_at_once_remove_everything_and_fail_on_nothing(store: Store):
    failures = []

    def run() -> None:
        try:
            collect(Store(store.directory))
        except BaseException as exc:
            failures.append(exc)

    for turn in range(20):
        leftover = store.directory / f"formal/.removing-{turn}"
        for number in range(30):
            (leftover / str(number)).mkdir(parents=True)
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert found(store) == {}


def test_a_removal_never_follows_a_link_out_of_the_store(store: Store, tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/mail").write_text("dear")
    (store.directory / "formal/.removing-1").symlink_to(tmp_path / "precious")
    collect(store)
    assert (tmp_path / "precious/mail").read_text() == "dear"
    assert found(store) == {}


def test_what_this_program_did_not_write_is_named_and_left_alone(store: Store):
    foreign = [
        *(store.directory / name for name in ("notes.txt", "Formal", ".trash")),
        *(store.directory / "formal" / name for name in ("3-notadigest", "notes.txt", ".promoted-1")),
        store.directory / LEASES / "notes.txt",
    ]
    Lease(store.directory)
    for path in foreign:
        path.write_text("") if path.suffix else path.mkdir()
    assert {store.directory / path for path in found(store)} == set(foreign)
    assert set(found(store).values()) == {("Mailwright did not write this; move it out of the store", False)}
    assert collect(store).removed == []
    assert all(path.exists() for path in foreign)


def test_a_file_system_of_its_own_may_have_its_lost_and_found(store: Store):
    (store.directory / "lost+found").mkdir()
    assert found(store) == {}


def test_a_training_that_can_be_gone_on_with_is_no_damage(store: Store):
    (store.directory / RUNS / "mine" / "checkpoint-3").mkdir(parents=True)
    (store.directory / RUNS / ".mine.lock").touch()
    assert found(store) == {}
    assert collect(store).removed == []


def change_weights(version: Version) -> None:
    with (version.path / WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")


def replace_by_fifo(version: Version) -> None:
    (version.path / WEIGHTS).unlink()
    os.mkfifo(version.path / WEIGHTS)


def replace_by_link(version: Version) -> None:
    moved = version.path.parents[2] / "config"
    (version.path / CONFIG).rename(moved)
    (version.path / CONFIG).symlink_to(moved)


def say_another_name(version: Version) -> None:
    manifest = json.loads((version.path / MANIFEST).read_text())
    (version.path / MANIFEST).write_text(json.dumps(manifest | {"name": "casual"}))


def replace_by_file(version: Version) -> None:
    shutil.rmtree(version.path)
    version.path.write_text("")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (change_weights, "the content is not what was published"),
        (replace_by_fifo, f"{WEIGHTS} is not a plain file"),
        (replace_by_link, f"{CONFIG} is not a plain file"),
        (replace_by_file, "this is not a directory"),
        (say_another_name, "is of casual@2, not of formal@2"),
        (lambda version: (version.path / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
        (lambda version: (version.path / MANIFEST).unlink(), f"{MANIFEST} is missing"),
        (lambda version: (version.path / MANIFEST).write_text("{"), f"{MANIFEST} is missing or damaged"),
        (lambda version: (version.path / MANIFEST).write_bytes(b"\xff"), f"{MANIFEST} is missing or damaged"),
        (lambda version: (version.path / "notes.txt").touch(), "'notes.txt' does not belong here"),
        (
            lambda version: version.path.rename(version.path.with_name("2-0123456789ab")),
            "name has another digest",
        ),
    ],
)
@pytest.mark.parametrize("retired", [False, True])
def test_a_damaged_version_is_named_and_never_removable(store: Store, damage, what: str, retired: bool):
    if retired:
        store.retire("formal@2")
    damage(store.versions("formal")[1])
    said, removable = only(store)
    assert what in said
    assert not removable


def test_a_retired_version_that_is_damaged_is_removed_like_any(store: Store):
    store.retire("formal@2")
    replace_by_file(store.versions("formal")[1])
    assert collect(store).removed == ["formal@2"]
    assert found(store) == {}


def test_every_reason_of_every_version_in_use_is_a_finding_and_retired_ones_are_not_asked(store: Store):
    store.retire("formal@2")
    findings = verify(store, lambda version: [f"{version.id} is bad", "and ugly"])
    assert [(f.what, f.removable) for f in findings] == [
        ("formal@1 is bad", False),
        ("and ugly", False),
        ("friendly@1 is bad", False),
        ("and ugly", False),
    ]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b'{"promoted": 0}', b'{"surprise": 1}', b"[" * 100_000])
def test_a_damaged_pointers_file_is_named_holds_up_no_other_name_and_loses_no_version(store: Store, content: bytes):
    store.retire("formal@2")
    store.retire("friendly")
    (store.directory / "formal" / POINTERS).write_bytes(content)
    what, removable = only(store)
    assert "damaged" in what
    assert "adapters promote formal@N" in what
    assert not removable
    collected = collect(store)
    assert collected.removed == ["friendly@1"]
    assert "it is unknown what is retired" in collected.kept[0]
    assert [version.id for version in store.versions("formal")] == ["formal@1", "formal@2"]
    store.promote("formal@1")
    assert found(store) == {}


@pytest.mark.parametrize(
    ("point", "what"),
    [
        (lambda store: store.promote("formal@2"), "promoted means version 2, which does not exist"),
        (lambda store: store.promote("formal@2", percent=5), "canary means version 2, which does not exist"),
        (lambda store: store.label("formal@2", "candidate"), "label candidate means version 2, which does not exist"),
        (lambda store: store.pin("formal@2"), "pin means version 2, which does not exist"),
        (
            lambda store: [store.promote("formal@2"), store.promote("formal@1")],
            "history means version 2, which does not exist",
        ),
    ],
)
def test_what_points_to_a_version_that_somebody_deleted_is_named(store: Store, point, what: str):
    point(store)
    shutil.rmtree(store.versions("formal")[1].path)
    assert only(store) == (what, False)


def test_two_directories_with_one_number_are_named(store: Store):
    first = store.resolve("formal@1")
    shutil.copytree(first.path, first.path.with_name("2-0123456789ab"))
    assert "2 directories are version 2; keep the right one" in [f.what for f in verify(store, lambda _: [])]
