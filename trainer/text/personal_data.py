"""Personal data in emails: find it, and keep it, mask it or put invented values in its place.

Found by form and checksum: addresses, phone numbers, IBANs, cards, links, IP addresses; names of people if asked
(trainer/text/person_names.py). What has no form of its own, such as a street or a diagnosis, is not found. This file
does not know examples or files.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

import phonenumbers
from phonenumbers import Leniency, PhoneNumberMatch, PhoneNumberMatcher
from stdnum import iban, luhn

from trainer.text.fake_values import TRIES, invent, respell
from trainer.text.person_names import NOT_NAMES, Role, joined, name_words, occurrences

if TYPE_CHECKING:
    from faker import Faker

Kind = Literal["link", "address", "iban", "card", "ip", "phone", "name"]
Mode = Literal["keep", "mask", "fake"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""Where two overlap, the one named first here counts."""
TAGS: dict[Kind, str] = {kind: f"[{kind.upper()}]" for kind in KINDS} | {"address": "[EMAIL]"}
"""What a mask writes; adapters/emails/form.py counts each as a placeholder."""
REGION, TRUNK_REGIONS = "US", ("GB", "DE", "FR", "AU")
"""Countries whose national way of writing a number is understood, the latter with a 0 first; else `+`."""

DIGIT_OR_COLON = re.compile(r"[\d:]")
LINK = re.compile(r"\b(?:https?://|www\.)[^\s<>\"“”\[\]]+", re.IGNORECASE)
AFTER_LINK = ".,;:!?)'’*"
ADDRESS = re.compile(r"(?<![\w.+-])[\w.+'-]*\w@\w[\w-]*(?:\.\w[\w-]*)*\.[^\W\d_]{2,}(?![\w-])")
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d\d(?:[ -]?[A-Z\d]){11,30}", re.IGNORECASE)
CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?!\w|[.,-]\d)")
# Issuer ranges (ISO/IEC 7812: Visa, Mastercard, American Express, Diners, Discover, JCB), since one number of ten has a
# fitting check digit.
ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[068]\d{12}|(?:6011|65\d\d|64[4-9]\d|35\d\d)\d{12}"
)
IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{3,4}(?::[0-9a-f]{0,4}){2,7})(?![\w:]|\.\d)", re.IGNORECASE
)
VERSION = re.compile(r"\b(?:v|version|release|build|section|clause)\.? ?\Z", re.IGNORECASE)
TRUNK = re.compile(r"(?<![\w,.])\(?0\d")
MAY_BE_PHONE = re.compile(r"\d(?:[^\w\n]{0,3}\d){6}")
DATE = re.compile(
    r"(?:\d{1,2}[./ -]\d{1,2}[./ -]\d\d(?:\d\d)?|\d{4}[./ -]\d{1,2}[./ -]\d{1,2})(?:[ ,T]+\d{1,2}[.:]?\d\d)?"
)
# The end of a time, an amount or another number.
WITHIN_NUMBER = re.compile(r"\d[:.,/-]\Z")
REFERENCE = re.compile(
    r"(?:#|№|\b(?:order|invoice|ref|reference|ticket|case|account|acct|booking|tracking|serial|policy|isbn|po|id|sku|vat)\b"
    r"[\s.:#]*(?:(?:no|nr|number|is)\b)?[\s.:#]*)\Z",
    re.IGNORECASE,
)
CALLED = re.compile(
    r"\b(?:tel|telephone|phone|fon|telefon|call|cell|mobile|handy|fax|ring|text|sms|whatsapp|dial|reach|t|m)\b[^\n]{0,20}\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Found:
    """`text[start:end]` of the text that was searched."""

    kind: Kind
    start: int
    end: int
    text: str
    key: str
    """The value without its spelling: of two ways to write one phone number it is the same."""


@dataclass
class _Known:
    """What is known of one thread: the words of its names, its values as they are written, and the stand-ins."""

    names: dict[str, Role] = field(default_factory=dict)
    values: dict[str, Found] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)

    def add(self, text: str, names: bool) -> None:
        if names:
            self.names = joined(self.names, name_words(text))
        self.values |= {found.text: found for found in _find(text, self) if found.kind != "name"}


def find(text: str, names: bool = False) -> list[Found]:
    """The personal data of `text`, in order, none overlapping; names of people only if asked.

    A number whose checksum is wrong is neither an IBAN nor a card. Digits in a row are a phone number only after a word
    like "call", and a number after "order" or "invoice" never is.
    """
    return _find(text, _Known(name_words(text) if names else {}))


