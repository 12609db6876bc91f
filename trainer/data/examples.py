"""Files of emails -> checked examples, and their seeded split.

Reads JSONL or a JSON list, with rows of any of these shapes:

    {"task": "...", "email": "...", "facts": [["14 May", "May 14"]], "previous": [{"task": "...", "email": "..."}],
     "voice": "...", "kind": "...", "thread": "..."}             only the first two are needed
    {"prompt": "...", "completion": "..."}                       both texts, or both lists of messages
    {"messages": [{"role": "user", "content": "..."}, ...]}      one example for every assistant message
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.emails.prompts import SYSTEM_ROLES, Message, Turn, instructed, task_messages
from adapters.errors import ConfigError, DataError
from adapters.store import disk
from trainer.text.duplicates import clusters, merged

DATA = Path(__file__).parent / "shipped"
# The emails of the shipped voices, as NAME.jsonl.
SHIPPED_EMAILS = DATA / "voices"
ROLES = ("system", "user", "assistant")
# Shorter requests ("Shorter, please.") stand in many conversations that have nothing else in common.
LONG_REQUEST_WORDS = 8


@dataclass(frozen=True)
class Example:
    """One training email: the messages that ask for it, the email, and labels.

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

    @property
    def turns(self) -> list[Message]:
        """The messages without an instruction: requests, and the emails that answered the earlier ones."""
        return [message for message in self.messages if message["role"] not in SYSTEM_ROLES]

    def instructed(self, instruction: str) -> Example:
        return replace(self, messages=tuple(instructed(self.messages, instruction)))


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


@dataclass(frozen=True)
class PlacedExample:
    """One example and its place; in a JSON list `line` is the number of the row."""

    file: Path
    line: int
    example: Example
    # The row as it was read; several examples of one conversation share it.
    raw: Any = None


@dataclass(frozen=True)
class Problem:
    """A row that cannot be used, or with `line` 0 a whole file; `reason` quotes only names of fields."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


def read_rows(files: Sequence[Path]) -> tuple[list[PlacedExample], list[Problem]]:
    """Every example of the files with its place, in order, repeats too, and every row that cannot be used."""
    rows: list[PlacedExample] = []
    problems: list[Problem] = []
    for file in files:
        for line, row in _rows(file, problems):
            try:
                rows += [PlacedExample(file, line, example, row) for example in examples_of(row)]
            except ValueError as exc:
                problems.append(Problem(file, line, str(exc)))
    return rows, problems


def read_examples(files: Sequence[Path]) -> list[Example]:
    """Every example of the files, in order, exact repeats dropped.

    Raises:
        DataError: a file cannot be read, or rows are bad; every one is listed with its line and reason.
    """
    rows, problems = read_rows(files)
    if problems:
        hint = "mend or delete these rows; nothing was trained"
        raise DataError(f"{len(problems)} rows cannot be used:", list(map(str, problems)), hint)
    if not rows:
        names = ", ".join(map(str, files))
        raise DataError(f"there are no emails in {names}", hint="one JSON object a line, see trainer sft --help")
    return list({digest([row.example]): row.example for row in rows}.values())


def split(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(training, held-out), the same for the same seed; groups stay together.

    About `fraction` of the examples are held out, in whole groups as they fit; of ten examples or more at least one
    group, unless the smallest is more than half of them.
    """
    shuffled = groups(examples)
    random.Random(seed).shuffle(shuffled)
    at_least = 1 if fraction > 0 and len(examples) >= 10 else 0
    wanted = max(0, min(max(at_least, round(len(examples) * fraction)), len(examples) - 1))
    heldout: list[int] = []
    for group in shuffled:
        if len(heldout) + len(group) <= wanted:
            heldout += group
    if wanted and not heldout:
        smallest = min(shuffled, key=len)
        heldout = smallest if 2 * len(smallest) <= len(examples) else []
    chosen = set(heldout)
    train = [index for group in shuffled for index in group if index not in chosen]
    return [examples[index] for index in train], [examples[index] for index in heldout]


