"""The checkable facts of a text, and which facts of an answer nobody told its writer.

A fact is a number, time, date, amount, name, email address, link, phone number or code (of an order, an invoice). Facts
are found by rule, in English, and compared by what they mean: 3.40 pm is 15:40, May 14th is 14 May, forty is 40. The
rules would rather miss an invented fact than punish a phrase: a lone name at the beginning of a sentence is no fact.
This file knows neither the marks of an email nor models, and not whether a fact is true.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import dropwhile
from typing import Literal, cast

from adapters.tasks import QUOTES_AND_DASHES

Kind = Literal["number", "time", "date", "amount", "name", "address", "link", "phone", "code"]
Key = tuple[str | float, ...]
Part = frozenset[Key]
"""The ways in which one part of a fact may have been told, of which one is enough; a fact needs all of its parts."""


@dataclass(frozen=True)
class Fact:
    """`text` stands in the text as it is here, but for curly quotes, long dashes and double spaces."""

    kind: Kind
    text: str


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
VALUES = {word: n for n, word in enumerate(UNITS)} | {word: 10 * n for n, word in enumerate(TENS, start=2)}
MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 1000}
CURRENCIES = {
    **dict.fromkeys(["$", "dollar", "buck", "usd"], "$"),
    **dict.fromkeys(["£", "pound", "quid", "gbp"], "£"),
    **dict.fromkeys(["€", "euro", "eur"], "€"),
    **dict.fromkeys(["¥", "yen", "jpy"], "¥"),
    **{word: word for word in ("chf", "franc", "krona", "krone", "rupee", "cent", "penny", "pence")},
}
# Numbers that are told without a figure: "half an hour" lets an answer say 30 minutes.
IN_OTHER_WORDS = {
    r"an?|once|single": 1,
    r"two|both|couple|pair|twice|twins?": 2,
    r"fortnight": 14,
    r"half a dozen": 6,
    r"quarter of an hour": 15,
    r"half an hour|half-hour|half hour": 30,
    r"three quarters of an hour": 45,
    r"an hour|one hour": 60,
    r"hour and a half": 90,
    **{ordinal: n for n, ordinal in enumerate(ORDINALS, start=1)},
}

WEEKDAY = rf"(?:(?:{'|'.join(WEEKDAYS)})s?\b|(?-i:Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\b\.?(?=,? \d))"
MONTH = rf"(?:(?:{'|'.join(MONTHS)})\b|(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.?)"
DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
YEAR = r"(?:19|20)\d\d\b"
HOUR = r"(?:[01]?\d|2[0-3])"
HALF_DAY = r"(?:[ap]\.m\b\.?|[ap]m\b)"
SMALL = rf"(?:(?:{'|'.join(TENS)})(?:[- ](?:{'|'.join(UNITS[1:10])}))?|{'|'.join(reversed(UNITS))})\b"
FIGURE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)"
CURRENCY = rf"(?:(?:{'|'.join(word for word in CURRENCIES if word.isalpha())})(?:s|es)?\b|[€£$])"
BEFORE_MONTH = "|".join(
    rf"(?<=\b{word} )"
    for word in ("in", "until", "since", "of", "next", "last", "early", "late", "mid", "from", "before", "after")
)
PATTERNS: dict[Kind, str] = {
    "address": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    "link": r"https?://[^\s<>\"')\]]+|\b(?:[\w-]{1,63}\.){1,5}(?:com|org|net|example|edu|gov|io|uk|de|eu|info)\b"
    r"(?:/[^\s<>\"')\]]*)?",
    # Not by a library of numbers that exist: what a model invents does not, "555-1234" for one.
    "phone": r"\+\d(?:[ ().-]{0,2}\d){6,14}|\(\d{2,5}\)(?:[ .-]?\d){5,10}|\b0\d{2,5}(?:[ -]\d{2,6}){1,4}\b|"
    r"\b\d{3}[ .-]\d{3}[ .-]\d{4}\b|\b\d{3}-\d{4}\b|\b0\d{8,11}\b",
    "amount": rf"(?:[$£€¥]|\b(?:usd|eur|gbp|chf)) ?{FIGURE}k?\b|"
    rf"\b(?:{FIGURE}k?|{SMALL}(?: (?:hundred|thousand))?) ?{CURRENCY}",
    "time": rf"\b{HOUR}(?:[:.][0-5]\d)? ?{HALF_DAY}|\b{HOUR}:[0-5]\d\b|\b(?:\d\d?|{SMALL}) o'clock\b|"
    rf"\b(?:half past|quarter past|quarter to) (?:\d\d?\b|{SMALL})|\b(?:noon|midday|midnight)\b|"
    rf"(?:(?<=\bat )|(?<=\bby )|(?<=\bfrom )|(?<=\buntil )){HOUR}\.[0-5]\d\b",
    "date": rf"\b(?:{WEEKDAY},? (?:the )?)?(?:{DAY} (?:of )?{MONTH}|{MONTH} (?:the )?{DAY}\b(?!:))(?:,? {YEAR})?|"
    rf"\b\d{{4}}-\d\d-\d\d\b|\b\d\d?[/.-]\d\d?[/.-]{YEAR}|\b\d\d?/\d\d?/\d\d\b|\b{WEEKDAY}|\b{MONTH} {YEAR}|"
    rf"(?:{BEFORE_MONTH})(?:{'|'.join(MONTHS)})\b|\b(?:tomorrow|yesterday)\b",
    "code": r"(?-i:\b(?=[A-Z0-9/-]*[A-Z])(?=[A-Z0-9/-]*\d)[A-Z0-9]+(?:[-/][A-Z0-9]+)*\b)",
    "number": rf"\b{FIGURE}(?:(?:k|st|nd|rd|th)\b| ?%| per ?cent\b)?|"
    rf"(?<![\w-])(?:(?:(?:an? |{SMALL} )?(?:dozen|hundred|thousand)\b(?: and {SMALL})?)|{SMALL})",
}
# Where a fact may begin: at a word's beginning, or with a sign. Four of five places are neither, and each would cost a
# try of every pattern.
BEGINS = r"(?:(?<!\w)(?=\S)|(?=[$£€¥+(]))"
SCANNED = re.compile(
    BEGINS + "(?:" + "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items()) + ")", re.IGNORECASE
)
PLACEHOLDER = re.compile(r"\[[^\]\n]{0,60}\]|\{[^}\n]{0,60}\}|<[A-Za-z][^>\n@/:]{0,40}>")
ITEM = re.compile(r"^[ >*-]*\(?\d{1,2}[.)](?=\s)", re.MULTILINE)
# They count nothing in "one of them" and "which of the two".
NO_NUMBER = ("zero", "one", "two")
# "All 25 may come" is no date, though one that was told might be typed like that.
NO_DATE = re.compile(r"\d\d? (?:may|march)")

TITLE = re.compile(r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Rev|Reverend|Judge|Father|Sister|St)\b\.?")
TOKEN = re.compile(rf"\b(?:{TITLE.pattern}|[^\W\d_]\.(?= )|[^\W\d_]+(?:['-][^\W\d_]+)*)")
PARTICLES = frozenset(
    [
        *("van", "von", "de", "der", "den", "del", "della", "di", "da", "la", "le", "du"),
        *("bin", "ibn", "al", "el", "of", "the"),
    ]
)
GREETING = r"\b(?:dear|hi|hello|hey)"
GREETED = re.compile(rf"{GREETING}[ ,]*\Z", re.IGNORECASE)
SENTENCE_START = re.compile(rf"(?:(?:\A|[.!?:;\"()*>-])[\s\"'(*]*|(?i:{GREETING})\b[^.!?\n]{{0,60}},\s*)\Z")
SUBJECT = re.compile(r"^Subject:[^\n]*", re.IGNORECASE | re.MULTILINE)
# Capitalised in greetings, closings and letters, or by habit, without naming anybody.
NO_NAMES = re.compile(
    r"""(?:i|he|she|we|you|they|it|sirs?|madam|all|team|everyone|everybody|there|folks|guys|ladies|gentlemen|colleagues?|
    friends?|customers?|neighbours?|parents?|guests?|members?|volunteers?|hiring|manager|committee|service|support|whom|
    concern|dear|hi|hello|hey|greetings|good|morning|afternoon|evening|day|subject|regards|wishes|sincerely|faithfully|
    truly|respectfully|cordially|warmly|gratefully|yours?|best|kind|kindest|warm|warmest|many|thanks?|love|hugs|cheers|
    care|bye|ciao|hope|looking|forward|please|congratulations|happy|new|year|english|internet|god|mum|dad|mom|a|an|the|
    and|for|to|in|on|at|by|my|our|[^\W\d_]\.?)(?:'(?:m|d|s|t|ll|re|ve))?"""
    + rf"|(?:{'|'.join(day[:3] for day in WEEKDAYS)})(?:\w*day)?s?|(?:{'|'.join(MONTHS)})|(?:{'|'.join(PARTICLES)})",
    re.IGNORECASE | re.VERBOSE,
)
SIGNATURE_LINES = 4
# "At 3" and the 2 of "2-4 pm".
BARE_HOUR = (
    rf"\b(?:at|by|from|until|till|to|before|after|around|about|past) ({HOUR}\b|{SMALL})(?![:.]\d| ?[ap]\.?m\b)|"
    rf"\b({HOUR})(?= ?(?:-|to|and|or) ?{HOUR}(?!\d))"
)


