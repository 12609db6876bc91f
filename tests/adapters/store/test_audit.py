import asyncio
import errno
import json
import logging
import multiprocessing
import os
import pwd
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.cli import main
from adapters.errors import AdapterNotFound, ConfigError, StoreUnwritable
from adapters.models.transfer import export, import_
from adapters.store.audit import Audit, acting_as
from adapters.store.gc import collect, verify
from adapters.store.leases import Lease
from adapters.store.store import Store
from tests import tiny

Capture = pytest.CaptureFixture[str]
USER = f"user {pwd.getpwuid(os.getuid()).pw_name}"


def lines(store: Store) -> list[dict]:
    return [json.loads(line) for line in (store.directory / "audit.jsonl").read_text().splitlines()]


def added(store: Store, change: Callable[[], object]) -> list[dict]:
    """The lines that `change` added, without their times."""
    before = len(lines(store))
    change()
    return [{key: value for key, value in line.items() if key != "time"} for line in lines(store)[before:]]


def line(store: Store, what: str, version_id: str, **facts: object) -> dict:
    name, _, number = version_id.partition("@")
    (directory,) = (store.directory / name).glob(f"{number}-*")
    digest = directory.name.partition("-")[2]
    return {"who": USER, "what": what, "adapter": version_id, "digest": digest, **facts}


@pytest.fixture
def tried(store: Store) -> Store:
    """`formal@1` is promoted, `formal@2` on trial, labelled candidate, and pinned."""
    store.promote("formal@2", percent=10)
    store.label("formal@2", "candidate")
    store.pin("formal@2")
    return store


def test_a_publish_is_a_line_that_says_when_who_what_and_which_content(store: Store, base_model):
    earliest = datetime.now(UTC) - timedelta(milliseconds=1)
    tiny.publish(store, base_model, "casual", seed=4)
    entry = lines(store)[-1]
    assert earliest <= datetime.fromisoformat(entry["time"]) <= datetime.now(UTC)
    assert len(entry.pop("time")) == len("2026-11-30T09:15:02.114Z")
    assert entry == line(store, "publish", "casual@1", promoted=True)
    assert entry["digest"] == store.resolve("casual").manifest().adapter_sha256[:12]


def test_a_publish_below_a_promoted_version_says_that_it_is_not_promoted(store: Store, base_model):
    new = added(store, lambda: tiny.publish(store, base_model, "formal", seed=5))
    assert new == [line(store, "publish", "formal@3", promoted=False)]


@pytest.mark.parametrize(
    ("change", "what", "version_id", "facts"),
    [
        (lambda store: store.promote("formal@2"), "promote", "formal@2", {}),
        (lambda store: store.promote("formal@candidate"), "promote", "formal@2", {}),
        (lambda store: store.promote("formal@2", percent=25), "promote", "formal@2", {"percent": 25}),
        (lambda store: store.roll_back("formal"), "rollback", "formal@1", {}),
        (lambda store: store.label("formal@1", "old"), "label", "formal@1", {"label": "old"}),
        (lambda store: store.remove_label("formal", "candidate"), "unlabel", "formal@2", {"label": "candidate"}),
        (lambda store: store.pin("formal@1"), "pin", "formal@1", {}),
        (lambda store: store.unpin("formal@candidate"), "unpin", "formal@2", {}),
        (lambda store: store.retire("friendly"), "retire", "friendly@1", {}),
    ],
    ids=["promote", "by label", "trial", "rollback", "label", "unlabel", "pin", "unpin", "retire"],
)
def test_each_change_is_one_line(tried: Store, change, what: str, version_id: str, facts: dict):
    assert added(tried, lambda: change(tried)) == [line(tried, what, version_id, **facts)]


def test_a_whole_name_is_retired_and_brought_back_with_a_line_for_each_version(store: Store):
    versions = ["formal@1", "formal@2"]
    assert added(store, lambda: store.retire("formal")) == [line(store, "retire", each) for each in versions]
    back = added(store, lambda: store.bring_back("formal"))
    assert back == [line(store, "unretire", each) for each in versions]


def test_gc_has_a_line_for_each_version_that_it_removed(store: Store):
    lease = Lease(store.directory)
    lease.acquire(store.resolve("formal@1"))
    store.retire("formal")
    store.retire("friendly")
    (store.directory / "formal/.incoming-dead").mkdir()
    gone = [line(store, "remove", "formal@2"), line(store, "remove", "friendly@1")]
    assert added(store, lambda: collect(store, dry_run=True, watch_seconds=0)) == []
    assert added(store, lambda: collect(store, watch_seconds=0)) == gone
    assert added(store, lambda: collect(store, watch_seconds=0)) == []
    lease.close()


