"""Mail for tests, invented, as real mail programs write it: a whole mailbox of Bob's, and messages made to do harm."""

import base64
import io
import zipfile
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path

BOB = "Bob Smith <bob@smith.example>"
NAMES = ("Anna Berg", "Kofi Mensah", "Ines Duarte", "Jonas Lind", "Mei Tanaka")
SIGNATURE = "\n-- \nBob Smith\nHead of Boats | Harbour Ltd\n+44 20 7946 0011\nwww.harbour.example\n"


def message(body: str = "", sender: str = BOB, to: str = "Anna Berg <anna@berg.example>", **headers: str) -> bytes:
    """A message of plain text; `In_Reply_To="<a@b>"` is the header In-Reply-To."""
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, to
    for name, value in {"Date": "Mon, 03 Mar 2025 10:12:00 +0000", **headers}.items():
        mail[name.replace("_", "-")] = value
    mail.set_content(body)
    return mail.as_bytes()


def raw(body: str | bytes, *headers: str) -> bytes:
    """A message as it is written here, headers first."""
    given = "\n".join(["From: Bob Smith <bob@smith.example>", "To: Anna Berg <anna@berg.example>", *headers])
    return given.encode() + b"\n\n" + (body if isinstance(body, bytes) else body.encode())


def mbox(directory: Path, messages: Sequence[bytes], name: str = "All.mbox") -> Path:
    """An mbox file, `From ` quoted as mboxrd does."""
    lines = []
    for one in messages:
        lines.append(b"From bob@smith.example Mon Mar  3 10:12:33 2025")
        lines += [b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in one.split(b"\n")]
        lines.append(b"")
    (directory / name).write_bytes(b"\n".join(lines))
    return directory / name


ROUND = 20
"""Messages that `conversation_round` makes."""
USED = 11
REPLIES = 5
LEFT_OUT = {
    "not by me": 4,
    "automatic: list or bulk mail": 1,
    "automatic: automatic answer": 1,
    "forward without own words": 1,
    "empty after quotes and signature": 1,
    "encrypted": 1,
}


def conversation_round(number: int) -> Iterator[bytes]:
    """20 messages of Bob's mailbox; `number` makes them differ from those of every other round."""
    yield from _answered(number)
    yield from _written(number)
    yield from _odd(number)
    yield from _not_examples(number)