def groups(examples: Sequence[Example]) -> list[list[int]]:
    """Indices of examples that belong together: of one thread, or with nearly the same email or long request.

    A held-out email with a twin in training would measure memory.
    """
    threads: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        if example.thread is not None:
            threads.setdefault(example.thread, []).append(index)
    emails = clusters([example.email for example in examples])
    together = merged(len(examples), [*threads.values(), *emails, *same_requests(examples)])
    alone = set(range(len(examples))).difference(*together)
    return sorted([*together, *([index] for index in alone)])


def same_requests(examples: Sequence[Example]) -> list[list[int]]:
    """Indices of examples with nearly the same request, earlier turns included, each list sorted."""
    requests = ["\n".join(message["content"] for message in example.turns) for example in examples]
    long = [index for index, request in enumerate(requests) if len(request.split()) >= LONG_REQUEST_WORDS]
    return [[long[at] for at in cluster] for cluster in clusters([requests[index] for index in long])]


def row_of(example: Example) -> dict[str, Any]:
    """A row that `read_rows` reads as `example`."""
    *earlier, asked = example.messages
    if [message["role"] for message in earlier] != ["user", "assistant"] * (len(earlier) // 2):
        return {"prompt": list(example.messages), "completion": [{"role": "assistant", "content": example.email}]}
    turns = zip(earlier[::2], earlier[1::2], strict=True)
    row = {
        "task": asked["content"],
        "email": example.email,
        "facts": [list(fact) for fact in example.facts],
        "previous": [{"task": task["content"], "email": email["content"]} for task, email in turns],
        "voice": example.voice,
        "kind": example.kind,
        "thread": example.thread,
    }
    return {key: value for key, value in row.items() if value}


def write_rows(rows: Iterable[dict[str, Any]], file: Path) -> None:
    """JSON lines that only the user may read, in place of `file` at once: a crash leaves the old file or none.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        disk.replace(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), mode=0o600)
    except OSError as exc:
        raise ConfigError(f"{file} cannot be written ({exc.strerror})", "name a file in a folder of yours") from exc


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 of the examples in order, as hex digits."""
    hasher = hashlib.sha256()
    for example in examples:
        hasher.update(json.dumps([example.messages, example.email], ensure_ascii=False).encode())
    return hasher.hexdigest()


def _rows(file: Path, problems: list[Problem]) -> list[tuple[int, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        problems.append(Problem(file, 0, f"cannot be read ({exc.__class__.__name__}: {exc})"))
        return []
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), start=1))
        except (ValueError, RecursionError) as exc:
            problems.append(Problem(file, getattr(exc, "lineno", 0), f"not JSON ({_why(exc)})"))
            return []
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except (ValueError, RecursionError) as exc:
                problems.append(Problem(file, number, f"not JSON ({_why(exc)})"))
    return rows


def _why(error: ValueError | RecursionError) -> str:
    # The other errors: a number of thousands of digits, or brackets a thousand deep.
    return error.msg if isinstance(error, json.JSONDecodeError) else f"it is beyond what is read: {error}"


def examples_of(row: Any) -> list[Example]:
    """The examples of one row; ValueError has the reason if there are none."""
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
    """The facts of a row; a fact with one spelling may be a text."""
    facts = row.get("facts") or []
    if not isinstance(facts, list):
        raise ValueError('"facts" must be a list with a list of spellings for each fact')
    spelled = [[fact] if isinstance(fact, str) else fact for fact in facts]
    for fact in spelled:
        if not isinstance(fact, list) or not fact or not all(isinstance(text, str) and text.strip() for text in fact):
            raise ValueError(f'"facts" must hold texts or lists of texts that are not empty, got {type(fact).__name__}')
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
        given = "an empty text" if value == "" else type(value).__name__
        raise ValueError(f"{key!r} must be a text that is not empty, got {given}")
    if re.search("[\ud800-\udfff]", value):
        raise ValueError(f"{key!r} has half a character (a lone surrogate), which no file and no tokenizer can hold")
    return value.strip()


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key!r} must be a list of messages as its counterpart is")
    return value