def test_an_export_is_a_line_and_an_import_is_a_publish(store: Store, base_model, tmp_path: Path):
    version = store.resolve("formal")
    assert added(store, lambda: export(version, tmp_path / "out")) == [line(store, "export", "formal@1")]
    new = added(store, lambda: import_(store, tmp_path / "out", "copy", base_model))
    assert new == [line(store, "publish", "copy@1", promoted=True)]


@pytest.mark.parametrize(
    "command",
    [
        lambda store: store.promote("formal@9"),
        lambda store: store.promote("formal@1", percent=10),
        lambda store: store.roll_back("friendly"),
        lambda store: store.label("formal@1", "Not a label"),
        lambda store: store.remove_label("formal", "unknown"),
        lambda store: store.retire("formal@2"),
        lambda store: store.bring_back("formal"),
        lambda store: export(store.resolve("formal"), store.directory),
    ],
    ids=["promote", "trial", "rollback", "label", "unlabel", "retire", "bring back", "export"],
)
def test_what_is_refused_is_no_line(tried: Store, command):
    def refused() -> None:
        with pytest.raises((AdapterNotFound, ConfigError)):
            command(tried)

    assert added(tried, refused) == []


def test_what_changes_nothing_is_no_line(tried: Store):
    tried.roll_back("formal")
    assert added(tried, lambda: tried.promote("formal@1")) == []
    assert added(tried, lambda: tried.label("formal@2", "candidate")) == []
    assert added(tried, lambda: tried.pin("formal@2")) == []
    assert added(tried, lambda: tried.unpin("formal@1")) == []


def test_promoting_mends_damaged_pointers_and_is_a_line(store: Store):
    (store.directory / "formal/pointers.json").write_text("{")
    assert added(store, lambda: store.promote("formal@1")) == [line(store, "promote", "formal@1")]


def test_only_the_user_may_read_it(store: Store):
    assert stat.S_IMODE((store.directory / "audit.jsonl").stat().st_mode) == 0o600


def test_it_is_neither_a_name_nor_damage_nor_a_leftover_also_where_it_was_rotated(store: Store):
    (store.directory / "audit.jsonl").rename(store.directory / "audit.jsonl.1")
    store.promote("formal@2")
    assert [entry["what"] for entry in lines(store)] == ["promote"]
    assert store.names() == ["formal", "friendly"]
    assert verify(store, lambda _: [], watch_seconds=0) == []
    collect(store, watch_seconds=0)
    assert len((store.directory / "audit.jsonl.1").read_text().splitlines()) == 3


def test_whoever_orders_it_is_named(store: Store):
    with acting_as("key phone"):
        store.promote("formal@2")
        with acting_as("key laptop"):
            store.roll_back("formal")
        store.pin("formal@2")
    store.unpin("formal@2")
    assert [entry["who"] for entry in lines(store)[-4:]] == ["key phone", "key laptop", "key phone", USER]


def test_whoever_orders_it_is_named_by_threads_too_and_each_by_its_own(store: Store):
    async def order(who: str, reference: str) -> None:
        with acting_as(who):
            await asyncio.to_thread(store.pin, reference)

    async def orders() -> None:
        await asyncio.gather(order("key a", "formal@1"), order("key b", "formal@2"), order("key c", "friendly@1"))

    asyncio.run(orders())
    ordered = {(entry["who"], entry["adapter"]) for entry in lines(store)[-3:]}
    assert ordered == {("key a", "formal@1"), ("key b", "formal@2"), ("key c", "friendly@1")}


