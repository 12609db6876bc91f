"""A table of emails (CSV, TSV, JSON, JSON lines, Parquet) -> its rows as mail.

Columns are found by their usual names or named by the user. A row that is a trainer's example already (`messages`,
`prompt` and `completion`, `task` and `email`) is passed on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from email.utils import getaddresses
from itertools import zip_longest
from pathlib import Path
from typing import Any

from adapters.errors import ConfigError
from trainer.mail import reply_text
from trainer.mail.chat_rows import is_example
from trainer.mail.mailboxes import Advance, MailItem
from trainer.mail.message import MAX_TEXT_BYTES, Mail, UnreadableMail, clean, decoded

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
USUAL: dict[str, tuple[str, ...]] = {
    "body": ("body", "text", "content", "email_body", "message_body", "message", "email", "completion"),
    "subject": ("subject", "subject_line", "title", "betreff"),
    "to": ("to", "recipient", "recipients", "receiver", "to_address"),
    "from": ("from", "sender", "author", "from_address"),
    "date": ("date", "sent", "sent_at", "timestamp", "datetime"),
    "thread": ("thread", "thread_id", "conversation", "conversation_id"),
}
SAMPLE_BYTES = 64 * 1024

TableRow = dict[str, Any]


def read(file: Path, columns: Mapping[str, str], advance: Advance) -> Iterator[MailItem]:
    """Every row of the table; `columns` maps keys of USUAL to the names of this table.

    Raises:
        ConfigError: there is no column for the body, or a named one is missing; the columns found are listed.
    """
    named: dict[str, str] | None = None
    for where, row in _rows(file, advance):
        if isinstance(row, UnreadableMail) or (is_example(row) and not columns):
            yield MailItem(where, row)
        else:
            named = named or _columns(file, row, columns)
            yield MailItem(where, _mail(row, named))


def parse_columns(text: str) -> dict[str, str]:
    """`subject=Betreff,body=Text` as a mapping; ConfigError for another form or an unknown key."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    wrong = [key for key, equals, name in pairs if key.strip() not in USUAL or not equals or not name.strip()]
    if wrong or not pairs:
        hint = f"write body=COLUMN,subject=COLUMN; keys are {', '.join(USUAL)}"
        raise ConfigError(f"--columns {text[:80]!r} cannot be read", hint)
    return {key.strip(): name.strip() for key, _, name in pairs}


def _columns(file: Path, row: TableRow, given: Mapping[str, str]) -> dict[str, str]:
    found = {str(name).strip().lower(): name for name in row if name is not None}
    listed = ", ".join(map(str, found.values())) or "none"
    missing = [name for name in given.values() if name.lower() not in found]
    if missing:
        raise ConfigError(f"{file} has no column {', '.join(missing)}", f"its columns are: {listed}"[:1000])
    columns = {key: found[name.lower()] for key, name in given.items()}
    for key, usual in USUAL.items():
        name = next((one for one in usual if one in found and found[one] not in columns.values()), None)
        if key not in columns and name:
            columns[key] = found[name]
    if "body" not in columns:
        message = f"{file} has no column that is known to hold the emails; its columns are: {listed}"
        raise ConfigError(message[:1000], "name it: --columns body=COLUMN,subject=COLUMN")
    return columns


def _mail(row: TableRow, columns: dict[str, str]) -> Mail | UnreadableMail:
    def value(key: str) -> str:
        given = row.get(columns[key]) if key in columns else None
        text = "; ".join(map(str, given)) if isinstance(given, list) else "" if given is None else str(given)
        return clean(text[: MAX_TEXT_BYTES + 1])

    body = value("body")
    if len(body) > MAX_TEXT_BYTES:
        return UnreadableMail(f"its text is longer than {MAX_TEXT_BYTES // 1024} KiB")
    if "<html" in body[:2000].lower() or body.lstrip().lower().startswith(("<div", "<p>", "<p ", "<body")):
        from trainer.mail import html

        body = html.text(body)
    (sender_name, sender), *_ = [*_people(value("from")), ("", "")]
    words = reply_text.read(body, sender_name or sender)
    return Mail(
        message_id="",
        sender=sender,
        sender_name=sender_name,
        recipients=tuple(_people(value("to"))),
        subject=" ".join(value("subject").split()),
        date=value("date"),
        references=(),
        text=words.text,
        quoted=words.quoted,
        forward=words.forward,
        thread=value("thread"),
    )