def find_facts(text: str) -> list[Fact]:
    """The facts of a text in the order of their first appearance; one that comes again in other words stands once."""
    plain = PLACEHOLDER.sub(_masked, ITEM.sub(_masked, _plain(text)))
    unique: dict[object, Fact] = {}
    for _, fact in sorted([*_scan(plain), *_names(plain)], key=lambda found: found[0]):
        if fact.text.lower() not in NO_NUMBER and not NO_DATE.fullmatch(fact.text):
            unique.setdefault((fact.kind, _parts(fact)), fact)
    return list(unique.values())


def invented(answer: str, asked: str) -> list[Fact]:
    """The facts of `answer` that `asked`, all that its writer was told, does not hold in any spelling."""
    facts = find_facts(answer)
    if not facts:
        return []
    told, squeezed = _told(_plain(asked)), _squeeze(asked)
    return [fact for fact in facts if not all(part & told or _in(part, squeezed) for part in _parts(fact))]


def _plain(text: str) -> str:
    """Plain quotes and dashes, single spaces, lines kept."""
    return re.sub(r"[^\S\n]+", " ", text.translate(QUOTES_AND_DASHES))


def _scan(text: str) -> Iterator[tuple[int, Fact]]:
    for match in SCANNED.finditer(text):
        kind, found = cast("Kind", match.lastgroup), match.group()
        yield match.start(), Fact(kind, found.rstrip(".,;:!?") if kind == "link" else found)


