"""The audit log of a store: when, who did what, to which version, of which content.

    STORE/audit.jsonl    one JSON object a line, the oldest first; readable by its user only

    {"time": "2026-11-30T09:15:02.114Z", "who": "user kim", "what": "promote", "adapter": "formal@2",
     "digest": "0123456789ab", "percent": 10}

Names, versions, digests and fixed words only: never a prompt, an answer, an API key or other text of a caller. An entry
is written after the change, so a process killed in between leaves none. Entries are not fsynced: a power cut may lose
the last ones. The log only grows. It is opened for each entry, so `mv` rotates it at any time, for example to
audit.jsonl.1.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.errors import ConfigError, StoreDamaged
from adapters.store.version import Version

LOG = "audit.jsonl"
FIELDS = ("time", "who", "what", "adapter", "digest")

# A line of the log, or `{"damaged_line": 7}` for one that a crash or a full disk cut short.
Entry = dict[str, Any]

logger = logging.getLogger(__name__)
_acting: ContextVar[str | None] = ContextVar("acting", default=None)


@contextmanager
def acting_as(who: str) -> Iterator[None]:
    """Record entries as done by `who`, for example `key phone`, instead of the user of the operating system.

    asyncio tasks and asyncio.to_thread inherit it; a plain thread or executor does not.
    """
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


class Audit:
    def __init__(self, directory: Path) -> None:
        self.file = directory / LOG

    def record(self, what: str, version: Version | str | None = None, **details: str | int | bool | None) -> None:
        """Append an entry about a finished change of a version, or of a name; None drops a detail. Takes 60 µs.

        A log that cannot be written is a warning: the change stays.
        """
        adapter, digest = (version, None) if isinstance(version, str | None) else (version.id, version.digest)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = dict(zip(FIELDS, (now, _acting.get() or _user(), what, adapter, digest), strict=True))
        entry = {key: value for key, value in (fields | details).items() if value is not None}
        try:
            self._append(json.dumps(entry).encode() + b"\n")
        except OSError as exc:
            done = f"{what} of {adapter}" if adapter else what
            logger.warning("%s is done, but not in the audit log %s: %s", done, self.file, exc.strerror or exc)

    def entries(self, last: int, adapter: str | None = None) -> list[Entry]:
        """The `last` entries, the newest at the end, of all adapters, of `formal@2`, or of every version of `formal`.

        Damaged lines are always included: they may be about any adapter.

        Raises:
            ConfigError: `last` is below 1.
            StoreDamaged: the log cannot be read.
        """
        if last < 1:
            raise ConfigError(f"--last must be 1 or more, got {last}")
        try:
            with self.file.open("rb") as lines:
                found = (_entry(number, line) for number, line in enumerate(lines, start=1) if line.strip())
                return list(deque((entry for entry in found if _is_about(entry, adapter)), maxlen=last))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise StoreDamaged(f"{self.file} cannot be read: {exc.strerror}", "its owner may read it") from exc

    def _append(self, line: bytes) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            # A full disk may have cut the entry before. Two processes may both add a newline: readers skip empty lines.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            # One write, so that the entries of two processes never mix.
            if os.write(descriptor, line) < len(line):
                raise OSError("the entry was cut")
        finally:
            os.close(descriptor)


def cells(entry: Entry) -> list[str]:
    """A row of `adapters audit`: FIELDS, then the details."""
    if "damaged_line" in entry:
        return [f"line {entry['damaged_line']} is damaged", *[""] * len(FIELDS)]
    details = {key: value for key, value in entry.items() if key not in FIELDS and value is not False}
    row = [*(entry.get(field, "") for field in FIELDS)]
    row.append(", ".join(key if value is True else f"{key} {value}" for key, value in details.items()))
    # People choose the names of their keys: no name may steer a terminal or forge a line.
    return ["".join(character if character.isprintable() else "?" for character in str(cell)) for cell in row]


def _entry(number: int, line: bytes) -> Entry:
    try:
        entry = json.loads(line)
        whole = all(isinstance(entry[field], str) for field in ("time", "who", "what"))
    except (ValueError, TypeError, LookupError, RecursionError):
        whole = False
    return entry if whole else {"damaged_line": number}


def _is_about(entry: Entry, adapter: str | None) -> bool:
    about = str(entry.get("adapter", ""))
    return adapter is None or "damaged_line" in entry or about == adapter or about.startswith(f"{adapter}@")


def _user() -> str:
    # By the process, not by LOGNAME, which anybody can set.
    try:
        return f"user {pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container may run as any number
        return f"user {os.getuid()}"
