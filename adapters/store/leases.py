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
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adapters.store.disk import is_locked, locked

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
        self._held: set[str] = set()
        # A server beats in one thread and holds in others.
        self._renewing = threading.Lock()
        self._heartbeat = self._begin()

    def beat(self) -> None:
        """To be called every HEARTBEAT_SECONDS."""
        self._renew_if_lost()
        os.pwrite(self._heartbeat, self._sign_of_life(), 0)

    def hold(self, version_id: str) -> None:
        """Claim a version. To be called under the store's lock of its name, see Store.hold."""
        self._renew_if_lost()
        (self.path / version_id).touch()
        self._held.add(version_id)

    def release(self, version_id: str) -> None:
        self._held.discard(version_id)
        (self.path / version_id).unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._heartbeat)
        self._heartbeat = -1

    def _begin(self) -> int:
        """Make the directory; the descriptor of the locked heartbeat."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent):
            self.path.mkdir(exist_ok=True)
            heartbeat = os.open(self.path / HEARTBEAT, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(heartbeat, fcntl.LOCK_EX)
                os.pwrite(heartbeat, self._sign_of_life(), 0)
                for version_id in self._held:
                    (self.path / version_id).touch()
            except OSError:
                os.close(heartbeat)
                shutil.rmtree(self.path, ignore_errors=True)
                raise
        return heartbeat

    def _renew_if_lost(self) -> None:
        """Another machine takes this one for dead when it has slept, and removes the lease."""
        with self._renewing:
            if os.fstat(self._heartbeat).st_nlink == 0:
                lost, self._heartbeat = self._heartbeat, self._begin()
                os.close(lost)

    def _sign_of_life(self) -> bytes:
        self._beats += 1
        return f"{boot_id()} {self._beats:020}\n".encode()


@dataclass(frozen=True)
class Claim:
    """A lease as others see it; `beat` is what its heartbeat was."""

    path: Path
    living: bool
    beat: bytes

    @property
    def ended(self) -> bool:
        """Dead, and not waking up meanwhile."""
        return not self.living and _read(self.path) == self.beat


def claims(directory: Path, watch_seconds: float = WATCH_SECONDS) -> list[Claim]:
    """Every lease of the store in `directory`. Takes `watch_seconds` if one of another machine may be dead."""
    if not (directory / LEASES).is_dir():
        return []
    with locked(directory / LEASES, reading=True):
        found = sorted(path for path in (directory / LEASES).iterdir() if path.is_dir())
        silent = {path: beat for path in found if (beat := _silent_beat(path)) is not None}
    deadline = time.monotonic() + watch_seconds
    dead = {path for path, beat in silent.items() if beat.startswith(boot_id().encode())}
    watched = set(silent) - dead
    while watched and time.monotonic() < deadline:
        time.sleep(min(0.2, watch_seconds))
        watched = {path for path in watched if _read(path) == silent[path]}
    return [Claim(path, path not in dead | watched, silent.get(path, b"")) for path in found]


def holders(directory: Path, dead: Iterable[Claim]) -> dict[str, list[str]]:
    """The names of the leases that hold a version, by its id, as they are now; the `dead` do not count.

    Under the store's lock of a name this is the whole truth about its versions.
    """
    ended = {claim.path for claim in dead if claim.ended}
    found: dict[str, list[str]] = {}
    if (directory / LEASES).is_dir():
        for path in sorted((directory / LEASES).iterdir()):
            for version_id in _versions(path) if path not in ended else []:
                found.setdefault(version_id, []).append(path.name)
    return found


def remove_dead(directory: Path, dead: Iterable[Claim]) -> None:
    """Remove what is left of servers that have ended; `dead` as `claims` found them."""
    if (directory / LEASES).is_dir():
        with locked(directory / LEASES):
            for claim in filter(lambda claim: claim.ended, dead):
                shutil.rmtree(claim.path, ignore_errors=True)


def _silent_beat(path: Path) -> bytes | None:
    """The heartbeat's content if nobody is seen to hold its lock, else None."""
    return None if is_locked(path / HEARTBEAT) else _read(path)


def _read(path: Path) -> bytes:
    try:
        return (path / HEARTBEAT).read_bytes()
    except FileNotFoundError:
        return b""


def _versions(path: Path) -> list[str]:
    try:
        return [name for name in os.listdir(path) if name != HEARTBEAT]
    except (FileNotFoundError, NotADirectoryError):
        return []


def boot_id() -> str:
    """The same for all processes on this machine since it started, in containers too."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