def _names(text: str) -> Iterator[tuple[int, Fact]]:
    """Capitalised words but those of a subject line, of other facts, and alone at the beginning of a sentence."""
    masked = SCANNED.sub(_masked, SUBJECT.sub(_masked, text))
    lines = masked.split("\n")
    written = [number for number, line in enumerate(lines) if line.strip()]
    start = 0
    for number, line in enumerate(lines):
        signed = number in written[-SIGNATURE_LINES:] or (number in written[:3] and line.rstrip().endswith(","))
        for run in _runs(line, alone=signed and "\0" not in line and _all_capital(line)):
            yield start + run[0].start(), Fact("name", line[run[0].start() : run[-1].end()].removesuffix("'s"))
        start += len(line) + 1


def _masked(match: re.Match[str]) -> str:
    """As long as it was; its last full stop stays, since a sentence may begin after "10 a.m."."""
    last = match.group()[-1]
    return "\0" * (len(match.group()) - 1) + (last if last in ".)" else "\0")


def _all_capital(line: str) -> bool:
    words = [match.group() for match in TOKEN.finditer(line)]
    return not re.search(r"[.!?:;]\s*$", line) and all(word[0].isupper() or len(word) < 4 for word in words)


def _runs(line: str, alone: bool) -> Iterator[list[re.Match[str]]]:
    """The names of a line as their words; `alone`: the line is nothing but a name, so that its first word counts."""
    if not alone and _all_capital(line) and not re.match(GREETING, line, re.IGNORECASE):
        return  # a heading
    run: list[re.Match[str]] = []
    for token in TOKEN.finditer(line):
        word = token.group()
        if run and line[run[-1].end() : token.start()] != " ":
            yield from _trimmed(line, run, alone)
            run = []
        # An initial begins no name: in "go to gate C. Forget the other" it ends a sentence.
        begins = word[0].isupper() and not (word.endswith(".") and not TITLE.fullmatch(word))
        if begins or (run and (word[0].isupper() or word in PARTICLES)):
            run.append(token)
        else:
            yield from _trimmed(line, run, alone)
            run = []
    yield from _trimmed(line, run, alone)