def whole_mailbox(messages: int) -> list[bytes]:
    return [one for number in range(messages // ROUND) for one in conversation_round(number)]


def _answered(number: int) -> Iterator[bytes]:
    """Four questions to Bob and his answers, which quote as four mail programs do."""
    name = NAMES[number % 5]
    first, address = name.split()[0], f"{name.split()[0].lower()}{number}@mail.example"
    question = f"Hi Bob,\n\nhow many oars does boat {number + 100} need?\n\nThanks\n{first}"
    answer = f"Hi {first},\n\nIt needs {number % 50 + 4} oars, and Pavel Marsh brings them on 14 May.\n\nBest,\nBob\n"
    marked = "\n".join(f"> {line}".rstrip() for line in question.split("\n"))
    quotes = (
        f"\nOn Mon, 3 Mar 2025 at 10:12, {name} <{address}> wrote:\n{marked}\n",
        f"\nAm 03.03.2025 um 10:12 schrieb {name}:\n{marked}\n",
        f"\n-----Original Message-----\nFrom: {name}\nSent: Monday, March 3\nTo: Bob\nSubject: Oars\n\n{question}\n",
        f"\nLe lun. 3 mars 2025 à 10:12, {name} <{address}> a écrit :\n\n{marked}\n",
    )
    for style, quote in enumerate(quotes):
        asked = f"<q{style}.{number}@mail.example>"
        yield message(question, f"{name} <{address}>", BOB, Subject=f"Oars {number}-{style}", Message_ID=asked)
        headers = {"Subject": f"Re: Oars {number}-{style}", "Message_ID": f"<a{style}.{number}@smith.example>"}
        yield message(answer + SIGNATURE + quote, to=f"{name} <{address}>", In_Reply_To=asked, **headers)


def _written(number: int) -> Iterator[bytes]:
    """Bob's own: with a signature, as HTML only, with an attachment, forwarded with words of his."""
    to = f"Anna Berg <anna{number}@berg.example>"
    yield message(
        f"Dear Anna,\n\nThe regatta is on {number % 28 + 1} June at 9:30 am.\n\nKind regards,\nBob\n{SIGNATURE}",
        to=to,
        Subject=f"Regatta {number}",
    )
    html = EmailMessage()
    html["From"], html["To"], html["Subject"] = BOB, to, f"Keys {number}"
    html.set_content(
        f"<html><head><style>p {{color: red}}</style></head><body><p>Hi Anna,</p><p>The <b>{number + 3} keys</b> are "
        f"in the shed.</p><p>Cheers,<br>Bob</p><div class='gmail_quote'><blockquote>Where are they?</blockquote></div>",
        subtype="html",
    )
    yield html.as_bytes()
    attached = EmailMessage()
    attached["From"], attached["To"], attached["Subject"] = BOB, to, f"Plan {number}"
    attached.set_content(f"Hi Anna,\n\nHere is plan {number + 7} of the boathouse.\n\nBob\n")
    attached.add_attachment(b"%PDF-1.4 nothing", maintype="application", subtype="pdf", filename="plan.pdf")
    yield attached.as_bytes()
    yield message(
        f"Hi Anna,\n\nplease look at what the club of {number + 30} members wants from us.\n\nBob\n\n"
        "---------- Forwarded message ---------\nFrom: Club <club@club.example>\nSubject: Fees\n\nPay your fees now.\n",
        to=to,
        Subject=f"Fwd: Fees {number}",
    )


def _odd(number: int) -> Iterator[bytes]:
    """Bob's own in odd encodings, one of them of a charset that it is not in."""
    text = f"Liebe Anna,\n\ndie Fähre fährt um {number % 12 + 8}:15 Uhr über den Fluß.\n\nViele Grüße\nBob\n"
    subject = "Subject: =?utf-8?q?F=C3=A4hre_" + str(number) + "?="
    coded = base64.encodebytes(text.replace("8:15", "8:20").encode("utf-16"))
    yield raw(coded, subject, "Content-Type: text/plain; charset=utf-16", "Content-Transfer-Encoding: base64")
    latin = text.replace("Fähre", "große Fähre").encode("latin-1")
    yield raw(latin, subject, "Content-Type: text/plain; charset=us-ascii", "Content-Transfer-Encoding: 8bit")
    flowed = f"Dear Anna,\n\nthe ferry with its {number + 5} \nseats goes at noon.\n\nBest,\nBob\n"
    yield raw(flowed, f"Subject: Ferry {number}", "Content-Type: text/plain; format=flowed")


def _not_examples(number: int) -> Iterator[bytes]:
    yield message(f"News {number}", "News <news@list.example>", BOB, Subject="News", List_Id="<news.list.example>")
    yield message(
        "I am away.", Subject="Automatic reply: Oars", Auto_Submitted="auto-replied", Message_ID=f"<o{number}@x>"
    )
    yield message(
        f"---------- Forwarded message ---------\nFrom: Club <club@club.example>\n\nPay {number}.\n",
        Subject="Fwd: Fees",
    )
    yield message(f"Best,\nBob\n{SIGNATURE}\n", Subject=f"Scan {number}")
    yield raw(
        "-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----\n",
        f"Subject: Secret {number}",
        "Content-Type: text/plain",
    )


def long_line() -> bytes:
    return raw("a" * 10 * 1024 * 1024, "Subject: Long")


def deep(levels: int = 2000) -> bytes:
    """MIME nested so deep that a parser which calls itself for every level fails."""
    parts = [f'Content-Type: multipart/mixed; boundary="b{level}"\n\n--b{level}\n' for level in range(levels)]
    return raw(
        "".join(parts)[len("Content-Type: ") :].partition("\n\n")[2], 'Content-Type: multipart/mixed; boundary="b0"'
    )


def broken_charset() -> bytes:
    return raw(
        b"Hi Anna,\n\nthe b\xe9ret costs 12 euros, \xff\x00 and so on.\n\nBob\n",
        "Subject: =?no-such-charset?b?////?=",
        "Content-Type: text/plain; charset=no-such-charset",
    )


def endless_headers() -> bytes:
    return b"From: bob@smith.example\nSubject: x\n" + b"X-More: of them\n" * 60_000


def bomb() -> bytes:
    """An archive that unpacks to 100 MB, attached to words of Bob's."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 100_000_000)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = BOB, "Anna Berg <anna@berg.example>", "Zeros"
    mail.set_content("Hi Anna,\n\nHere are the zeros of 12 May that you wanted.\n\nBest,\nBob\n")
    mail.add_attachment(packed.getvalue(), maintype="application", subtype="zip", filename="zeros.zip")
    return mail.as_bytes()
