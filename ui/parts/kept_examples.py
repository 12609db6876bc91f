"""Emails kept by hand, one JSONL file a voice, to train the voice again with. This file knows no page and no model.

`trainer sft` reads the files as they are. Several pages and processes may keep at once; whatever fails leaves the file
as it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.emails.prompts import Turn
from adapters.emails.tasks import normalise, shipped_tasks
from adapters.errors import DataError, KeptDamaged
from adapters.settings import default_store_directory
from adapters.store.disk import replace
from adapters.store.manifest import check_name

MINIMUM = 20
"""Kept emails from which on training again is worth it."""


@dataclass(frozen=True)
class Kept:
    """A row just kept: `id` undoes it, `count` is the number of rows in `path` now."""

    id: str
    count: int
    path: Path


class KeptExamples:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, voice: str) -> Path:
        """Raises ConfigError for what cannot be a voice's name, such as a path."""
        return self.directory / f"{check_name(voice)}.jsonl"

    def keep(self, voice: str, task: str, email: str, previous: Sequence[Turn] = ()) -> Kept:
        """Add the email that answers `task` after the `previous` exchanges, oldest first; on disk when this returns.

        Raises:
            ConfigError: no name of a voice.
            DataError: an email that must not be kept: empty, kept before, or one that evaluation measures with.
            KeptDamaged: the file cannot be written.
        """
        path = self.path(voice)
        row = _row(voice, task, email, previous)
        _refuse_heldout([earlier for earlier, _ in previous] + [task])
        with self._locked(path):
            lines = _lines(path)
            if any(_content(line) == _content(row) for line in map(_parsed, lines)):
                raise DataError("this email is kept already", hint="change the email, or keep another one")
            name = secrets.token_hex(8)
            line = json.dumps({"id": name, **row}, ensure_ascii=False).encode() + b"\n"
            _append(path, line, after_newline=not lines or lines[-1].endswith(b"\n"))
            return Kept(name, len(lines) + 1, path)

    def undo(self, voice: str, row: str) -> int:
        """Remove the row that `keep` called `row`, if it is still there, and no other; the number of rows then.

        Raises:
            KeptDamaged: the file cannot be written.
        """
        path = self.path(voice)
        with self._locked(path):
            lines = _lines(path)
            left = [line for line in lines if _parsed(line).get("id") != row]
            if left != lines:
                replace(path, b"".join(left), mode=0o600)
            return len(left)

    def count(self, voice: str) -> int:
        path = self.path(voice)
        with _in_words(path):
            return len(_lines(path))

    def command(self, voice: str, data: Sequence[Path] = (), store: Path | None = None) -> str:
        """The shell line that makes the next version of `voice` from the files `data` and the kept emails."""
        command = ["trainer", "sft"]
        for file in (*data, self.path(voice)):
            command += ["--data", str(file)]
        command += ["--name", voice]
        if store and store != default_store_directory():
            command += ["--store", str(store)]
        return shlex.join(command)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """One at a time in this folder, in all processes: the lock is on the folder, since undo replaces the file."""
        with _in_words(path):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                yield
                os.fsync(folder)
            finally:
                os.close(folder)


def _row(voice: str, task: str, email: str, previous: Sequence[Turn]) -> dict[str, Any]:
    task, email = task.strip(), email.strip()
    for name, text in (("task", task), ("email", email)):
        if not text:
            raise DataError(f"the {name} is empty", hint=f"there is nothing to learn from an empty {name}")
    row = {"voice": voice, "task": task, "email": email}
    turns = [{"task": earlier.strip(), "email": answer.strip()} for earlier, answer in previous]
    return {**row, "previous": turns} if turns else row


def _refuse_heldout(tasks: Sequence[str]) -> None:
    measured = {normalise(text) for task in shipped_tasks() for text in (task.task, *(t for t, _ in task.previous))}
    if not measured.isdisjoint(normalise(task) for task in tasks):
        raise DataError(
            "this is one of the tasks that `trainer evaluate` measures with, so no voice may learn from it",
            hint="keep emails for tasks of your own",
        )


def _content(row: dict[str, Any]) -> tuple[Any, ...]:
    return row.get("task"), row.get("email"), row.get("previous") or []


def _lines(path: Path) -> list[bytes]:
    """The rows of the file as they are, each with its newline; none if there is no file yet. No link is followed."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return [line for line in file if line.strip()]
    except FileNotFoundError:
        return []


def _parsed(line: bytes) -> dict[str, Any]:
    """A row that somebody broke by hand counts as one that we did not write; `trainer sft` says what is wrong."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _append(path: Path, line: bytes, after_newline: bool) -> None:
    """All of the line or nothing: what a full disk took of it is cut off again."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(file).st_size
        try:
            text = line if after_newline else b"\n" + line
            while text:
                text = text[os.write(file, text) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as exc:
        raise DataError("the email holds half a character", hint="write or paste it again") from exc
    except OSError as exc:
        raise KeptDamaged(
            f"{path} cannot be read or written: {exc.strerror or exc}",
            "nothing was changed, and the email is still on the page; mend that, or start `ui` with another --kept",
        ) from exc
