"""API keys in a store: shown once, kept as hashes, counting until they end."""

import json
import os
import signal
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.errors import ConfigError, KeysDamaged, Unauthorised
from adapters.store.gc import collect, verify
from adapters.store.store import KEYS, Store
from server.api.keys import Caller, Key, Keys, Order


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def found(keys: Keys, token: str) -> Key:
    """As server/api/access.py does it for a request."""
    if keys.changed:
        keys.all()
    return keys.find(token)


def test_a_key_is_found_by_what_was_shown_and_the_file_has_only_its_hash(tmp_path: Path):
    keys = Keys(tmp_path / "store")
    key, token = keys.create(Order("phone", ("formal*",), ("infer", "metrics"), None, 60, 2))
    assert found(Keys(tmp_path / "store"), token) == key
    assert (key.caller.models, key.caller.requests_per_minute, key.caller.streams) == (("formal*",), 60, 2)
    text = (tmp_path / "store" / KEYS).read_text()
    assert token not in text
    assert token.split("-", 2)[2] not in text
    assert stat.S_IMODE((tmp_path / "store" / KEYS).stat().st_mode) == 0o600


def test_no_two_keys_are_alike(tmp_path: Path):
    keys = Keys(tmp_path)
    assert len({keys.create(Order(f"key {number}"))[1] for number in range(20)}) == 20


@pytest.mark.parametrize(
    "change", [str.upper, lambda t: t[:-1], lambda t: t + "x", lambda t: "", lambda t: t[:16] + "x" * 43]
)
def test_anything_but_the_key_itself_is_refused(tmp_path: Path, change):
    keys = Keys(tmp_path)
    _, token = keys.create(Order("phone"))
    with pytest.raises(Unauthorised) as refused:
        found(keys, change(token))
    assert token not in str(refused.value)


def test_a_key_counts_no_more_once_expired_or_revoked(tmp_path: Path):
    clock = Clock()
    keys = Keys(tmp_path, clock)
    _, short = keys.create(Order("short", lifetime=timedelta(hours=1)))
    _, long = keys.create(Order("long"))
    clock.now += timedelta(minutes=59)
    assert found(keys, short).name == "short"
    clock.now += timedelta(minutes=1)
    with pytest.raises(Unauthorised, match="expired"):
        found(keys, short)
    other_process = Keys(tmp_path, clock)
    other_process.revoke("long")
    with pytest.raises(Unauthorised, match="revoked"):
        found(keys, long)
    assert [key.state(clock.now) for key in keys.all()] == ["expired", "revoked"]
    with pytest.raises(ConfigError, match="no key 'long'"):
        keys.revoke("long")


def test_a_name_is_of_one_active_key(tmp_path: Path):
    keys = Keys(tmp_path)
    first, _ = keys.create(Order("phone"))
    with pytest.raises(ConfigError, match="active key named 'phone'"):
        keys.create(Order("phone"))
    keys.revoke(first.id)
    assert keys.create(Order("phone"))[0].id != first.id


@pytest.mark.parametrize(
    "order",
    [
        Order(""),
        Order("a\nb"),
        Order("x" * 64),
        Order("a", models=()),
        Order("a", models=("Formal",)),
        Order("a", models=("../x",)),
        Order("a", scopes=()),
        Order("a", requests_per_minute=0),
        Order("a", streams=-1),
    ],
)
def test_an_order_that_cannot_be_makes_nothing(tmp_path: Path, order: Order):
    with pytest.raises(ConfigError):
        Keys(tmp_path).create(order)
    assert Keys(tmp_path).all() == []


def test_two_who_make_keys_at_once_lose_none(tmp_path: Path):
    threads = [
        threading.Thread(target=lambda n=n: [Keys(tmp_path).create(Order(f"{n}-{m}")) for m in range(10)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Keys(tmp_path).all()) == 40


@pytest.mark.parametrize("damage", ["", "{", "[{}]", '[{"id": "secret-in-a-damaged-file"}]'])
def test_a_damaged_file_lets_nobody_in_and_is_not_quoted(tmp_path: Path, damage: str):
    keys = Keys(tmp_path)
    _, token = keys.create(Order("phone"))
    (tmp_path / KEYS).write_text(damage)
    with pytest.raises(KeysDamaged) as refused:
        found(keys, token)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("models", "may", "may_not"),
    [
        (("*",), ["formal", "formal@2", "base", "tiny", "nosuch"], []),
        (("formal*", "base"), ["formal", "formal@2", "formal-uk@candidate", "base", "tiny"], ["friendly", "xformal"]),
        (("tiny",), ["tiny", "base"], ["formal"]),
        (("formal",), ["formal", "formal@1"], ["formals", "base", "tiny", ""]),
    ],
)
def test_models_are_patterns_of_names(models: tuple[str, ...], may: list[str], may_not: list[str]):
    caller = Caller("1", "one", frozenset({"infer"}), models)
    assert all(caller.may_use(name, ("tiny", "base")) for name in may)
    assert not any(caller.may_use(name, ("tiny", "base")) for name in may_not)


def test_the_store_knows_its_keys(store: Store):
    Keys(store.directory).create(Order("phone"))
    assert verify(store, lambda _: [], 0) == []
    assert store.names() == ["formal", "friendly"]


def test_what_is_read_again_is_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keys = Keys(tmp_path)
    _, token = keys.create(Order("phone"))
    found(keys, token)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read again"))
    found(keys, token)
    assert json.loads(os.fsencode((tmp_path / KEYS).read_text()))


def test_a_killed_change_leaves_what_gc_removes(store: Store):
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        Keys(store.directory).create(Order("phone"))
    os.waitpid(child, 0)
    assert Keys(store.directory).all() == []
    (finding,) = verify(store, lambda _: [], watch_seconds=0)
    assert (finding.what, finding.removable) == ("an interrupted change of a file", True)
    assert collect(store, dry_run=True, watch_seconds=0).removed == [finding.path.name]
    assert finding.path.is_file()
    assert collect(store, watch_seconds=0).removed == [finding.path.name]
    assert verify(store, lambda _: [], watch_seconds=0) == []
