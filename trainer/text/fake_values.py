"""Invented values that stand in for personal data: of the same kind and shape, with checksums that hold.

Addresses and links are of example.com and its like (RFC 2606), IP addresses of the ranges for documentation (RFC 5737,
RFC 3849). An invented phone number may be in use: few countries have set numbers aside for fiction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import phonenumbers
from stdnum import iban, luhn

if TYPE_CHECKING:
    from faker import Faker

# So many digits of a phone number are invented; the others give the country and the kind of line.
LAST_DIGITS = 6
MAX_TRIES = 200
FAKER_METHODS = {
    "address": "ascii_safe_email",
    "first": "first_name",
    "male": "first_name_male",
    "female": "first_name_female",
    "last": "last_name",
}


def invent(kind: str, key: str, fake: Faker) -> str:
    """Another value of the `kind` of `key`, which is a value without its spelling; for a name `kind` is its role."""
    if kind in SHAPED:
        return SHAPED[kind](key, fake)
    if kind == "link":
        return f"example.com/{fake.word()}-{fake.word()}"
    return str(getattr(fake, FAKER_METHODS[kind])())


def respell(kind: str, text: str, key: str, fake_value: str) -> str:
    """`fake_value` written as `text` writes `key`: with its spaces, dashes and prefixes."""
    if kind == "link":
        prefix = re.match(r"(?i)(?:https?://)?(?:www\.)?", text)
        return (prefix[0] if prefix else "") + fake_value
    if kind in ("iban", "card"):
        return _filled(text, fake_value)
    if kind == "phone":
        return _filled(text, _national_within(re.sub(r"\D", "", text), key, fake_value), r"\d")
    if kind in ("first", "male", "female", "last") and text.isupper():
        return fake_value.upper()
    return fake_value


def _filled(shape: str, characters: str, replaced: str = r"[^\W_]") -> str:
    """`shape` with `characters` in place of its letters and digits, or of what else is `replaced`, in order."""
    given = iter(characters)
    return re.sub(replaced, lambda old: next(given, old[0]), shape)


def _national_within(digits: str, key: str, fake_value: str) -> str:
    """The dialled `digits` with the number of `fake_value` for that of `key`; prefixes and extension stay."""
    old, new = (phonenumbers.national_significant_number(phonenumbers.parse(number)) for number in (key, fake_value))
    at = digits.rfind(old)
    if at >= 0:
        return digits[:at] + new + digits[at + len(old) :]
    # A country that dials otherwise than it is called from abroad: the last digits are the same in both.
    return digits[:-LAST_DIGITS] + new[-LAST_DIGITS:]


def _digits(count: int, fake: Faker) -> str:
    return "".join(str(fake.random.randint(0, 9)) for _ in range(count))


def _phone(key: str, fake: Faker) -> str:
    number = key
    for _ in range(MAX_TRIES):
        number = key[:-LAST_DIGITS] + _digits(LAST_DIGITS, fake)
        if phonenumbers.is_valid_number(phonenumbers.parse(number)):
            break
    return number


def _iban(key: str, fake: Faker) -> str:
    """Same country and length, digits for digits and letters for letters; check digits by ISO 7064, mod 97-10."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    account = re.sub(
        r".", lambda old: _digits(1, fake) if old[0].isdigit() else str(fake.random.choice(letters)), key[4:]
    )
    return key[:2] + str(iban.calc_check_digits(f"{key[:2]}00{account}")) + account


def _card(key: str, fake: Faker) -> str:
    """Same issuer and length; check digit by Luhn."""
    number = key[:4] + _digits(len(key) - 5, fake)
    return number + str(luhn.calc_check_digit(number))


def _ip(key: str, fake: Faker) -> str:
    if ":" in key:
        return f"2001:db8::{fake.random.randint(1, 0xFFFF):x}"
    return f"{fake.random.choice(('192.0.2', '198.51.100', '203.0.113'))}.{fake.random.randint(1, 254)}"


SHAPED: dict[str, Callable[[str, Faker], str]] = {"iban": _iban, "card": _card, "ip": _ip, "phone": _phone}