def _trimmed(line: str, run: list[re.Match[str]], alone: bool) -> Iterator[list[re.Match[str]]]:
    """The run without the words at its ends that name nobody; nothing if there are no others."""
    if not run:
        return
    before = line[max(0, run[0].start() - 80) : run[0].start()]
    certain = alone or TITLE.match(run[0].group()) or GREETED.search(before)
    words = run if certain or not SENTENCE_START.search(before) else run[1:]
    words = list(dropwhile(lambda word: _names_nobody(word.group()), words))
    while words and (_names_nobody(words[-1].group()) or TITLE.fullmatch(words[-1].group())):
        words.pop()
    if words:
        yield words


def _names_nobody(word: str) -> bool:
    return bool(NO_NAMES.fullmatch(word)) or (len(word) > 1 and word.isupper())


def _parts(fact: Fact) -> tuple[Part, ...]:
    match fact.kind:
        case "number":
            return (frozenset({("told", _value(fact.text)), *_clock(fact.text)}),)
        case "amount":
            value = _value(fact.text)
            return (frozenset({("money", value, _currency(fact.text)), ("bare", value)}),)
        case "time":
            return (frozenset(_clock(fact.text)),)
        case "date":
            return _date_parts(fact.text.lower())
        case "name":
            words = [word for word in _words(TITLE.sub(" ", fact.text)) if word not in PARTICLES]
            return tuple(frozenset({("word", word), ("word", word.removesuffix("s"))}) for word in words)
        case "phone":
            return (frozenset({("squeezed", re.sub(r"\D", "", fact.text)[-7:])}),)
        case "link":
            return (frozenset({("squeezed", _squeeze(re.sub(r"^(?:https?://)?(?:www\.)?", "", fact.text)))}),)
        case _:
            return (frozenset({("squeezed", _squeeze(fact.text))}),)


def _in(part: Part, squeezed: str) -> bool:
    return any(key[0] == "squeezed" and str(key[1]) in squeezed for key in part)