def test_a_user_without_a_name_is_a_number(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getuid", lambda: 987_654_321)
    store.pin("formal")
    assert lines(store)[-1]["who"] == "user 987654321"


def test_a_key_has_a_line_before_there_is_a_store(tmp_path: Path):
    store = Store(tmp_path / "none/store")
    store.audit.record("key", key="phone", scope="write", percent=None)
    (entry,) = lines(store)
    assert entry == {"time": entry["time"], "who": USER, "what": "key", "key": "phone", "scope": "write"}


def append(directory: Path, who: str, count: int) -> None:
    for number in range(count):
        with acting_as(who):
            Audit(directory).record("load", "formal@1", number=number)


def test_processes_that_append_at_once_lose_and_mix_no_line(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append, args=(tmp_path, f"key {n}" * 50, 50)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    written = lines(Store(tmp_path))
    for n in range(3):
        assert [entry["number"] for entry in written if entry["who"] == f"key {n}" * 50] == list(range(50))
    assert len(written) == 150


def test_a_full_disk_warns_and_undoes_nothing(store: Store, base_model, caplog: pytest.LogCaptureFixture):
    (store.directory / "audit.jsonl").unlink()
    (store.directory / "audit.jsonl").symlink_to("/dev/full")
    assert tiny.publish(store, base_model, "formal", seed=5).id == "formal@3"
    assert store.promote("formal@3") == store.resolve("formal")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.messages[0] == (
        f"publish of formal@3 is done, but not in the audit log {store.directory}/audit.jsonl: No space left on device"
    )


def test_a_store_that_cannot_be_written_records_nothing_that_did_not_happen(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refused() -> None:
        with pytest.raises(StoreUnwritable):
            store.promote("formal@2")

    monkeypatch.setattr(os, "replace", full)
    assert added(store, refused) == []


def test_a_directory_that_cannot_be_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    Audit(tmp_path / "file/store").record("key", key="phone")
    assert caplog.messages == [
        f"key is done, but not in the audit log {tmp_path}/file/store/audit.jsonl: Not a directory"
    ]


def cut(store: Store) -> None:
    log = store.directory / "audit.jsonl"
    log.write_bytes(log.read_bytes()[:-30])


def test_the_entry_after_a_cut_one_is_whole(store: Store):
    cut(store)
    store.promote("formal@2")
    seen = store.audit.entries(last=10)
    assert [entry.get("what", entry.get("damaged_line")) for entry in seen] == ["publish", "publish", 3, "promote"]


def shown(store: Store, capsys: Capture, *arguments: str) -> list[str]:
    """The lines that the command prints, without the header of its table."""
    assert main(["audit", "--store", str(store.directory), *arguments]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("time ")]


def test_the_command_shows_the_newest_entries_last(tried: Store, capsys: Capture):
    with acting_as("key phone"):
        tried.promote("formal@2")
    digest = tried.resolve("formal").path.name[2:]
    width = max(len(USER), len("key phone"))
    assert [row[26:].rstrip() for row in shown(tried, capsys, "--last", "4")] == [
        f"{USER:{width}}  promote  formal@2  {digest}  percent 10",
        f"{USER:{width}}  label    formal@2  {digest}  label candidate",
        f"{USER:{width}}  pin      formal@2  {digest}",
        f"{'key phone':{width}}  promote  formal@2  {digest}",
    ]
    assert [row[:24] for row in shown(tried, capsys)] == [entry["time"] for entry in lines(tried)]


def test_no_name_steers_the_terminal_or_forges_a_line(store: Store, capsys: Capture):
    with acting_as("key \x1b[2J\nline 7 is damaged"):
        store.pin("formal")
    (row,) = shown(store, capsys, "--last", "1")
    assert row[26:].startswith("key ?[2J?line 7 is damaged  pin ")


def test_the_command_as_json_has_the_lines_as_they_are(tried: Store, capsys: Capture):
    assert json.loads("\n".join(shown(tried, capsys, "--json"))) == lines(tried)
    assert json.loads("\n".join(shown(tried, capsys, "--json", "--last", "2"))) == lines(tried)[-2:]


@pytest.mark.parametrize(("adapter", "count"), [("formal", 5), ("formal@2", 4), ("friendly", 1), ("form", 0)])
def test_the_command_shows_what_belongs_to_one_adapter(tried: Store, capsys: Capture, adapter: str, count: int):
    assert len(json.loads("\n".join(shown(tried, capsys, "--json", "--adapter", adapter)))) == count


def test_the_command_says_when_there_is_nothing(tmp_path: Path, capsys: Capture):
    store = Store(tmp_path / "none")
    assert shown(store, capsys) == [f"no entries in {tmp_path}/none/audit.jsonl"]
    assert shown(store, capsys, "--json") == ["[]"]
    assert not store.directory.exists()


@pytest.mark.parametrize(
    "damage", [b'{"time": "20', b"[1]\n", b"{}\n", b'{"time": 1, "who": "w", "what": "x"}\n', b"\xff\n"]
)
def test_the_command_says_which_line_is_damaged_and_shows_the_others(store: Store, capsys: Capture, damage: bytes):
    with (store.directory / "audit.jsonl").open("ab") as log:
        log.write(b"\n" + damage)
    rows = shown(store, capsys)
    assert len(rows) == 4
    assert rows[-1] == "line 5 is damaged"
    assert json.loads("\n".join(shown(store, capsys, "--json", "--last", "1"))) == [{"damaged_line": 5}]


def test_the_command_takes_no_count_below_1(store: Store, capsys: Capture):
    assert main(["audit", "--last", "0", "--store", str(store.directory)]) == 2
    assert "error: --last must be 1 or more, got 0" in capsys.readouterr().err


def test_a_log_that_cannot_be_read_is_an_error_with_its_name(store: Store, capsys: Capture):
    (store.directory / "audit.jsonl").unlink()
    (store.directory / "audit.jsonl").mkdir()
    assert main(["audit", "--store", str(store.directory)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {store.directory}/audit.jsonl cannot be read: Is a directory")
