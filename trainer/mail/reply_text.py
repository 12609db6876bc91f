"""The text of an email -> the reply text, closing and name included, and the quoted text that it answers.

Quotes are found by the headers that mail-parser-reply knows in 14 languages, and by `>`. Of a signature the closing and
the name stay, because a voice needs them; the rest is cut (titles, phone numbers, addresses, disclaimers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from adapters.emails.form import NAME, closes_with_name, is_closing

MAX_CHARACTERS = 30_000
# Of a line where a quote's header may be: its patterns take cubic time, 0.04 s on a hostile line.
MAX_LINE_CHARACTERS = 250
MAX_TRIES = 30
WINDOW_LINES = 5
SIGNATURE_LINES = 15
PROSE_WORDS = 9

LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "da", "sv", "pl", "cs", "ja", "ko", "zh", "david")
QUOTED = re.compile(r"\s{0,3}>")
# What a quote's header begins or ends with, in any language; the library decides whether it is one.
LIKE_A_HEADER = re.compile(r"[:：]\s*\**\s*$|^[>* ]*[^\W\d_][\w ]{0,19}\*?[:：]|^[> ]*-{4,}")
NAMED_LINE = re.compile(r"^[>* ]*[^\W\d_][\w ]{0,19}\*?[:：]", re.MULTILINE)
ATTRIBUTION = re.compile(r".{0,240}(?:\d|@).{0,240}[:：]\s*$")
FORWARDED = re.compile(
    r"[> ]*(?:-{2,} ?(?:Forwarded message|Forwarded by|Weitergeleitete (?:Nachricht|E-?Mail)|Message transféré|"
    r"Mensaje reenviado|Messaggio inoltrato|Doorgestuurd bericht|Mensagem encaminhada|Vidarebefordrat meddelande)\b.*|"
    r"Begin forwarded message:|Anfang der weitergeleiteten (?:E-?Mail|Nachricht):|"
    r"Début du message (?:transféré|réexpédié) ?:|Inicio del mensaje reenviado:|Inizio messaggio inoltrato:)\s*$",
    re.IGNORECASE,
)
ORIGINAL = re.compile(
    r"[> ]*-{2,} ?(?:Original Message|Original Appointment|Ursprüngliche (?:Nachricht|Mail)|Message d'origine|"
    r"Mensaje original|Messaggio originale|Oorspronkelijk bericht|Mensagem original)\s*-{2,}\s*$",
    re.IGNORECASE,
)
DELIMITER = re.compile(r"(?:--|—|__)\s*$|[_-]{20,}\s*$")
SENT_FROM = re.compile(
    r"\W{0,3}(?:sent (?:from|via|with) (?:my |outlook|mail|proton|yahoo|gmail|samsung|mobile)\b.*|get outlook for .*|"
    r"von meinem \w+ gesendet.*|gesendet (?:von|mit) .{1,60}|envoyé (?:depuis|de) .{1,60}|enviado (?:desde|do) .{1,60}|"
    r"inviato da .{1,60}|verzonden vanaf .{1,60}|skickat från .{1,60}|sendt fra .{1,60})",
    re.IGNORECASE,
)
DISCLAIMER = re.compile(
    r"(?:disclaimer|confidential(?:ity)?(?: notice| note)?|privileged (?:and|&) confidential|vertraulichkeitshinweis|"
    r"caution|legal notice)\s*:|(?:the (?:information|contents?) (?:contained )?in )?this (?:e-?mail|message|"
    r"communication|transmission)\b.{0,120}\b(?:confidential|intended|privileged|proprietary)|"
    r"(?:please )?(?:consider|think of) the environment|if you (?:are not the intended|have received this)|"
    r"diese (?:e-?mail|nachricht)\b.{0,80}\bvertraulich|ce (?:message|courriel)\b.{0,120}\bconfidentiel|"
    r"este (?:mensaje|correo)\b.{0,120}\bconfidencial|"
    r"questo? (?:messaggio|e-?mail)\b.{0,120}\b(?:riservat|confidenzial)",
    re.IGNORECASE,
)
CONTACT = re.compile(
    r"\W*(?:(?:tel(?:efon|ephone)?|phone|mobile?|mob|cell|fax|office|direct|web(?:site)?|e-?mail|mail|skype|t|m|p|f|w|e)"
    r"\b\s?[:.]?\s*)?(?:\+?[\d ().\-/]{7,24}|[\w.+-]+@[\w.-]+|(?:https?://|www\.)\S+)\W*",
    re.IGNORECASE,
)
POSTSCRIPT = re.compile(r"p\.? ?s\.?\b", re.IGNORECASE)


@dataclass(frozen=True)
class ReplyText:
    text: str
    # Without the first level of `>`.
    quoted: str
    # A forwarded message follows the reply text.
    forward: bool


def read(text: str, writer: str) -> ReplyText:
    """`writer` is the name by which a signature is found, or an address, or empty."""
    lines = [line.rstrip("\r") for line in text[:MAX_CHARACTERS].split("\n")]
    own, quoted, forward = _split(lines)
    own = _unwrapped(_without_signature(own, writer))
    return ReplyText(_tidy(own), _tidy(_unwrapped(quoted)), forward)


def signed_name(text: str, writer: str) -> str:
    """The name under a reply text; empty if it is not signed."""
    lines = [line.strip() for line in _before_postscript(text.split("\n")) if line.strip()]
    if len(lines) < 2:
        return ""
    last = lines[-1]
    if closes_with_name(last):
        last = last.partition(",")[2].strip()
    elif not _names(last, writer, in_closing=is_closing(lines[-2])) or is_closing(last):
        return ""
    return last.strip("-–/~* ,.!")


def message(text: str, writer: str) -> str:
    """The reply text without greeting, closing and name: empty for an email that only carried an attachment."""
    lines = [line.strip() for line in text.split("\n")]
    if lines[0].endswith((",", "!")) and len(lines[0].split()) <= 4:
        lines = lines[1:]
    form = [is_closing(line) or closes_with_name(line) or _names(line, writer) for line in lines]
    return "\n".join(line for line, is_form in zip(lines, form, strict=True) if not is_form).strip()


def _split(lines: list[str]) -> tuple[list[str], list[str], bool]:
    """(reply lines, quoted lines, is a forward).

    Where the lines under a quote's header are marked with `>`, those without a mark are an answer below or between;
    where none is marked, all of them are the quote.
    """
    start, end, forward = _boundary(lines)
    own, quoted = _unmarked(lines[:start])
    below = lines[end:]
    if not forward and any(QUOTED.match(line) for line in below):
        more_own, more_quoted = _unmarked(below)
        return [*own, "", *more_own], [*quoted, *more_quoted], False
    return own, [*quoted, *(_bare(line) for line in below)], forward


def _unmarked(lines: list[str]) -> tuple[list[str], list[str]]:
    own = [line for number, line in enumerate(lines) if not QUOTED.match(line) and not _attributes(lines, number)]
    return own, [_bare(line) for line in lines if QUOTED.match(line)]


def _attributes(lines: list[str], number: int) -> bool:
    """Whether a line introduces the quote below it, in any language: `Em 3/3/2025, Rui escreveu:`."""
    following = next((line for line in lines[number + 1 : number + 4] if line.strip()), "")
    return bool(QUOTED.match(following) and ATTRIBUTION.fullmatch(lines[number][:500]))


def _bare(line: str) -> str:
    return re.sub(r"^\s{0,3}> ?", "", line)


def _boundary(lines: list[str]) -> tuple[int, int, bool]:
    """(first line, line after the last, is a forward) of the first header of a quote, else the end of the lines."""
    tries = 0
    for number, line in enumerate(lines):
        for pattern in (FORWARDED, ORIGINAL):
            if pattern.match(line[:MAX_LINE_CHARACTERS]):
                return number, _after_names(lines, number + 1), pattern is FORWARDED
        if tries < MAX_TRIES and LIKE_A_HEADER.search(line[-MAX_LINE_CHARACTERS:]):
            tries += 1
            for first in (number - 1, number):
                end = _header_end(lines, first) if first >= 0 else first
                if end > first:
                    return first, end, False
    return len(lines), len(lines), False


def _after_names(lines: list[str], start: int) -> int:
    """The line after the From, Sent, To and Subject that a mail program puts over an answered message."""
    end = start
    while end < min(len(lines), start + 10) and (not lines[end].strip(" >") or NAMED_LINE.match(lines[end])):
        end += 1
    return end


def _header_end(lines: list[str], first: int) -> int:
    """The line after a quote's header that starts at `first`; `first` without a header there."""
    window = [line[:MAX_LINE_CHARACTERS].strip() for line in lines[first : first + WINDOW_LINES]]
    match = _header().match("\n".join(window))
    found = match.group().rstrip() if match else ""
    # A block like `From: London` and `To: Paris` may be the writer's own: three such lines make a header.
    named = len(NAMED_LINE.findall(found))
    if found.rstrip("* ").endswith((":", "：")) and named < 2:
        return first + found.count("\n") + 1
    return _after_names(lines, first) if named >= 3 else first


