"""A mailbox on disk -> its messages, one after the other: mbox, Maildir, .eml, and folders of these.

A mailbox of gigabytes streams: only one message, cut at MAX_BYTES, is in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainer.mail.message import MAX_BYTES, Mail, UnreadableMail, parse

CHUNK = 64 * 1024
# Only this at the beginning of a line, after an empty one, starts a message (RFC 4155): "From " alone is also a word.
FROM_LINE = re.compile(rb"From \S.*?[A-Z][a-z]{2} +[A-Z][a-z]{2} +\d{1,2} +\d{1,2}:\d\d")
ESCAPED_FROM = re.compile(rb">+From ")
SENT = re.compile(
    r"\b(?:sent|gesendet\w*|postausgang|envoy\w+|enviad\w+|inviat\w+|posta inviata|verzonden|skickat)\b", re.I
)

# Called with the bytes that were read since the last call.
Advance = Callable[[int], Any]


@dataclass(frozen=True)
class MailItem:
    """One message of a mailbox, or one row of a table."""

    # File, and which message or line of it.
    where: str
    # A dict is a row that is an example already.
    item: Mail | dict[str, Any] | UnreadableMail
    # By the name of its folder or label.
    sent: bool = False


def read(path: Path, advance: Advance) -> Iterator[MailItem]:
    """Every message at `path`: a folder, an mbox file or one .eml."""
    for file in mail_files(path):
        sent = bool(SENT.search(" ".join(re.split(r"[/._-]", str(file.relative_to(path.parent))))))
        try:
            yield from _mbox(file, sent, advance) if is_mbox(file) else [_eml(file, sent, advance)]
        except OSError as exc:
            yield MailItem(str(file), UnreadableMail(f"it cannot be read ({exc.strerror or type(exc).__name__})"), sent)


def mail_files(path: Path) -> list[Path]:
    """The files of messages below a folder, sorted; only plain files."""
    if not path.is_dir():
        return [path]
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    return sorted(file for file in files if _holds_mail(file) and file.is_file() and not file.is_symlink())


def _holds_mail(file: Path) -> bool:
    in_maildir = file.parent.name in ("cur", "new") and not file.name.startswith(".")
    return in_maildir or file.suffix.lower() in (".eml", ".mbox", ".mbx") or file.name == "mbox"


def is_mbox(file: Path) -> bool:
    with file.open("rb") as stream:
        return bool(FROM_LINE.match(stream.read(1000).lstrip(b"\r\n\xef\xbb\xbf")))


def _eml(file: Path, sent: bool, advance: Advance) -> MailItem:
    with file.open("rb") as stream:
        raw = stream.read(MAX_BYTES)
    advance(file.stat().st_size)
    return _found(str(file), raw, sent)


def _mbox(file: Path, sent: bool, advance: Advance) -> Iterator[MailItem]:
    with file.open("rb") as stream:
        for number, (raw, size) in enumerate(mbox_messages(stream), start=1):
            advance(size)
            yield _found(f"{file}, message {number}", raw, sent)


def _found(where: str, raw: bytes, sent: bool) -> MailItem:
    try:
        mail = parse(raw)
    except UnreadableMail as exc:
        return MailItem(where, exc, sent)
    return MailItem(where, mail, sent or any(SENT.search(label) for label in mail.labels))


def mbox_messages(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """(message cut at MAX_BYTES, its bytes in the mailbox) of an mbox; `>From ` is unquoted, as in mboxrd."""
    kept: list[bytes] = []
    length = size = 0
    line_starts = blank_before = True
    while line := stream.readline(CHUNK):
        if line_starts and blank_before and line.startswith(b"From ") and FROM_LINE.match(line):
            if size:
                yield b"".join(kept), size
            kept, length, size = [], 0, len(line)
        else:
            size += len(line)
            if length < MAX_BYTES:
                kept.append(line[1:] if line_starts and ESCAPED_FROM.match(line) else line)
                length += len(line)
        blank_before = line_starts and line in (b"\n", b"\r\n")
        line_starts = line.endswith(b"\n")
    if size:
        yield b"".join(kept), size
