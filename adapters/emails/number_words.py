"""Numbers, weekdays, months, durations and currencies as English writes them, and the values that they stand for."""

from __future__ import annotations

import re
import unicodedata

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = tuple("january february march april may june july august september october november december".split())
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()
VALUES = (
    {word: float(n) for n, word in enumerate(ONES)}
    | {word: float(n) for n, word in enumerate(ORDINALS, start=1)}
    | {word: 10.0 * n for n, word in enumerate(TENS, start=2)}
    | {"half": 0.5, "twentieth": 20.0, "thirtieth": 30.0}
)
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "grand": 1000, "million": 10**6, "billion": 10**9}
SCALES |= {"k": 1000, "m": 10**6, "mn": 10**6, "mln": 10**6, "mil": 10**6, "bn": 10**9}
CURRENCIES = {
    **dict.fromkeys(["$", "dollar", "buck", "usd"], "$"),
    **dict.fromkeys(["£", "pound", "quid", "gbp"], "£"),
    **dict.fromkeys(["€", "euro", "eur"], "€"),
    **dict.fromkeys(["¥", "yen", "jpy"], "¥"),
    **{word: word for word in ("chf", "franc", "krona", "krone", "rupee", "cent", "penny", "pence")},
}
# "A" lets an answer say 1, "a couple" 2.
IN_OTHER_WORDS = {r"an?|once|single": 1, r"two|both|couple|pair|twice|twins?": 2, r"half": 0.5}
IN_OTHER_WORDS |= {r"quarter of an hour": 15, r"three quarters of an hour": 45}
# In minutes and in months.
DURATIONS = (
    {"min": 1, "h": 60, "hr": 60, "hour": 60, "day": 1440, "week": 10_080, "fortnight": 20_160},
    {"month": 1, "year": 12},
)

TENS_AND_ONES = rf"(?:{'|'.join(TENS)})(?:[- ](?:{'|'.join(ONES[1:10])}))?"
SMALL = rf"(?:{TENS_AND_ONES}|{'|'.join(reversed(ONES))})\b"
WORD_DAY = rf"\b(?:(?:twenty|thirty)[- ])?(?:{'|'.join(ORDINALS)}|twentieth|thirtieth)\b"
FIGURE = r"(?:(?:\d{1,3}(?:[, ]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)(?: ?[½¼¾])?|[½¼¾])"
# "2 m" may be metres; "2m" counts as both.
SCALED = rf"{FIGURE}(?:(?:k|m)\b| ?(?:mn|mln|mil|bn)\b)?"
SCALE = r"(?:dozen|hundred|thousand|million|billion)s?\b"
AND_A_HALF = r"(?: and a half\b)?"
WORDED = (
    rf"(?:(?:(?:half an?|an?|{FIGURE}|{SMALL}){AND_A_HALF}[ -])?{SCALE}(?:[ -]{SCALE})*"
    rf"(?:(?:,? and |,? ){SMALL}(?:[ -]{SCALE})+)*(?: and {SMALL}| {TENS_AND_ONES}\b)?|{SMALL}{AND_A_HALF})"
)
CURRENCY = rf"(?:(?:{'|'.join(word for word in CURRENCIES if word.isalpha())})(?:s|es)?\b|[€£$])"
DURATION = (
    rf"\b(half an?|half|an?|{WORDED}|{FIGURE})[ -]?"
    r"(min|hour|hr|h\b|day|week|fortnight|month|year)[a-z]*( and a half\b)?"
)


def values(text: str) -> list[float]:
    """The number in figures or words, 0 without one; of "2m" both two million and the two of 2 metres."""
    total = part = 0.0
    for word in re.findall(rf"{FIGURE}|[a-z]+", text.lower()):
        scale = SCALES.get(word.removesuffix("s") if len(word) > 3 else word)
        if not scale:
            part += VALUES.get(word, 0.0) if word.isalpha() else _figure(word)
        elif scale < 1000:
            part = (part or 1) * scale
        else:
            total, part = total + (part or 1) * scale, 0.0
    # A "grand" is a thousand, or a kind of piano.
    unscaled = re.match(rf"({FIGURE}|{SMALL})(?:m| grand)\b", text, re.IGNORECASE)
    return [total + part, *([values(unscaled[1])[0]] if unscaled else [])]


def _figure(text: str) -> float:
    """The value of `1,500`, `1 500` or `2½`."""
    whole = re.sub(r"[^\d.]", "", text)
    return float(whole or 0) + sum(unicodedata.numeric(sign) for sign in text if sign in "½¼¾")


def in_figures(words: re.Match[str]) -> str:
    return f"{values(words[0])[0]:.0f}"


def currency(text: str) -> str:
    plain = text.lower()
    return next(sign for word, sign in CURRENCIES.items() if word in plain)


def numbers(text: str) -> set[float]:
    """Every number that a lower-case text gives, each duration in all units: 1.5 hours are also 90 minutes."""
    found = {1.0, *map(_figure, re.findall(FIGURE, text))}
    # Of "12 500 g bags" also the 12 and the 500.
    found.update(map(float, re.findall(r"(?<![\d.,])\d+(?![.,]?\d)", text)))
    found.update(number for words, number in IN_OTHER_WORDS.items() if re.search(rf"\b(?:{words})\b", text))
    for number, unit, half in re.findall(DURATION, text):
        value = (values(number)[0] or 1.0) + (0.5 if half else 0.0)
        for units in DURATIONS:
            if unit in units:
                found.update(value * units[unit] / other for other in units.values())
    return found