@lru_cache(maxsize=1)
def _header() -> re.Pattern[str]:
    from mailparser_reply.parser import EmailMessage

    pattern: re.Pattern[str] = EmailMessage(text="", languages=list(LANGUAGES)).HEADER_REGEX
    return pattern


def _without_signature(lines: list[str], writer: str) -> list[str]:
    lines = _without_end(lines, writer)
    while lines and (not lines[-1].strip() or CONTACT.fullmatch(lines[-1][:MAX_LINE_CHARACTERS])):
        lines.pop()
    end = _end_of_name(lines, writer)
    return lines[:end] + _postscript(lines[end:]) if end else lines


def _without_end(lines: list[str], writer: str) -> list[str]:
    """Cut at a signature's delimiter, `Sent from my ...` or a disclaimer; a name after `-- ` stays."""
    lines = lines[: next((n for n, line in enumerate(lines) if _is_boilerplate(line)), len(lines))]
    for number, line in enumerate(lines):
        if DELIMITER.match(line) and _is_signature(lines[number + 1 :], bool(_end_of_name(lines[:number], writer))):
            name = next((one.strip() for one in lines[number + 1 :] if one.strip()), "")
            before = next((one for one in reversed(lines[:number]) if one.strip()), "")
            named = is_closing(before) and _names(name, writer)
            return [*"\n".join(lines[:number]).rstrip().split("\n"), name] if named else lines[:number]
    return lines


