import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.errors import AdapterNotFound
from adapters.store import leases
from adapters.store.leases import (
    HEARTBEAT,
    LEASES,
    Claim,
    Lease,
    claims,
    holders,
    remove_dead,
)
from adapters.store.store import Store
from adapters.store.version import Version

ELSEWHERE = "0f0f0f0f-1111-2222-3333-444444444444"


def version(store: Path, number: int) -> Version:
    path = store / "formal" / f"{number}-0123456789ab"
    path.mkdir(parents=True, exist_ok=True)
    return Version("formal", number, path)


@contextmanager
def other_process(directory: Path) -> Iterator[subprocess.Popen]:
    """Holds formal@1 until it is killed."""
    code = (
        "import sys; from pathlib import Path\n"
        "from adapters.store.leases import Lease; from adapters.store.version import Version\n"
        "lease = Lease(Path(sys.argv[1])); lease.acquire(Version('formal', 1, Path(sys.argv[2])))\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    path = str(version(directory, 1).path)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(directory), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def lease_of_another_machine(directory: Path, beat: str = f"{ELSEWHERE} {1:020}\n") -> Path:
    """As it looks where locks do not reach."""
    path = directory / LEASES / "elsewhere-7-abcdef"
    path.mkdir(parents=True)
    (path / HEARTBEAT).write_text(beat)
    (path / "formal@1").touch()
    return path


def living(directory: Path, watch_seconds: float = 0.3) -> dict[str, bool]:
    return {claim.path.name: claim.living for claim in claims(directory, watch_seconds)}


def test_a_store_without_servers_has_no_claims_and_gets_no_directory(tmp_path: Path):
    assert claims(tmp_path) == []
    assert holders(tmp_path, []) == {}
    remove_dead(tmp_path, [])
    assert os.listdir(tmp_path) == []


def test_a_lease_holds_a_version_until_every_acquire_had_its_release(tmp_path: Path):
    lease, first, second = Lease(tmp_path), version(tmp_path, 1), version(tmp_path, 2)
    for each in (first, first, second):
        lease.acquire(each)
    lease.release(first)
    assert sorted(holders(tmp_path, [])) == ["formal@1", "formal@2"]
    lease.release(first)
    assert holders(tmp_path, []) == {"formal@2": [lease.path.name]}
    assert living(tmp_path) == {lease.path.name: True}
    lease.close()
    assert claims(tmp_path) == []


def test_a_process_that_lives_is_living_and_one_that_is_killed_is_dead_at_once(tmp_path: Path):
    with other_process(tmp_path) as process:
        (name,) = living(tmp_path)
        assert living(tmp_path) == {name: True}
        process.kill()
        process.wait()
        # It would take an hour if its heartbeat were watched, and the test would run into its timeout.
        found = claims(tmp_path, watch_seconds=3600)
        assert [claim.living for claim in found] == [False]
        assert holders(tmp_path, []) == {"formal@1": [name]}
        assert holders(tmp_path, found) == {}
        remove_dead(tmp_path, found)
        assert claims(tmp_path) == []


def test_a_process_that_is_stopped_still_holds_its_lease(tmp_path: Path):
    with other_process(tmp_path) as process:
        process.send_signal(19)
        assert list(living(tmp_path, watch_seconds=0).values()) == [True]


def test_a_silent_lease_of_another_machine_is_dead(tmp_path: Path):
    path = lease_of_another_machine(tmp_path)
    assert living(tmp_path) == {path.name: False}


def test_a_beating_lease_of_another_machine_is_living(tmp_path: Path):
    path = lease_of_another_machine(tmp_path)
    over = threading.Event()

    def beat() -> None:
        beats = 1
        while not over.wait(0.01):
            beats += 1
            (path / HEARTBEAT).write_text(f"{ELSEWHERE} {beats:020}\n")

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        # Longer than the test may last: it comes back as soon as it has seen a beat.
        assert living(tmp_path, watch_seconds=3600) == {path.name: True}
    finally:
        over.set()
        beating.join()


@pytest.mark.parametrize("seconds", [0, 4_102_444_800], ids=["1970", "2100"])
def test_no_clock_decides_who_lives(tmp_path: Path, seconds: int):
    lease, silent = Lease(tmp_path), lease_of_another_machine(tmp_path)
    for path in (lease.path, lease.path / HEARTBEAT, silent, silent / HEARTBEAT):
        os.utime(path, (seconds, seconds))
    assert living(tmp_path) == {lease.path.name: True, silent.name: False}


def test_a_lease_before_a_restart_of_this_machine_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = lease_of_another_machine(tmp_path, f"{leases.boot_id()} {1:020}\n")
    monkeypatch.setattr(leases, "boot_id", lambda: ELSEWHERE)
    assert living(tmp_path) == {path.name: False}


def test_a_lease_that_was_cut_off_before_its_heartbeat_is_dead(tmp_path: Path):
    (tmp_path / LEASES / "host-1-abcdef").mkdir(parents=True)
    assert living(tmp_path) == {"host-1-abcdef": False}


def test_each_beat_differs_from_the_last(tmp_path: Path):
    lease = Lease(tmp_path)
    seen = {(lease.path / HEARTBEAT).read_bytes()}
    for _ in range(5):
        lease.beat()
        seen.add((lease.path / HEARTBEAT).read_bytes())
    assert len(seen) == 6
    assert {len(beat) for beat in seen} == {len(f"{ELSEWHERE} {1:020}\n")}


def taken_for_dead(lease: Lease) -> None:
    beat = (lease.path / HEARTBEAT).read_bytes()
    remove_dead(lease.path.parents[1], [Claim(lease.path, living=False, beat=beat)])
    assert not lease.path.exists()


@pytest.mark.parametrize(
    "wake", [Lease.beat, lambda lease: lease.acquire(version(lease.path.parents[1], 2))], ids=["beat", "acquire"]
)
def test_a_machine_that_was_taken_for_dead_claims_its_versions_again(tmp_path: Path, wake):
    lease = Lease(tmp_path)
    lease.acquire(version(tmp_path, 1))
    lease.acquire(version(tmp_path, 2))
    taken_for_dead(lease)
    wake(lease)
    assert holders(tmp_path, []) == {"formal@1": [lease.path.name], "formal@2": [lease.path.name]}
    assert living(tmp_path, watch_seconds=0) == {lease.path.name: True}
    lease.close()
    assert claims(tmp_path) == []


def test_threads_that_beat_and_hold_at_once_renew_a_lost_lease_once(tmp_path: Path):
    lease = Lease(tmp_path)
    for _ in range(20):
        taken_for_dead(lease)
        together = threading.Barrier(4)
        threads = [threading.Thread(target=lambda: (together.wait(), lease.beat()), daemon=True) for _ in range(4)]  # noqa: B023
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert living(tmp_path) == {lease.path.name: True}


def test_a_lease_that_wakes_up_after_it_was_watched_counts_and_stays(tmp_path: Path):
    path = lease_of_another_machine(tmp_path)
    found = claims(tmp_path, watch_seconds=0)
    (path / HEARTBEAT).write_text(f"{ELSEWHERE} {2:020}\n")
    assert holders(tmp_path, found) == {"formal@1": [path.name]}
    remove_dead(tmp_path, found)
    assert path.is_dir()


def test_a_version_whose_files_are_gone_cannot_be_acquired(store: Store):
    lease, formal = Lease(store.directory), store.resolve("formal")
    formal.path.rename(store.directory / "elsewhere")
    with pytest.raises(AdapterNotFound, match="formal@1"):
        lease.acquire(formal)
    assert holders(store.directory, []) == {}


def test_an_acquire_waits_while_a_version_may_be_removed(store: Store):
    lease = Lease(store.directory)
    holding = threading.Thread(target=lease.acquire, args=[store.resolve("formal")])
    with store.locked("formal"):
        holding.start()
        holding.join(0.2)
        assert holders(store.directory, []) == {}
    holding.join(30)
    assert holders(store.directory, []) == {"formal@1": [lease.path.name]}


def test_a_store_that_cannot_be_written_is_served_without_a_lease_and_the_log_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Lease, "_begin", refuse)
    lease, formal = Lease(store.directory), store.resolve("formal")
    assert "Read-only file system" in caplog.text
    assert "gc" in caplog.text
    lease.acquire(formal)
    lease.beat()
    lease.release(formal)
    shutil.rmtree(formal.path)
    with pytest.raises(AdapterNotFound):
        lease.acquire(formal)


def test_a_process_that_ends_takes_its_lease_with_it(store: Store):
    program = (
        "from pathlib import Path; from adapters.store.leases import Lease; from adapters.store.store import Store\n"
        f"store = Store(Path({str(store.directory)!r})); Lease(store.directory).acquire(store.resolve('formal'))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert claims(store.directory) == []
