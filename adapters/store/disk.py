"""The file system: locks, atomic replacement of a file, fsync, free space, and errors that say what to do.

Locks are the kernel's (flock): they end with the process that holds them, however that dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters.errors import StoreUnwritable

LOCK = ".lock"
# Prefix of a file that will replace another; without a lock on its directory it is left over.
NEW = ".new-"
FULL, READ_ONLY = "make room there", "check its permissions and how it is mounted, or give another --store"
# What to do where the operating system refuses to write.
UNWRITABLE = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: READ_ONLY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.ENOTDIR: "give a directory, or one that can be made",
}


@contextmanager
def locked(directory: Path, reading: bool = False) -> Iterator[None]:
    """Hold the lock of `directory`; `reading` shares it, and continues without a lock file that it cannot open."""
    try:
        lock = (directory / LOCK).open("r" if reading else "w")
    except OSError:
        if not reading:
            raise
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_SH if reading else fcntl.LOCK_EX)
        yield


def is_locked(file: Path) -> bool:
    """Whether a living process holds the lock of `file`. False without a file, True for one that we may not open."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def replace(file: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Make `content` the whole of `file`, durably; after an error the old file is unchanged.

    `mode` is that of a new file, less the umask. A killed process may leave a file whose name begins with NEW.
    """
    new = file.with_name(f"{NEW}{secrets.token_hex(8)}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content.encode() if isinstance(content, str) else content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(new, file)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync(file.parent)


def cache(file: Path, content: str, log: Callable[[str], None]) -> None:
    """Keep `content`, which can be made again. A file that cannot be written is a warning to `log`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, content)
    except OSError as exc:
        log(f"warning: {file} cannot be written ({exc.strerror}): it is made again next time")


def cached(file: Path) -> str | None:
    """What `cache` kept; None if it is missing or cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Turn an OSError of a write below `directory` into StoreUnwritable."""
    try:
        yield
    except OSError as exc:
        # A publish also reads from other directories: their permissions are another error.
        elsewhere = exc.errno in (errno.EACCES, errno.EPERM, errno.ENOTDIR) and not _is_below(exc.filename, directory)
        if exc.errno not in UNWRITABLE or elsewhere:
            raise
        raise StoreUnwritable(
            f"the store {directory} cannot be written: {exc.strerror}", UNWRITABLE[exc.errno]
        ) from exc


def shortage(directory: Path, needed: int) -> str | None:
    """A sentence if the disk of `directory` has fewer than `needed` bytes free, else None."""
    free = shutil.disk_usage(directory).free
    if free >= needed:
        return None
    return f"the disk of {directory} has {free / 1e6:.0f} MB free, and this run needs {needed / 1e6:.0f} MB"


def _is_below(file: object, directory: Path) -> bool:
    """Whether `file`, the filename of an OSError, lies in `directory` or is one of its parents; True if unknown."""
    if not isinstance(file, str | bytes | os.PathLike):
        return True
    path = Path(os.fsdecode(file))
    return path.is_relative_to(directory) or directory.is_relative_to(path)


def sync(path: Path) -> None:
    """Make a file or directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