def _is_boilerplate(line: str) -> bool:
    return bool(SENT_FROM.fullmatch(line[:MAX_LINE_CHARACTERS].strip()) or DISCLAIMER.match(line[:500].strip(" *")))


def _is_signature(lines: list[str], signed: bool) -> bool:
    """Whether the lines below a delimiter are few and without a closing; prose (a motto) only if `signed`."""
    few = sum(bool(line.strip()) for line in lines) <= SIGNATURE_LINES
    return few and not any(is_closing(line) or (_is_prose(line) and not signed) for line in lines)


def _end_of_name(lines: list[str], writer: str) -> int:
    """The line after the name under the email; 0 without a name or closing that only a signature follows."""
    for number in range(max(1, len(lines) - SIGNATURE_LINES), len(lines)):
        line = lines[number].strip()
        end = 0
        if is_closing(line):
            named = next((n for n in range(number + 1, len(lines)) if lines[n].strip()), number)
            end = named + 1 if _names(lines[named].strip(), writer, in_closing=True) else number + 1
        elif _names(line, writer) or closes_with_name(line):
            end = number + 1
        if end and not any(_is_prose(after) for after in _before_postscript(lines[end:])):
            return end
    return 0


def _names(line: str, writer: str, in_closing: bool = False) -> bool:
    """Whether a line is the writer's name, whole or in part; after a closing, any name."""
    if not line or len(line) > 40:
        return False
    words = re.findall(r"[^\W\d_]+", line.lower())
    known = re.findall(r"[^\W\d_]+", writer.partition("@")[0].lower())
    initials = "".join(word[0] for word in known)
    if words and known and (set(words) <= {*known, "x"} or "".join(words) == initials):
        return True
    return in_closing and bool(NAME.fullmatch(line))


def _is_prose(line: str) -> bool:
    words = line.split()
    return len(words) > PROSE_WORDS or (len(words) >= 4 and line.rstrip().endswith((".", "?", "!")))


def _before_postscript(lines: list[str]) -> list[str]:
    return lines[: next((n for n, line in enumerate(lines) if POSTSCRIPT.match(line.strip())), len(lines))]


def _postscript(lines: list[str]) -> list[str]:
    rest = lines[len(_before_postscript(lines)) :]
    paragraph = rest[: next((n for n, line in enumerate(rest) if not line.strip()), len(rest))]
    return ["", *paragraph] if paragraph else []


def _unwrapped(lines: list[str]) -> list[str]:
    """Paragraphs broken at about 72 characters on one line each, so that a voice does not learn the breaks."""
    joined: list[str] = []
    for line in lines:
        before = joined[-1] if joined else ""
        last = before.rpartition("\n")[2]
        if 60 <= len(last) <= 80 and line.strip() and not re.match(r"\s*(?:[-*•>|]|\d+[.)])|\s{2,}", line):
            joined[-1] = f"{before}\n{line}"
        else:
            joined.append(line)
    return [" ".join(part.strip() for part in line.split("\n")) for line in joined]


def _tidy(lines: list[str]) -> str:
    text = "\n".join(" ".join(line.split()) for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