class Privacy:
    """Applies one mode to many emails, and counts in `counts` what it replaced, by kind.

    In one thread the same value always gets the same stand-in, in another thread another one.
    """

    def __init__(self, mode: Mode, names: bool = False, seed: int = 0) -> None:
        self.mode = mode
        self.names = names
        self.seed = seed
        self.counts: dict[str, int] = {}
        self._threads: dict[str, _Known] = {}

    def apply(self, texts: Sequence[str], thread: str) -> list[str]:
        """The texts of one row (task, email, spellings of facts), as they may be trained on, in the same order.

        What is personal in one of them, or was in an earlier row of the thread, is replaced in all of them.
        """
        if self.mode == "keep":
            return list(texts)
        known = self._threads.setdefault(thread, _Known())
        replaced = self._once(texts, thread, known)
        # A mask may leave words side by side that only now read as a name: until nothing is left.
        while self.mode == "mask" and (again := self._once(replaced, thread, known)) != replaced:
            replaced = again
        return replaced

    def _once(self, texts: Sequence[str], thread: str, known: _Known) -> list[str]:
        for text in texts:
            known.add(text, self.names)
        if not known.values and not known.names:
            return list(texts)
        return [self._replace(text, thread, known) for text in texts]

    def _replace(self, text: str, thread: str, known: _Known) -> str:
        parts, end = [], 0
        for found in _find(text, known):
            stand_in = TAGS[found.kind] if self.mode == "mask" else self._fake(found, thread, known)
            parts += [text[end : found.start], stand_in]
            end = found.end
            self.counts[found.kind] = self.counts.get(found.kind, 0) + 1
        return "".join([*parts, text[end:]])

    def _fake(self, found: Found, thread: str, known: _Known) -> str:
        if found.kind != "name":
            return respell(found.kind, found.text, found.key, self._stand_in(found.kind, found.key, thread, known))
        text = found.text
        for start, end in reversed(list(occurrences(text, known.names, whole=False))):
            word = text[start:end]
            name = next((name for name in known.names if name != word and name.upper() == word), word)
            role = known.names[name]
            text = text[:start] + respell(role, word, name, self._stand_in(role, name, thread, known)) + text[end:]
        return text

    def _stand_in(self, kind: str, key: str, thread: str, known: _Known) -> str:
        """The invented value for `key` in this thread: neither an original nor another's stand-in."""
        if key not in known.stand_ins:
            fake = _faker()
            fake.seed_instance(f"{self.seed} {thread} {kind} {key}")
            taken = {*known.stand_ins.values(), *known.names, *(found.key for found in known.values.values())}
            for _ in range(TRIES):
                known.stand_ins[key] = invent(kind, key, fake)
                if known.stand_ins[key] not in taken | NOT_NAMES:
                    break
        return known.stand_ins[key]


@cache
def _faker() -> Faker:
    from faker import Faker

    return Faker("en_US")


def _find(text: str, known: _Known) -> list[Found]:
    taken = bytearray(len(text))
    kept = []
    for found in _candidates(text, known):
        if not any(taken[found.start : found.end]):
            taken[found.start : found.end] = b"\1" * (found.end - found.start)
            kept.append(found)
    return sorted(kept, key=lambda found: found.start)


def _candidates(text: str, known: _Known) -> Iterator[Found]:
    """What may be personal data, the kinds that win an overlap first; also overlapping."""
    yield from _links(text)
    for match in ADDRESS.finditer(text) if "@" in text else ():
        yield Found("address", *match.span(), match[0], match[0].lower())
    if DIGIT_OR_COLON.search(text):
        yield from _ibans(text)
        yield from _cards(text)
        yield from _ips(text)
        yield from _phones(text, {found.key for found in known.values.values() if found.kind == "phone"})
    for value, was in known.values.items():
        # Again without the words or the spaces around it that gave it away.
        for match in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text) if value in text else ():
            yield Found(was.kind, *match.span(), value, was.key)
    for start, end in occurrences(text, known.names):
        yield Found("name", start, end, text[start:end], text[start:end].lower())


def _links(text: str) -> Iterator[Found]:
    for match in LINK.finditer(text):
        link = match[0].rstrip(AFTER_LINK)
        yield Found("link", match.start(), match.start() + len(link), link, re.sub(r"(?i)^https?://|^www\.", "", link))


def _ibans(text: str) -> Iterator[Found]:
    """Every candidate may go on into the words after it: the longest beginning that is valid counts."""
    for match in IBAN.finditer(text):
        for end in range(match.end(), match.start() + 14, -1):
            candidate = text[match.start() : end]
            if not text[end : end + 1].isalnum() and iban.is_valid(candidate, check_country=False):
                yield Found("iban", match.start(), end, candidate, iban.compact(candidate))
                break


def _cards(text: str) -> Iterator[Found]:
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield Found("card", *match.span(), match[0], digits)


def _ips(text: str) -> Iterator[Found]:
    for match in IP.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if not VERSION.search(text[: match.start()]):
            yield Found("ip", *match.span(), match[0], str(address))


def _phones(text: str, known: set[str]) -> Iterator[Found]:
    # The matcher takes a millisecond for an email, and most lines have no digits that could be a number.
    for line in re.finditer(r"[^\n]+", text):
        if not MAY_BE_PHONE.search(line[0]):
            continue
        for region in (REGION, *(TRUNK_REGIONS if TRUNK.search(line[0]) else ())):
            for match in PhoneNumberMatcher(line[0], region, leniency=Leniency.VALID):
                key = phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164)
                if key in known or _is_called(match, line[0]):
                    yield Found("phone", line.start() + match.start, line.start() + match.end, match.raw_string, key)


def _is_called(match: PhoneNumberMatch, text: str) -> bool:
    before = text[max(0, match.start - 40) : match.start]
    if REFERENCE.search(before):
        return False
    doubtful = match.raw_string.isdigit() or DATE.fullmatch(match.raw_string) or WITHIN_NUMBER.search(before)
    return not doubtful or bool(CALLED.search(before))
