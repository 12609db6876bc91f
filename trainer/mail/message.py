"""One RFC 5322 message, as bytes -> what a voice can learn from it: sender, recipients, subject and reply text.

Attachments are never decoded and every text is bounded. Any bytes give a `Mail` or an `UnreadableMail` with a reason.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header
from email.message import Message
from email.utils import getaddresses
from typing import cast

from trainer.mail import reply_text

# Of one message. The rest is an attachment, since mail programs put the text first.
MAX_BYTES = 1024 * 1024
MAX_TEXT_BYTES = 256 * 1024
MAX_HEADER_BYTES = 256 * 1024
MAX_PARTS = 200
# Of one header: 100 recipients take about 5,000.
MAX_HEADER_CHARACTERS = 8_000
# To guess a charset takes a quarter of a second for so many.
GUESSED_BYTES = 16 * 1024

NO_PERSON = re.compile(
    r"(?:mailer-daemon|postmaster|bounces?|(?:do[-_.]?)?(?:not|no)[-_.]?reply|notifications?|newsletter)\b[^@]*@", re.I
)
NOTICE = re.compile(
    r"(?:out of (?:the )?office|automatic reply|auto(?:matic)?[- ]?reply|autoreply|"
    r"abwesenheits\w*|automatische antwort|réponse automatique|respuesta automática|"
    r"risposta automatica|automatisch antwoord|"
    r"undeliver\w+|delivery status notification|mail delivery (?:failed|subsystem)|returned mail|read: |gelesen: |"
    r"(?:accepted|declined|tentative|zugesagt|abgelehnt): )",
    re.I,
)
FORWARD = re.compile(r"\s*(?:fwd?|fw|wg|tr|rv|enc|doorst|vs|vb|i)\s*:", re.I)
ANSWER_PREFIX = re.compile(
    r"\s*(?:(?:re|aw|sv|antw?|odp|ref|rif|res|fwd?|fw|wg|tr|rv|enc)(?:\[\d+\])?\s*[:：]\s*)+", re.I
)
ARCHIVE = re.compile(r"\b(?:zip|7z|rar|gz|gzip|tgz|bz2|xz|tar|x-(?:zip|gzip|tar|7z|rar)\S*)(?:\s|$)", re.IGNORECASE)
MESSAGE_ID = re.compile(r"<([^<>\s]{1,250})>")


class UnreadableMail(ValueError):
    """The bytes are not a message, or cost too much to read; the text gives the reason and quotes nothing."""


@dataclass(frozen=True)
class Mail:
    """`text` is the reply text with closing and name, `quoted` the text that it answers.

    Addresses are in lower case. `automatic` is the reason why no person wrote it, None for a person's mail.
    """

    message_id: str
    sender: str
    sender_name: str
    # (name, address) of To, then Cc, then Bcc.
    recipients: tuple[tuple[str, str], ...]
    # With its `Re:`.
    subject: str
    date: str
    # Message ids of the thread, oldest first, the answered one last.
    references: tuple[str, ...]
    text: str
    quoted: str
    automatic: str | None = None
    forward: bool = False
    encrypted: bool = False
    # X-Gmail-Labels, in lower case.
    labels: frozenset[str] = field(default_factory=frozenset)
    # What was odd about the message, though it could be read.
    notes: tuple[str, ...] = ()
    # The thread's name in a table; messages have `references`.
    thread: str = ""

    @property
    def is_reply(self) -> bool:
        return bool(self.references or self.quoted) and not self.forward


def bare_subject(subject: str) -> str:
    return ANSWER_PREFIX.sub("", subject, count=1).strip()


def parse(raw: bytes) -> Mail:
    """Raises UnreadableMail and nothing else, whatever `raw` holds."""
    try:
        return _mail(raw)
    except UnreadableMail:
        raise
    except RecursionError:
        raise UnreadableMail("its parts are nested too deep") from None
    # The standard library's parser raises a dozen kinds of errors on broken headers and parts, and a message of a
    # stranger must not end the import of ten thousand others.
    except Exception as exc:
        raise UnreadableMail(f"it cannot be parsed ({type(exc).__name__})") from None


def _mail(raw: bytes) -> Mail:
    raw = raw[:MAX_BYTES].lstrip(b"\r\n")
    # Headers that never end would keep the parser busy for minutes.
    if len(raw) > MAX_HEADER_BYTES and not re.search(rb"\r?\n\r?\n", raw[: MAX_HEADER_BYTES + 4]):
        raise UnreadableMail(f"its headers are longer than {MAX_HEADER_BYTES // 1024} KiB")
    # The old policy: `policy.default` parses a header again at each look, 5 of 8 ms of a message, and takes seconds for
    # a hostile list of addresses.
    message = message_from_bytes(raw)
    headers = _headers(message)
    if not headers.keys() & {"from", "to", "subject", "date", "message-id"}:
        raise UnreadableMail("it has none of the headers of an email")
    (sender_name, sender), *_ = [*_addresses(headers, "from"), ("", "")]
    notes: list[str] = []
    subject = " ".join(_decoded(headers, "subject").split())
    written, encrypted = ("", True) if _is_encrypted(message) else (_text(message, notes), False)
    if written.lstrip().startswith("-----BEGIN PGP MESSAGE-----"):
        written, encrypted = "", True
    words = reply_text.read(written, sender_name or sender)
    return Mail(
        message_id="".join(_ids(headers, "message-id")[:1]),
        sender=sender,
        sender_name=sender_name,
        recipients=tuple(one for name in ("to", "cc", "bcc") for one in _addresses(headers, name)),
        subject=subject,
        date=_decoded(headers, "date"),
        references=_references(headers),
        text=words.text,
        quoted=words.quoted,
        automatic=_automatic(message, headers, sender, subject),
        forward=words.forward or bool(FORWARD.match(subject)),
        encrypted=encrypted,
        notes=(*notes, *_archives(message)),
        labels=frozenset(label.strip().lower() for label in _decoded(headers, "x-gmail-labels").split(",")),
    )


def _headers(message: Message) -> dict[str, list[str]]:
    """Raw headers by lower-case name."""
    headers: dict[str, list[str]] = {}
    for name, value in message.raw_items():
        headers.setdefault(name.lower(), []).append(str(value)[:MAX_HEADER_CHARACTERS])
    return headers


def _decoded(headers: dict[str, list[str]], name: str) -> str:
    """The header's first value with RFC 2047 words and stray bytes decoded; "" if there is none."""
    return decoded_header(headers.get(name, [""])[0])