def _squeeze(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def _words(text: str) -> list[str]:
    """Words in lower case without accents and possessive s."""
    letters = unicodedata.normalize("NFKD", re.sub(r"'s\b", "", text.casefold()))
    return re.findall(r"[^\W\d_]+", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def _value(text: str) -> float:
    """Of the first number in figures, else of the words of a number, else 0."""
    if figure := re.search(FIGURE, text):
        thousands = 1000 if re.match(r"k\b", text[figure.end() :], re.IGNORECASE) else 1
        return float(figure.group().replace(",", "")) * thousands
    total = 0
    for word in re.findall(r"[a-z]+", text.lower()):
        total = max(total, 1) * MULTIPLES[word] if word in MULTIPLES else total + VALUES.get(word, 0)
    return float(total)


def _currency(text: str) -> str:
    plain = text.lower()
    return next(sign for word, sign in CURRENCIES.items() if word in plain)


def _clock(text: str) -> set[Key]:
    """The minutes of the day that a time may mean: both halves of the day unless it says which."""
    plain = text.lower()
    if re.search("noon|midday|midnight", plain):
        return {("time", 0 if "midnight" in plain else 720)}
    if past := re.match(r"(half past|quarter past|quarter to) (.+)", plain):
        minutes = 60 * int(_value(past[2])) + {"half past": 30, "quarter past": 15, "quarter to": -15}[past[1]]
        return {("time", minutes % 720), ("time", minutes % 720 + 720)}
    figures = re.match(rf"({HOUR})(?:[:.]([0-5]\d))?(?: ?([ap])\.?m|(?![\d%:.]))|.+ o'clock", plain)
    if not figures or not (figures[2] or figures[3] or "o'clock" in plain):
        return set()
    hour, minute = int(figures[1] or _value(plain)), int(figures[2] or 0)
    if figures[3]:
        return {("time", hour % 12 * 60 + minute + (720 if figures[3] == "p" else 0))}
    return {("time", h * 60 + minute) for h in ({hour} if hour > 12 or hour == 0 else {hour % 12, hour % 12 + 12})}


def _date_parts(text: str) -> tuple[Part, ...]:
    if text in ("tomorrow", "yesterday"):
        return (frozenset({("day", text)}),)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    parts = [
        frozenset[Key]({("weekday", n)}) for n, day in enumerate(WEEKDAYS) if re.match(rf"{day[:3]}[a-z]*\b", text)
    ]
    month = next((n for n, name in enumerate(MONTHS, 1) if re.search(rf"(?<![a-z]){name[:3]}(?!\w*day)", text)), 0)
    if len(numbers) == 3 and not month:
        year, one, other = numbers if numbers[0] > 31 else reversed(numbers)
        parts += [frozenset({("day", one, other), ("day", other, one)}), frozenset({("told", float(year))})]
        return tuple(parts)
    days, years = [n for n in numbers if n <= 31], [n for n in numbers if n > 31]
    if month:
        parts.append(frozenset({("day", days[0], month)} if days else {("month", month)}))
    return (*parts, *(frozenset[Key]({("told", float(year))}) for year in years))


def _told(asked: str) -> frozenset[Key]:
    """Every key that the text holds, generously: a 14 anywhere lets an answer say "the 14th"."""
    lower = asked.lower()
    keys: set[Key] = {("word", word.removesuffix("s")) for word in _words(asked)} | {("told", 1.0)}
    keys |= {("told", float(figure.replace(",", ""))) for figure in re.findall(FIGURE, asked)}
    keys |= {("told", float(n)) for words, n in IN_OTHER_WORDS.items() if re.search(rf"\b(?:{words})\b", lower)}
    keys |= {("weekday", n) for n, day in enumerate(WEEKDAYS) if re.search(rf"\b{day[:3]}(?:s|rs?)?\b", lower)}
    keys |= {("month", n) for n, month in enumerate(MONTHS, 1) if re.search(rf"\b{month[:3]}({month[3:]}|t?)\b", lower)}
    for _, fact in _scan(asked):
        keys |= _told_by(fact)
    for hour in re.findall(BARE_HOUR, lower):
        keys |= _clock(f"{int(_value(''.join(hour)))} o'clock")
    for figures in re.findall(r"\b\d{1,2}[:.]\d\d\b", asked):
        keys |= _clock(figures.replace(".", ":"))
    for one, other in re.findall(r"\b(\d\d?)[/.](\d\d?)\b", asked):
        keys |= {("day", int(one), int(other)), ("day", int(other), int(one))}
    for day, rest in re.findall(rf"\b({DAY})(?= ?(?:-|,|to|and|or|&) ?{DAY} ?(?:of )?({MONTH}))", lower):
        keys |= _told_by(Fact("date", f"{day} {rest}"))
    for month, day in re.findall(rf"\b({MONTH}) {DAY} ?(?:-|,|to|and|or|&) ?({DAY})\b", lower):
        keys |= _told_by(Fact("date", f"{day} {month}"))
    return frozenset(keys)


def _told_by(fact: Fact) -> set[Key]:
    """What a fact tells beside itself: an amount of a currency is none of another, and a date tells its month."""
    keys = {key for part in _parts(fact) for key in part if key[0] != "bare"}
    if fact.kind == "number":
        keys |= {("bare", _value(fact.text)), ("told", _value(fact.text))}
    days = [(int(key[1]), int(key[2])) for key in keys if key[0] == "day" and len(key) == 3]
    keys |= {("month", month) for _, month in days}
    for year in [int(key[1]) for key in keys if key[0] == "told" and fact.kind == "date"]:
        for day, month in days:
            with suppress(ValueError):
                keys.add(("weekday", date(year, month, day).weekday()))
    return keys
