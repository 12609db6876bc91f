"""Personal data in emails: find it, and keep it, mask it or put invented values in its place.

Values are found by form and checksum: addresses, phone numbers, IBANs, cards, links, IP addresses; names of people if
asked (trainer/text/person_names.py). A street or a diagnosis has no form of its own and is not found.
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

from adapters.emails.form import is_not_name
from trainer.text.fake_values import MAX_TRIES, invent, respell
from trainer.text.person_names import Role, joined, name_words, occurrences

if TYPE_CHECKING:
    from faker import Faker

PersonalKind = Literal["link", "address", "iban", "card", "ip", "phone", "name"]
Mode = Literal["keep", "mask", "fake"]

# Of two that overlap, the kind named first counts.
KINDS: tuple[PersonalKind, ...] = get_args(PersonalKind)
# What a mask writes; MASK of adapters/emails/form.py finds each.
TAGS: dict[PersonalKind, str] = {kind: f"[{kind.upper()}]" for kind in KINDS} | {"address": "[EMAIL]"}
# Countries whose national way of writing a number is understood, the latter with a 0 first; all others by `+`.
REGION, TRUNK_REGIONS = "US", ("GB", "DE", "FR", "AU")

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
class PersonalValue:
    """`text[start:end]` of the text that was searched."""

    kind: PersonalKind
    start: int
    end: int
    text: str
    # The value without its spelling: the same for two ways to write one phone number.
    key: str


@dataclass
class _Known:
    """One thread's words of names, its values by their spelling, and the fake values by key."""

    names: dict[str, Role] = field(default_factory=dict)
    values: dict[str, PersonalValue] = field(default_factory=dict)
    fakes: dict[str, str] = field(default_factory=dict)

    def add(self, text: str, names: bool) -> None:
        if names:
            self.names = joined(self.names, name_words(text))
        self.values |= {found.text: found for found in _find(text, self) if found.kind != "name"}


def find(text: str, names: bool = False) -> list[PersonalValue]:
    """The personal data of `text`, in order, none overlapping; names of people only if asked.

    A number whose checksum is wrong is neither an IBAN nor a card. Digits in a row are a phone number only after a word
    like "call", and a number after "order" or "invoice" never is.
    """
    return _find(text, _Known(name_words(text) if names else {}))


class Privacy:
    """Applies one mode to many emails; `counts` has the number of replaced values by kind.

    A value has the same fake value throughout a thread, and another one in another thread.
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
            replaced = TAGS[found.kind] if self.mode == "mask" else self._fake(found, thread, known)
            parts += [text[end : found.start], replaced]
            end = found.end
            self.counts[found.kind] = self.counts.get(found.kind, 0) + 1
        return "".join([*parts, text[end:]])

    def _fake(self, found: PersonalValue, thread: str, known: _Known) -> str:
        if found.kind != "name":
            return respell(found.kind, found.text, found.key, self._fake_value(found.kind, found.key, thread, known))
        text = found.text
        for start, end in reversed(list(occurrences(text, known.names, whole=False))):
            word = text[start:end]
            name = next((name for name in known.names if name != word and name.upper() == word), word)
            role = known.names[name]
            text = text[:start] + respell(role, word, name, self._fake_value(role, name, thread, known)) + text[end:]
        return text

    def _fake_value(self, kind: str, key: str, thread: str, known: _Known) -> str:
        """The fake value of `key` in this thread: neither an original nor another key's fake value."""
        if key not in known.fakes:
            fake = _faker()
            fake.seed_instance(f"{self.seed} {thread} {kind} {key}")
            taken = {*known.fakes.values(), *known.names, *(found.key for found in known.values.values())}
            for _ in range(MAX_TRIES):
                known.fakes[key] = invent(kind, key, fake)
                if known.fakes[key] not in taken and not is_not_name(known.fakes[key]):
                    break
        return known.fakes[key]


@cache
def _faker() -> Faker:
    from faker import Faker

    return Faker("en_US")


def _find(text: str, known: _Known) -> list[PersonalValue]:
    taken = bytearray(len(text))
    kept = []
    for found in _candidates(text, known):
        if not any(taken[found.start : found.end]):
            taken[found.start : found.end] = b"\1" * (found.end - found.start)
            kept.append(found)
    return sorted(kept, key=lambda found: found.start)


def _candidates(text: str, known: _Known) -> Iterator[PersonalValue]:
    """What may be personal data, also overlapping; the kinds that win an overlap come first."""
    yield from _links(text)
    if "@" in text:
        for match in ADDRESS.finditer(text):
            yield PersonalValue("address", *match.span(), match[0], match[0].lower())
    if DIGIT_OR_COLON.search(text):
        yield from _ibans(text)
        yield from _cards(text)
        yield from _ips(text)
        yield from _phones(text, {value.key for value in known.values.values() if value.kind == "phone"})
    for spelling, value in known.values.items():
        # A value of the thread counts also without the words around it that a rule looks for.
        if spelling in text:
            for match in re.finditer(rf"(?<!\w){re.escape(spelling)}(?!\w)", text):
                yield PersonalValue(value.kind, *match.span(), spelling, value.key)
    for start, end in occurrences(text, known.names):
        yield PersonalValue("name", start, end, text[start:end], text[start:end].lower())


def _links(text: str) -> Iterator[PersonalValue]:
    for match in LINK.finditer(text):
        link = match[0].rstrip(AFTER_LINK)
        yield PersonalValue(
            "link", match.start(), match.start() + len(link), link, re.sub(r"(?i)^https?://|^www\.", "", link)
        )


def _ibans(text: str) -> Iterator[PersonalValue]:
    """A match may reach into the words after the IBAN: its longest valid beginning counts."""
    for match in IBAN.finditer(text):
        for end in range(match.end(), match.start() + 14, -1):
            candidate = text[match.start() : end]
            if not text[end : end + 1].isalnum() and iban.is_valid(candidate, check_country=False):
                yield PersonalValue("iban", match.start(), end, candidate, iban.compact(candidate))
                break


def _cards(text: str) -> Iterator[PersonalValue]:
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield PersonalValue("card", *match.span(), match[0], digits)


def _ips(text: str) -> Iterator[PersonalValue]:
    for match in IP.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if not VERSION.search(text[: match.start()]):
            yield PersonalValue("ip", *match.span(), match[0], str(address))


def _phones(text: str, known: set[str]) -> Iterator[PersonalValue]:
    # The matcher takes a millisecond for an email, and most lines have no digits that could be a number.
    for line in re.finditer(r"[^\n]+", text):
        if not MAY_BE_PHONE.search(line[0]):
            continue
        for region in (REGION, *(TRUNK_REGIONS if TRUNK.search(line[0]) else ())):
            for match in PhoneNumberMatcher(line[0], region, leniency=Leniency.VALID):
                key = phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164)
                if key in known or _is_called(match, line[0]):
                    yield PersonalValue(
                        "phone", line.start() + match.start, line.start() + match.end, match.raw_string, key
                    )


def _is_called(match: PhoneNumberMatch, text: str) -> bool:
    before = text[max(0, match.start - 40) : match.start]
    if REFERENCE.search(before):
        return False
    doubtful = match.raw_string.isdigit() or DATE.fullmatch(match.raw_string) or WITHIN_NUMBER.search(before)
    return not doubtful or bool(CALLED.search(before))