def decoded_header(value: str) -> str:
    value = re.sub(r"\r?\n(?=[ \t])", "", value)
    try:
        pieces = decode_header(value)
    except (MessageError, ValueError):
        pieces = [(value, None)]
    return "".join(
        decoded(_bytes(piece), charset) if isinstance(piece, bytes) or charset else plain(str(piece))
        for piece, charset in pieces
    ).strip()


def plain(value: str) -> str:
    """`value` with the bytes that the parser kept as surrogates decoded."""
    return value if value.isprintable() else decoded(_bytes(value), None)


def _bytes(piece: str | bytes) -> bytes:
    return piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogateescape")


def decoded(data: bytes, charset: str | None) -> str:
    """`data` as text: by its own charset if that fits, else UTF-8, else charset-normalizer's best guess."""
    for name in filter(None, (charset, "utf-8")):
        with contextlib.suppress(LookupError, UnicodeError, ValueError):
            return clean(data.decode(name.strip("'\" ")))
    from charset_normalizer import from_bytes

    guess = from_bytes(data[:GUESSED_BYTES]).best()
    return clean(data.decode(guess.encoding if guess else "cp1252", "replace"))


def clean(text: str) -> str:
    """Without NUL, other control characters and lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").replace("\ufeff", "")
    text = text.encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\u2060]", "", text)


def _addresses(headers: dict[str, list[str]], name: str) -> list[tuple[str, str]]:
    """(name, lower-case address) of every address; names are decoded last, since they may hold commas."""
    found = getaddresses([re.sub(r"\r?\n", "", value) for value in headers.get(name, [])])
    return [(_name(decoded_header(who)), plain(address).strip().lower()) for who, address in found if "@" in address]


def _name(name: str) -> str:
    """A name as people write it: `Berg, Anna` is Anna Berg; empty for an address."""
    name = " ".join(name.strip("'\" ").split())
    if "@" in name:
        return ""
    last, comma, first = name.partition(", ")
    return f"{first} {last}" if comma and "," not in first and len(name.split()) <= 4 else name


def _ids(headers: dict[str, list[str]], name: str) -> list[str]:
    return MESSAGE_ID.findall(plain(" ".join(headers.get(name, []))))


def _references(headers: dict[str, list[str]]) -> tuple[str, ...]:
    answered = _ids(headers, "in-reply-to")[:1]
    return tuple(dict.fromkeys([*(one for one in _ids(headers, "references") if one not in answered), *answered]))


def _is_encrypted(message: Message) -> bool:
    kind = message.get_content_type()
    smime = kind in ("application/pkcs7-mime", "application/x-pkcs7-mime")
    return kind == "multipart/encrypted" or (smime and "signed-data" not in str(message.get("content-type", "")))


def _automatic(message: Message, headers: dict[str, list[str]], sender: str, subject: str) -> str | None:
    """Why no person wrote it (RFC 3834, RFC 2919, RFC 2369, Microsoft's header), None without a sign of that."""

    def value(name: str) -> str:
        return " ".join(headers.get(name, [])).strip().lower()

    kind, report = message.get_content_type(), str(message.get_param("report-type", "")).lower()
    rules = (
        (kind == "multipart/report", "read receipt" if "disposition" in report else "delivery report"),
        (kind == "text/calendar" or _has_calendar(message), "calendar"),
        (value("auto-submitted") not in ("", "no"), "automatic answer"),
        (bool(headers.keys() & {"x-autoreply", "x-autorespond", "x-auto-response-suppress"}), "automatic answer"),
        (value("precedence") in ("bulk", "list", "junk", "auto_reply"), "list or bulk mail"),
        (bool(headers.keys() & {"list-id", "list-unsubscribe"}), "list or bulk mail"),
        (bool(NO_PERSON.match(sender)), "no-reply sender"),
        (bool(NOTICE.match(subject)), "automatic answer"),
    )
    return next((reason for holds, reason in rules if holds), None)


def _has_calendar(message: Message) -> bool:
    """An invitation or its answer, but not an .ics file attached to a person's mail."""
    return any(part.get_content_type() == "text/calendar" and part.get_param("method") for part in _parts(message))


def _parts(message: Message) -> Iterator[Message]:
    """The leaves in order, without attachments."""
    return (part for part in _leaves(message) if part.get_content_disposition() != "attachment")


def _archives(message: Message) -> set[str]:
    named = (f"{part.get_filename() or ''} {part.get_content_subtype()}" for part in _leaves(message))
    return {"an archive is attached; it was not opened" for name in named if ARCHIVE.search(name)}


def _leaves(message: Message) -> Iterator[Message]:
    """Every part without parts, in order; those of an attached message belong to its own writer."""
    waiting, seen = [message], 0
    while waiting and seen < MAX_PARTS:
        part, seen = waiting.pop(), seen + 1
        if part.get_content_maintype() == "message":
            continue
        if part.is_multipart():
            waiting += reversed(cast("list[Message]", part.get_payload()))
        else:
            yield part


def _text(message: Message, notes: list[str]) -> str:
    """The message's text: its plain parts, else its HTML, quotes marked with `>` as in plain mail."""
    parts = list(_parts(message))
    plain_parts = [_content(part, notes) for part in parts if part.get_content_type() == "text/plain"]
    if any(text.strip() for text in plain_parts):
        return "\n".join(plain_parts)
    from trainer.mail import html

    return "\n".join(html.text(_content(part, notes)) for part in parts if part.get_content_type() == "text/html")


def _content(part: Message, notes: list[str]) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    if len(data) > MAX_TEXT_BYTES:
        raise UnreadableMail(f"its text is longer than {MAX_TEXT_BYTES // 1024} KiB")
    charset = part.get_content_charset()
    try:
        text = clean(data.decode(charset or "utf-8"))
    except (LookupError, ValueError):
        text = decoded(data, None)
        notes.append("its text is not in the charset that it names; read as the likeliest other")
    if str(part.get_param("format", "")).lower() == "flowed":
        return unflowed(text, str(part.get_param("delsp", "")).lower() == "yes")
    return text


def unflowed(text: str, delete_space: bool = False) -> str:
    """RFC 3676 paragraphs on one line each: a line that ends with a space continues in the next of its quote depth.

    The signature's delimiter, `-- `, never flows.
    """
    joined: list[tuple[int, str]] = []
    flowing = False
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip(">"))
        content = line[depth:].removeprefix(" ")
        if flowing and joined[-1][0] == depth and content != "-- ":
            joined[-1] = (depth, joined[-1][1] + content)
        else:
            joined.append((depth, content))
        flowing = content.endswith(" ") and content != "-- "
        if flowing and delete_space:
            joined[-1] = (depth, joined[-1][1][:-1])
    return "\n".join(f"{'>' * depth} {content}" if depth else content for depth, content in joined)
