"""kill -9 at each step of a command, a full disk, a read-only store, clocks that jump."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.store import store as store_module
from adapters.store.gc import collect, verify
from adapters.store.store import Store
from adapters.store.version import CONFIG, WEIGHTS
from tests.adapters.dying import FACTS

ROOT = Path(__file__).parents[3]


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], cwd=ROOT, text=True, capture_output=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(store: Store) -> dict:
    """What users see of a store: versions with their content, and what the names mean."""
    seen = {}
    for name in store.names():
        versions, promoted, pointers = store.versions(name), store.promoted(name), store.pointers(name)
        if versions:
            seen[name] = [
                [version.path.name for version in versions],
                promoted and promoted.id,
                pointers.model_dump(exclude={"promoted"}),
            ]
    return seen


def no_reasons(_version) -> list[str]:
    return []


def hidden(store: Store) -> set[Path]:
    return {path for path in store.directory.glob("*/.*") if path.name != ".lock"}


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "template/store").mkdir(parents=True)
    files = tmp_path / "template/files"
    files.mkdir()
    (files / CONFIG).write_text("{}")
    (files / WEIGHTS).write_bytes(b"weights")
    return tmp_path / "template"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def publish(template: Path, times: int) -> Store:
    store = Store(template / "store")
    for _ in range(times):
        store.publish("formal", template / "files", FACTS)
    return store


@pytest.mark.parametrize(
    ("command", "versions", "kinds_left"),
    [
        ("publish", 0, {".incoming", ".new"}),
        ("publish", 2, {".incoming"}),
        ("promote", 2, {".new"}),
        ("canary", 2, {".new"}),
    ],
)
def test_a_command_killed_at_any_step_leaves_the_old_or_the_new_state_and_the_next_one_works(
    template: Path, tmp_path: Path, command: str, versions: int, kinds_left: set[str]
):
    old = state(publish(template, versions))
    steps = int(run(sys.executable, "-m", "tests.adapters.dying", command, template, tmp_path / "copies"))
    copies = [Store(tmp_path / "copies" / str(step) / "store") for step in range(1, steps + 1)]
    new = state(copies[-1])
    seen, left, logged = [], set(), []
    for store in copies:
        found = state(store)
        assert found in (old, new)
        logged.append(len(store.audit.entries(last=10)) - versions)
        assert logged[-1] == 0 or found == new
        seen.append(found == new)
        findings = verify(store, no_reasons)
        assert {finding.path for finding in findings} == hidden(store)
        assert all(finding.removable for finding in findings)
        left |= {finding.path.name.split("-")[0] for finding in findings}
        assert_everything_goes_on(store, template / "files")
    assert (seen[0], seen[-1]) == (False, True)
    assert seen == sorted(seen)
    assert (logged[0], logged[-1]) == (0, 1)
    assert left == kinds_left


def assert_everything_goes_on(store: Store, files: Path) -> None:
    before = state(store)
    number = len(store.versions("formal")) + 1
    collect(store)
    assert state(store) == before
    assert (hidden(store), verify(store, no_reasons)) == (set(), [])
    # As if there never was a crash: promoted only if nothing was.
    was_promoted = before.get("formal", [None, None])[1]
    assert store.publish("formal", files, FACTS).id == f"formal@{number}"
    assert store.resolve("formal").id == (was_promoted or f"formal@{number}")
    assert store.promote(f"formal@{number}") == store.resolve("formal")
    assert verify(store, no_reasons) == []


def test_a_publish_killed_at_any_step_needs_no_gc_before_the_next_one(template: Path, tmp_path: Path):
    steps = int(run(sys.executable, "-m", "tests.adapters.dying", "publish", template, tmp_path / "copies"))
    for step in range(1, steps + 1):
        store = Store(tmp_path / "copies" / str(step) / "store")
        there = len(store.versions("formal"))
        assert store.publish("formal", template / "files", FACTS).number == there + 1
        assert store.resolve("formal").id == "formal@1"


def test_a_gc_killed_at_any_step_removes_whole_versions_and_the_next_one_the_rest(template: Path, tmp_path: Path):
    store = publish(template, 3)
    store.promote("formal@3")
    store.retire("formal@1")
    store.retire("formal@2")
    steps = int(run(sys.executable, "-m", "tests.adapters.dying", "collect", template, tmp_path / "copies"))
    left = []
    for step in range(1, steps + 1):
        store = Store(tmp_path / "copies" / str(step) / "store")
        left.append(len(store.versions("formal")))
        logged = [entry["adapter"] for entry in store.audit.entries(last=10) if entry["what"] == "remove"]
        assert 3 - left[-1] - len(logged) in (0, 1)
        assert not {*logged} & {version.id for version in store.versions("formal")}
        findings = verify(store, no_reasons)
        assert {finding.path for finding in findings} == hidden(store)
        collect(store)
        assert [version.id for version in store.versions("formal")] == ["formal@3"]
        assert (hidden(store), verify(store, no_reasons)) == (set(), [])
        assert store.publish("formal", template / "files", FACTS).id == "formal@4"
    assert (left[0], left[-1], logged) == (3, 1, ["formal@1", "formal@2"])
    assert left == sorted(left, reverse=True)


def in_own_mounts(command: str, *arguments: object) -> dict:
    """What tests/adapters/odd_disks.py prints; it may mount there, as root or as anybody."""
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--user", "--map-root-user"]
    return json.loads(run(*unshare, sys.executable, "-m", "tests.adapters.odd_disks", command, *arguments))


def test_a_publish_on_a_disk_that_fills_up_changes_nothing_and_says_so(template: Path, disk: Path):
    (template / "files" / WEIGHTS).write_bytes(b"w" * 40_000)
    told = in_own_mounts("full", template / "files", disk)
    assert len(told["refused"]) > 10
    for refusal in told["refused"]:
        assert refusal["error"].endswith("cannot be written: No space left on device")
        assert refusal["hint"] == "make room there"
        assert refusal["after"] == refusal["before"]
        assert refusal["findings"] == []
    assert told["published"] == "formal@2"


def test_no_other_command_changes_anything_on_a_full_disk(template: Path, disk: Path):
    told = in_own_mounts("full-commands", template / "files", disk)
    assert set(told) == {"first publish", "publish", "promote", "canary", "label", "pin", "retire", "bring back"}
    for refusal in told.values():
        assert refusal["error"].endswith("cannot be written: No space left on device")
        assert refusal["after"] == refusal["before"]
        assert refusal["findings"] == []


def test_a_read_only_store_is_read_and_verified_and_each_change_is_refused(template: Path):
    publish(template, 2)
    (template / "store/formal/.incoming-dead").mkdir()
    told = in_own_mounts("read-only", template)
    assert told.pop("read") == "formal@1"
    assert told.pop("verified") == [".incoming-dead"]
    assert told.pop("would collect") == ["formal/.incoming-dead"]
    (warning,) = told.pop("load")
    assert warning.endswith("store/audit.jsonl: Read-only file system")
    assert set(told) == {"publish", "publish a new name", "promote", "retire", "collect", "hold"}
    for refusal in told.values():
        assert refusal["error"].endswith("cannot be written: Read-only file system")
        assert "how it is mounted" in refusal["hint"]
        assert refusal["after"] == refusal["before"]


@pytest.mark.parametrize("seconds", [0, 4_102_444_800], ids=["1970", "2100"])
def test_the_times_of_files_mean_nothing(template: Path, seconds: int):
    store = publish(template, 2)
    shutil.copytree(store.resolve("formal").path, store.directory / "formal/.incoming-dead/version")
    for path in [store.directory, *store.directory.rglob("*")]:
        os.utime(path, (seconds, seconds))
    assert store.resolve("formal").id == "formal@1"
    assert [finding.path.name for finding in verify(store, no_reasons)] == [".incoming-dead"]
    assert collect(store).removed == ["formal/.incoming-dead"]
    assert store.publish("formal", template / "files", FACTS).id == "formal@3"
    assert store.promote("formal@3") == store.resolve("formal")


def test_a_clock_that_goes_backwards_changes_no_order(template: Path, monkeypatch: pytest.MonkeyPatch):
    class Backwards(store_module.datetime):
        year_now = 2100

        @classmethod
        def now(cls, tz=None):
            cls.year_now -= 30
            return cls(cls.year_now, 1, 1, tzinfo=tz)

    monkeypatch.setattr(store_module, "datetime", Backwards)
    store = publish(template, 3)
    versions = store.versions("formal")
    assert [version.manifest().created.year for version in versions] == [2070, 2040, 2010]
    assert [version.number for version in versions] == [1, 2, 3]
    store.promote("formal@2")
    store.promote("formal@3")
    assert store.roll_back("formal").id == "formal@2"
    assert verify(store, no_reasons) == []
