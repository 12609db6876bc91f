"""The audit log of a store: when, who did what, to which version, of which content.

    STORE/audit.jsonl    one JSON object a line, the oldest first; readable by its user only

    {"time": "2026-11-30T09:15:02.114Z", "who": "user kim", "what": "promote", "adapter": "formal@2",
     "digest": "0123456789ab", "percent": 10}

Names, versions, digests and fixed words only: never a prompt, an answer, an API key or other text of a caller. An entry
is written once what it is about is done: none is about what did not happen, and what is killed in between has none. It
is not forced to the disk, a power cut may take the last ones. The log only grows; it is opened anew for each entry, so
that `mv` rotates it at any time, for example to audit.jsonl.1. This file does not know which commands there are, nor
who may give them.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.errors import ConfigError, StoreDamaged
from adapters.store.version import Version

LOG = "audit.jsonl"
FIELDS = ("time", "who", "what", "adapter", "digest")

Entry = dict[str, Any]
"""A line of the log; `{"damaged_line": 7}` for one that a crash or a full disk cut, or that somebody else wrote."""

logger = logging.getLogger(__name__)
_acting: ContextVar[str | None] = ContextVar("acting", default=None)


@contextmanager
def acting_as(who: str) -> Iterator[None]:
    """Have the entries within say `who` did it, for example `key phone`, not the user of the operating system.

    asyncio's tasks and asyncio.to_thread take it along; a plain thread or executor does not.
    """
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


class Audit:
    """The log of the store in `directory`, which need not exist."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / LOG

    def record(self, what: str, version: Version | str | None = None, **details: str | int | bool | None) -> None:
        """Append an entry about something that is done; `version` is that, or only a name.

        `details` become fields beside the others, without those that are None. Any number of processes may do so at
        once. Takes some 60 microseconds.

        Raises nothing if it cannot be written, which undoes nothing: that is a warning.
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
        """The `last` entries, the newest at the end; of one `adapter`: those of `formal@2`, or all of `formal`.

        A damaged line is always one of them, since nobody knows what it was about.

        Raises:
            ConfigError: `last` is below 1.
            StoreDamaged: the log cannot be read.
        """
        if last < 1:
            raise ConfigError(f"{last} entries cannot be shown", "give 1 or more")
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
            # An entry that a full disk cut has no end; readers skip the empty line if two see to it at once.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            # One write, which other processes' appends come before or after.
            if os.write(descriptor, line) < len(line):
                raise OSError("the entry was cut")
        finally:
            os.close(descriptor)


def table(entries: Sequence[Entry]) -> list[str]:
    """A line for each entry, in columns."""
    rows = [[_shown(entry.get(field, "")) for field in FIELDS] for entry in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(entry, row, widths) for entry, row in zip(entries, rows, strict=True)]


def _line(entry: Entry, row: list[str], widths: list[int]) -> str:
    if "damaged_line" in entry:
        return f"line {entry['damaged_line']} is damaged"
    columns = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
    details = {key: value for key, value in entry.items() if key not in FIELDS and value is not False}
    said = [_shown(key if value is True else f"{key} {value}") for key, value in details.items()]
    return "  ".join([*columns, ", ".join(said)]).rstrip()


def _shown(value: object) -> str:
    """Without what would steer a terminal or forge a line: people choose the names of their keys."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def _entry(number: int, line: bytes) -> Entry:
    try:
        entry = json.loads(line)
        whole = all(isinstance(entry[field], str) for field in ("time", "who", "what"))
    except (ValueError, TypeError, LookupError, RecursionError):
        whole = False
    return entry if whole else {"damaged_line": number}


def _is_about(entry: Entry, adapter: str | None) -> bool:
    said = str(entry.get("adapter", ""))
    return adapter is None or "damaged_line" in entry or said == adapter or said.startswith(f"{adapter}@")


def _user() -> str:
    """The process's own, whatever LOGNAME says."""
    try:
        return f"user {pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container may run as any number
        return f"user {os.getuid()}"
