"""Files of emails -> checked examples, and their seeded split.

Reads JSONL or a JSON list, with rows of any of these shapes:

    {"task": "...", "email": "...", "facts": [["14 May", "May 14"]], "previous": [{"task": "...", "email": "..."}],
     "voice": "...", "kind": "...", "thread": "..."}             only the first two are needed
    {"prompt": "...", "completion": "..."}                       both texts, or both lists of messages
    {"messages": [{"role": "user", "content": "..."}, ...]}      one example for every assistant message

This file knows neither tokens nor models.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import DataError
from adapters.prompts import Message, Turn, task_messages

DATA = Path(__file__).parent / "data"
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Example:
    """One training email: the messages that ask for it, the email, and what is known about it.

    `facts` has one entry for each fact that the email must keep: the spellings that count, the task's own first.
    Emails of one `thread` are never split between training and held-out.
    """

    messages: tuple[Message, ...]
    email: str
    facts: tuple[tuple[str, ...], ...] = ()
    voice: str | None = None
    kind: str | None = None
    thread: str | None = None

    @property
    def task(self) -> str:
        return self.messages[-1]["content"]


def task_example(
    task: str,
    email: str,
    facts: Iterable[Iterable[str]] = (),
    voice: str | None = None,
    kind: str | None = None,
    previous: Sequence[Turn] = (),
    thread: str | None = None,
) -> Example:
    messages = tuple(task_messages(task.strip(), previous))
    return Example(messages, email.strip(), tuple(tuple(fact) for fact in facts), voice, kind, thread)


def read_examples(files: Sequence[Path]) -> list[Example]:
    """Every example of the files, in order, exact repeats dropped.

    Raises:
        DataError: a file cannot be read, or rows are bad; every one is listed with its line and reason.
    """
    examples: dict[str, Example] = {}
    problems: list[str] = []
    for file in files:
        for line, row in _rows(file, problems):
            try:
                examples.update((digest([example]), example) for example in _examples(row))
            except ValueError as exc:
                problems.append(f"{file}:{line}: {exc}")
    if problems:
        raise DataError(
            f"{len(problems)} rows cannot be used:", problems, "mend or delete these rows; nothing was trained"
        )
    if not examples:
        raise DataError(
            f"there are no emails in {', '.join(map(str, files))}",
            hint="one JSON object a line, see trainer sft --help",
        )
    return list(examples.values())


def split(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(training, held-out): `fraction` of the examples held out (at least one of ten); the same for the same seed."""
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    held_out = round(len(shuffled) * fraction)
    if fraction > 0 and len(shuffled) >= 10:
        held_out = max(1, held_out)
    held_out = max(0, min(held_out, len(shuffled) - 1))
    return shuffled[held_out:], shuffled[:held_out]


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 of the examples in order, as hex digits: proof of what was trained on that quotes none of it."""
    hasher = hashlib.sha256()
    for example in examples:
        hasher.update(json.dumps([example.messages, example.email], ensure_ascii=False).encode())
    return hasher.hexdigest()


def _rows(file: Path, problems: list[str]) -> list[tuple[int, Any]]:
    """(line number, row) of a file; in a JSON list the number of the row stands for the line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        problems.append(f"{file}: cannot be read ({exc.__class__.__name__}: {exc})")
        return []
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as exc:
            problems.append(f"{file}:{exc.lineno}: not JSON ({exc.msg})")
            return []
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as exc:
                problems.append(f"{file}:{number}: not JSON ({exc.msg})")
    return rows


def _examples(row: Any) -> list[Example]:
    """The examples of one row; ValueError says in words why there are none."""
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a JSON object, not {type(row).__name__}")
    if "task" in row or "email" in row:
        turns = row.get("previous") or []
        if not isinstance(turns, list):
            raise ValueError('"previous" must be a list of {"task", "email"}')
        previous = [(_text(turn, "task"), _text(turn, "email")) for turn in turns]
        voice, kind, thread = (_label(row, key) for key in ("voice", "kind", "thread"))
        return [task_example(_text(row, "task"), _text(row, "email"), _facts(row), voice, kind, previous, thread)]
    if "messages" in row:
        return _conversation(row["messages"])
    if "prompt" in row or "completion" in row:
        if isinstance(row.get("prompt"), list) or isinstance(row.get("completion"), list):
            return _conversation([*_list(row, "prompt"), *_list(row, "completion")])[-1:]
        return [task_example(_text(row, "prompt"), _text(row, "completion"))]
    raise ValueError(
        f"it has none of task/email, prompt/completion and messages, but {', '.join(map(repr, row)) or 'nothing'}"
    )


def _facts(row: dict[str, Any]) -> list[list[str]]:
    """The facts of a row; one that has a single spelling may stand as a text."""
    facts = row.get("facts") or []
    if not isinstance(facts, list):
        raise ValueError('"facts" must be a list with a list of spellings for each fact')
    spelled = [[fact] if isinstance(fact, str) else fact for fact in facts]
    for fact in spelled:
        if not isinstance(fact, list) or not fact or not all(isinstance(text, str) and text.strip() for text in fact):
            raise ValueError(f'"facts" must hold texts or lists of texts that are not empty, got {fact!r}'[:200])
    return spelled


def _label(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f'"{key}" must be a text, got {type(value).__name__}')
    return value


def _conversation(messages: Any) -> list[Example]:
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list with at least one user and one assistant message")
    seen: list[Message] = []
    examples = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError(f"a message needs a role of {', '.join(ROLES)}")
        content = _text(message, "content")
        if message["role"] == "assistant":
            if not seen or seen[-1]["role"] != "user":
                raise ValueError("an assistant message must follow a user message")
            examples.append(Example(tuple(seen), content))
        seen.append({"role": message["role"], "content": content})
    if not examples:
        raise ValueError("it has no assistant message, so there is nothing to learn from")
    return examples


def _text(row: Any, key: str) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{key!r} must be a text that is not empty, got {type(value).__name__ if value != '' else 'an empty text'}"
        )
    return value.strip()


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key!r} must be a list of messages as its counterpart is")
    return value
