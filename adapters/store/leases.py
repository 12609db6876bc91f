"""Which versions the servers of a store may have loaded, so that `adapters gc` deletes none of them.

    STORE/.leases/HOST-PID-RANDOM/heartbeat    locked while the server lives; its content changes every few seconds
    STORE/.leases/HOST-PID-RANDOM/formal@3     empty: this server may have formal@3 loaded

vLLM reads an adapter's files again when it likes, and a missing file kills its engine. No clock is compared with
another: on one machine the kernel drops the lock of a process that dies, and a lease of another machine, where locks
may not reach, is dead if its heartbeat does not change while a process watches it.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterNotFound
from adapters.store.disk import explained, is_locked, locked
from adapters.store.version import Version

HEARTBEAT_SECONDS = 5.0
# Six heartbeats: a busy machine misses one or two.
WATCH_SECONDS = 30.0

LEASES = ".leases"
HEARTBEAT = "heartbeat"

logger = logging.getLogger(__name__)


class Lease:
    """What this server may have loaded from the store in `directory`; for any thread, and every method may block.

    A store that this process cannot write is served without a lease, after a warning.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / LEASES / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._beats = 0
        # Counts, because a version may be loaded again before its unloading is over.
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._heartbeat: int | None = None
        try:
            self._heartbeat = self._begin()
            atexit.register(self.close)
        except OSError as exc:
            logger.warning(
                "the store %s cannot be written (%s): `adapters gc` does not know what this server has loaded, so"
                " retire and collect only versions that no server without a lease uses",
                directory,
                exc.strerror,
            )

    def acquire(self, version: Version) -> None:
        """Keep gc from removing the files of `version` until each `acquire` had its `release`.

        Raises:
            AdapterNotFound: they are gone already.
        """
        home = version.path.parent
        _check_files(version)
        if self._heartbeat is not None:
            # gc decides under this lock what it removes.
            with explained(home.parent), locked(home), self._lock:
                _check_files(version)
                self._renew_if_lost(self._heartbeat)
                (self.path / version.id).touch()
                self._held[version.id] += 1

    def release(self, version: Version) -> None:
        with self._lock:
            self._held[version.id] -= 1
            if self._held[version.id] <= 0:
                del self._held[version.id]
                (self.path / version.id).unlink(missing_ok=True)

    def beat(self) -> None:
        """To be called every HEARTBEAT_SECONDS."""
        with self._lock:
            if self._heartbeat is not None:
                os.pwrite(self._renew_if_lost(self._heartbeat), self._sign_of_life(), 0)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._heartbeat is not None:
            os.close(self._heartbeat)
            self._heartbeat = None

    def _begin(self) -> int:
        """Make the directory; returns the descriptor of the locked heartbeat."""
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

    def _renew_if_lost(self, heartbeat: int) -> int:
        """Another machine takes this one for dead when it has slept, and removes the lease."""
        if os.fstat(heartbeat).st_nlink == 0:
            self._heartbeat = self._begin()
            os.close(heartbeat)
            return self._heartbeat
        return heartbeat

    def _sign_of_life(self) -> bytes:
        self._beats += 1
        return f"{boot_id()} {self._beats:020}\n".encode()


@dataclass(frozen=True)
class Claim:
    """A lease as other processes see it, with the content of its heartbeat."""

    path: Path
    living: bool
    beat: bytes

    @property
    def ended(self) -> bool:
        """Dead, and no heartbeat since."""
        return not self.living and _read(self.path) == self.beat


def claims(directory: Path, watch_seconds: float = WATCH_SECONDS) -> list[Claim]:
    """Every lease of the store in `directory`. Takes `watch_seconds` if one of another machine may be dead."""
    if not (directory / LEASES).is_dir():
        return []
    with locked(directory / LEASES, reading=True):
        found = _leases(directory)
        silent = {path: _read(path) for path in found if not is_locked(path / HEARTBEAT)}
    deadline = time.monotonic() + watch_seconds
    dead = {path for path, beat in silent.items() if beat.startswith(boot_id().encode())}
    watched = set(silent) - dead
    while watched and time.monotonic() < deadline:
        time.sleep(min(0.2, watch_seconds))
        watched = {path for path in watched if _read(path) == silent[path]}
    return [Claim(path, path not in dead | watched, silent.get(path, b"")) for path in found]


def holders(directory: Path, dead: Iterable[Claim]) -> dict[str, list[str]]:
    """The names of the leases that hold a version, by its id; the `dead` do not count.

    Under the store's lock of a name this is complete for its versions.
    """
    ended = {claim.path for claim in dead if claim.ended}
    found: dict[str, list[str]] = {}
    for path in _leases(directory):
        for version_id in _versions(path) if path not in ended else []:
            found.setdefault(version_id, []).append(path.name)
    return found


def remove_dead(directory: Path, dead: Iterable[Claim]) -> None:
    """Remove the leases of servers that have ended; `dead` as `claims` found them."""
    if (directory / LEASES).is_dir():
        with locked(directory / LEASES):
            for claim in filter(lambda claim: claim.ended, dead):
                shutil.rmtree(claim.path, ignore_errors=True)


def _leases(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / LEASES).glob("*") if path.is_dir())


def _check_files(version: Version) -> None:
    if not version.path.is_dir():
        raise AdapterNotFound(f"the files of {version.id} are gone")


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
    """The same for all processes on this machine from its start to its end, in containers too."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