def _people(text: str) -> list[tuple[str, str]]:
    """(name, address) of each; a name alone stands for its address too, in lower case."""
    people = getaddresses([text[:8000].replace(";", ",")])
    return [
        (name, address.lower()) if "@" in address else (text.strip(), text.strip().lower())
        for name, address in people
        if address or name
    ]


def _rows(file: Path, advance: Advance) -> Iterator[tuple[str, TableRow | UnreadableMail]]:
    kind = file.suffix.lower()
    if kind == ".parquet":
        yield from _parquet(file, advance)
    elif kind in (".csv", ".tsv"):
        yield from _csv(file, advance)
    elif kind == ".json" and _is_list(file):
        yield from _json_list(file, advance)
    else:
        yield from _json_lines(file, advance)


def _parquet(file: Path, advance: Advance) -> Iterator[tuple[str, TableRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            rows = table.metadata.num_rows or 1
            number = 0
            for batch in table.iter_batches(batch_size=256):
                advance(file.stat().st_size * batch.num_rows // rows)
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
    except pyarrow.ArrowException as exc:
        raise ConfigError(f"{file} is not a Parquet table ({type(exc).__name__})") from None


def _csv(file: Path, advance: Advance) -> Iterator[tuple[str, TableRow | UnreadableMail]]:
    with file.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    encoding = _encoding(sample)
    head = decoded(sample, encoding).split("\n", 1)[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t|", key=head.count)
    csv.field_size_limit(MAX_TEXT_BYTES * 4)
    with file.open(encoding=encoding, errors="replace", newline="") as stream:
        # Not csv.DictReader, which counts neither blank lines nor the header's and loses count after an error.
        reader = csv.reader(_counted(stream, advance), delimiter=delimiter)
        names: list[str] = []
        while True:
            where = f"{file}:{reader.line_num + 1}"
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as exc:
                yield where, UnreadableMail(f"it is not CSV ({exc})")
                continue
            if values and names:
                yield where, dict(zip_longest(names, values[: len(names)]))
            names = names or values


def _counted(lines: Iterable[str], advance: Advance) -> Iterator[str]:
    for line in lines:
        advance(len(line))
        yield line


def _encoding(sample: bytes) -> str:
    try:
        sample.decode()
    except UnicodeDecodeError as exc:
        # The sample may end within a character.
        if exc.start < len(sample) - 3:
            from charset_normalizer import from_bytes

            guess = from_bytes(sample).best()
            return guess.encoding if guess else "cp1252"
    return "utf-8-sig"


def _is_list(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(SAMPLE_BYTES).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")


def _json_list(file: Path, advance: Advance) -> Iterator[tuple[str, TableRow | UnreadableMail]]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig", errors="replace"))
    except (ValueError, RecursionError) as exc:
        hint = "give a list of objects, or one object a line"
        raise ConfigError(f"{file} is not JSON ({type(exc).__name__})", hint) from None
    advance(file.stat().st_size)
    for number, row in enumerate(rows, start=1):
        yield f"{file}, row {number}", _object(row)


def _json_lines(file: Path, advance: Advance) -> Iterator[tuple[str, TableRow | UnreadableMail]]:
    number, begins = 0, True
    with file.open("rb") as stream:
        # A longer line comes in pieces; its first piece is reported as not JSON.
        for piece in iter(lambda: stream.readline(MAX_TEXT_BYTES * 8), b""):
            advance(len(piece))
            number += begins
            if begins and piece.strip():
                yield f"{file}:{number}", _json_row(piece)
            begins = piece.endswith(b"\n")


def _json_row(line: bytes) -> TableRow | UnreadableMail:
    try:
        return _object(json.loads(line.decode("utf-8-sig", "replace")))
    except (ValueError, RecursionError):
        return UnreadableMail("it is not JSON")


def _object(row: Any) -> TableRow | UnreadableMail:
    return row if isinstance(row, dict) else UnreadableMail("it is not a JSON object")
