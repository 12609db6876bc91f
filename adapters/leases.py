"""Which versions the servers of a store may have loaded, so that none of them is deleted under a server.

    STORE/.leases/HOST-PID-RANDOM/heartbeat    locked while the server lives; its content changes every few seconds
    STORE/.leases/HOST-PID-RANDOM/formal@3     empty: this server may have formal@3 loaded

vLLM reads an adapter's files again when it likes, and a missing file kills its engine. No clock is compared with
another: on one machine the kernel drops the lock of a process that dies, and a lease of another machine, where locks
may not reach, is dead if its heartbeat does not change while somebody watches. This file does not know who deletes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
WATCH_SECONDS = 30.0
"""Six heartbeats: a busy machine misses one or two."""

LEASES = ".leases"
HEARTBEAT = "heartbeat"


class Lease:
    """This process's claim on versions of the store in `directory`; `close` gives it up.

    Raises:
        OSError: the store cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.path = directory / LEASES / name
        self._beats = 0
        with _locked(directory):
            self.path.mkdir()
            self._heartbeat = os.open(self.path / HEARTBEAT, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._heartbeat, fcntl.LOCK_EX)
            self.beat()

    def beat(self) -> None:
        """To be called every HEARTBEAT_SECONDS."""
        self._beats += 1
        os.pwrite(self._heartbeat, f"{boot_id()} {self._beats:020}\n".encode(), 0)

    def hold(self, version_id: str) -> None:
        """Claim a version. To be called under the store's lock of its name, see Store.held."""
        (self.path / version_id).touch()

    def release(self, version_id: str) -> None:
        (self.path / version_id).unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._heartbeat)


@dataclass(frozen=True)
class Claim:
    """A lease as others see it; `versions` are the ids that it holds."""

    path: Path
    versions: frozenset[str]
    living: bool


def claims(directory: Path, watch_seconds: float = WATCH_SECONDS) -> list[Claim]:
    """Every lease of the store in `directory`. Takes `watch_seconds` if one of another machine may be dead."""
    if not (directory / LEASES).is_dir():
        return []
    with _locked(directory):
        found = sorted(path for path in (directory / LEASES).iterdir() if path.is_dir())
        doubtful = {path: beat for path in found if (beat := _silent_beat(path)) is not None}
    deadline = time.monotonic() + watch_seconds
    dead = {path for path, beat in doubtful.items() if beat.startswith(boot_id().encode()) or not beat}
    watched = set(doubtful) - dead
    while watched and time.monotonic() < deadline:
        time.sleep(min(0.2, watch_seconds))
        watched = {path for path in watched if _read(path) == doubtful[path]}
    return [Claim(path, frozenset(_versions(path)), path not in dead | watched) for path in found]


def remove_dead(directory: Path, dead: Iterable[Claim]) -> None:
    """Remove what is left of servers that have ended; `dead` as `claims` found them."""
    if (directory / LEASES).is_dir():
        with _locked(directory):
            for claim in dead:
                shutil.rmtree(claim.path, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Nobody sees a lease that is not locked yet."""
    (directory / LEASES).mkdir(parents=True, exist_ok=True)
    with (directory / LEASES / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _silent_beat(path: Path) -> bytes | None:
    """The heartbeat's content if nobody is seen to hold its lock, else None."""
    with _opened(path / HEARTBEAT) as descriptor:
        if descriptor is None:
            return b""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return _read(path)


@contextmanager
def _opened(file: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return (path / HEARTBEAT).read_bytes()
    except FileNotFoundError:
        return b""


def _versions(path: Path) -> list[str]:
    try:
        return [name for name in os.listdir(path) if name != HEARTBEAT]
    except FileNotFoundError:
        return []


def boot_id() -> str:
    """The same for all processes on this machine since it started, in containers too."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
