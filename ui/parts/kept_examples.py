"""Emails kept by hand, one JSONL file a voice, which `trainer sft` reads to train the voice again.

Several pages and processes may keep emails at once; after an error the file is unchanged.
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

# So many kept emails are worth another training.
MINIMUM = 20


@dataclass(frozen=True)
class KeptExample:
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

    def keep(self, voice: str, task: str, email: str, previous: Sequence[Turn] = ()) -> KeptExample:
        """Add the email that answers `task` after the `previous` exchanges, oldest first; durable when this returns.

        Raises:
            ConfigError: `voice` is not a valid name.
            DataError: the email is empty, kept already, or part of the evaluation.
            KeptDamaged: the file cannot be written.
        """
        path = self.path(voice)
        row = _row(voice, task, email, previous)
        _refuse_heldout([earlier for earlier, _ in previous] + [task])
        with self._locked(path):
            before = _read(path)
            lines = _lines(before)
            if any(_content(line) == _content(row) for line in map(_parsed, lines)):
                raise DataError("this email is kept already", hint="change the email, or keep another one")
            name = secrets.token_hex(8)
            line = json.dumps({"id": name, **row}, ensure_ascii=False).encode() + b"\n"
            newline = b"" if before.endswith(b"\n") or not before else b"\n"
            replace(path, before + newline + line, mode=0o600)
            return KeptExample(name, len(lines) + 1, path)

    def undo(self, voice: str, row: str) -> int:
        """Remove the row with the id `row` if it is still there; the number of rows left. Raises KeptDamaged."""
        path = self.path(voice)
        with self._locked(path):
            lines = _lines(_read(path))
            left = [line for line in lines if _parsed(line).get("id") != row]
            if left != lines:
                replace(path, b"".join(left), mode=0o600)
            return len(left)

    def count(self, voice: str) -> int:
        path = self.path(voice)
        with _explained(path):
            return len(_lines(_read(path)))

    def command(self, voice: str, data: Sequence[Path] = (), store: Path | None = None) -> str:
        """The shell command that trains the next version of `voice` with the files `data` and the kept emails."""
        command = ["trainer", "sft"]
        for file in (*data, self.path(voice)):
            command += ["--data", str(file)]
        command += ["--name", voice]
        if store and store != default_store_directory():
            command += ["--store", str(store)]
        return shlex.join(command)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold the lock of the folder, not of the file, which is replaced at each change."""
        with _explained(path):
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


def _read(path: Path) -> bytes:
    """The file's content, empty if there is no file yet; a symbolic link is an OSError."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.splitlines(keepends=True) if line.strip()]


def _parsed(line: bytes) -> dict[str, Any]:
    # A row broken by hand is not one of ours; `trainer sft` reports what is wrong with it.
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as exc:
        raise DataError("the email holds half a character", hint="write or paste it again") from exc
    except OSError as exc:
        raise KeptDamaged(
            f"{path} cannot be read or written: {exc.strerror or exc}",
            "nothing was changed, and the email is still on the page; mend that, or start `ui` with another --kept",
        ) from exc
