"""The checkable facts of a text, and which facts of an answer its task does not have.

A fact is a number, time, date, amount, name, email address, link, phone number or code (of an order, an invoice). Facts
are found by rule, in English, and compared by meaning: 3.40 pm is 15:40, May 14th is 14 May, forty is 40. A rule may
miss an invented fact, but should not count a phrase as one: a lone name at the beginning of a sentence is not a fact.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import dropwhile, product
from typing import Literal, cast

from adapters.emails.form import HELLO, PLACEHOLDER, TITLES, is_not_name
from adapters.emails.number_words import (
    AND_A_HALF,
    CURRENCIES,
    CURRENCY,
    FIGURE,
    MONTHS,
    ONES,
    SCALE,
    SCALED,
    SMALL,
    WEEKDAYS,
    WORD_DAY,
    WORDED,
    currency,
    in_figures,
    numbers,
    values,
)
from adapters.emails.tasks import QUOTES_AND_DASHES

FactKind = Literal["number", "time", "date", "amount", "name", "address", "link", "phone", "code"]
Key = tuple[str | float, ...]
# The spellings of one part of a fact: a task must have one of them for every part.
Part = frozenset[Key]


@dataclass(frozen=True)
class Fact:
    """`text` is a part of the text, except for curly quotes, long dashes and double spaces."""

    kind: FactKind
    text: str


WEEKDAY = rf"(?:(?:{'|'.join(WEEKDAYS)})s?\b|(?-i:Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\b\.?(?=,? \d))"
MONTH = rf"(?:(?:{'|'.join(MONTHS)})\b|(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.?)"
DAY_NUMBER, MONTH_NUMBER = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
DAY = rf"{DAY_NUMBER}(?:st|nd|rd|th)?"
DAY_MONTH = rf"(?:{DAY_NUMBER}/{MONTH_NUMBER}|{MONTH_NUMBER}/{DAY_NUMBER})(?![/\d]| {MONTH})"
MONTH_OF_YEAR = rf"(?:{MONTH_NUMBER}[/.](?:19|20)\d\d|(?:19|20)\d\d[/-](?:0[1-9]|1[0-2]))(?![/.-]?\d)"
YEAR = r"(?:(?:19|20)\d\d|'\d\d)\b"
HOUR = r"(?:[01]?\d|2[0-4])"
HALF_DAY = r"(?:[ap]\.m\b\.?|[ap]m\b)"
HOUR_WORD = rf"(?:{'|'.join(reversed(ONES[1:13]))})\b"
CLOCK_HOUR = rf"(?:{HOUR}(?!\d)|{HOUR_WORD})"
MINUTES = r"(?:five|ten|fifteen|twenty|twenty-five|thirty|thirty-five|forty|forty-five|fifty|fifty-five)\b"
BEFORE_MONTH = "|".join(
    rf"(?<=\b{word} )" for word in "in until since of next last early late mid from before after".split()
)
PATTERNS: dict[FactKind, str] = {
    "address": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    "link": r"https?://[^\s<>\"')\]]+|\b(?:[\w-]{1,63}\.){1,5}(?:com|org|net|example|edu|gov|io|uk|de|eu|info)\b"
    r"(?:/[^\s<>\"')\]]*)?",
    # Not by a library, which finds real numbers only: a model also invents "555-1234".
    "phone": r"\+\d(?:[ ().-]{0,2}\d){6,14}|\(\d{2,5}\)(?:[ .-]?\d){5,10}|\b0\d{2,5}(?:[ -]\d{2,6}){1,4}\b|"
    r"\b\d{3}[ .-]\d{3}[ .-]\d{4}\b|\b\d{3}-\d{4}\b|\b0\d{8,11}\b",
    "amount": rf"(?:[$£€¥]|\b(?:{'|'.join(word for word in CURRENCIES if len(word) == 3)})) ?"
    rf"(?:{FIGURE} {SCALE}|{SCALED})|\b(?:{WORDED}|{SCALED}) ?{CURRENCY}",
    "time": rf"\b(?:{HOUR}(?:[:.][0-5]\d)?|{CLOCK_HOUR}) ?{HALF_DAY}|\b{HOUR}[:h][0-5]\d\b|"
    rf"\b(?:\d\d?|{SMALL}) o'clock\b|\b(?:(?:12|twelve) )?(?:noon|midday|midnight)\b|"
    rf"\b(?:half(?: past)?|quarter (?:past|to)|(?:{MINUTES}|\d\d?)(?: minutes)? past) {CLOCK_HOUR}|"
    rf"(?:(?<=\bat )|(?<=\bby )|(?<=\bfrom )|(?<=\buntil ))(?:{HOUR}\.[0-5]\d\b|{CLOCK_HOUR} {MINUTES})|"
    rf"(?<=\bat ){MINUTES} to {CLOCK_HOUR}|\b{HOUR_WORD} (?:fifteen|thirty|forty-five)\b(?![- ]min)",
    "date": rf"\b(?:{WEEKDAY},? (?:the )?)?(?:(?:{DAY} (?:of )?|{WORD_DAY} of ){MONTH}|{MONTH} (?:the )?{DAY}\b(?!:))"
    rf"(?:,? {YEAR})?|\b\d{{4}}[/.-]\d\d?[/.-]\d\d?(?!\d)|\b\d\d?[/.-]\d\d?[/.-](?:{YEAR}|\d\d\b)|"
    rf"\b{MONTH_OF_YEAR}|\b(?:{WEEKDAY},? )?{DAY_MONTH}|\b{WEEKDAY}|\b{MONTH} {YEAR}|"
    rf"(?:{BEFORE_MONTH})(?:{'|'.join(MONTHS)})\b|\b(?:tomorrow|yesterday)\b",
    "code": rf"(?-i:\b(?!{FIGURE}(?:[KM]|[BM]N)\b)(?=[A-Z0-9/-]*[A-Z])(?=[A-Z0-9/-]*\d)[A-Z0-9]+(?:[-/][A-Z0-9]+)*\b)",
    "number": rf"(?<![\w-]){WORDED}(?: grand\b)?|\b{FIGURE}(?:(?:st|nd|rd|th)\b| ?%| per ?cent\b)|"
    rf"\b{HOUR}h\b|\b{SCALED}{AND_A_HALF}(?: grand\b)?",
}
# A fact begins with a word or a sign. Four of five places are neither, and each would cost a try of every pattern.
BEGINS = r"(?:(?<!\w)(?=\S)|(?=[$£€¥+(]))"
SCANNED = re.compile(
    BEGINS + "(?:" + "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items()) + ")", re.IGNORECASE
)
ITEM = re.compile(r"^[ >*-]*\(?\d{1,2}[.)](?=\s)", re.MULTILINE)
# They do not count in "one of them", "which of the two", "thanks a million" and "open 24/7".
NO_NUMBER = ("zero", "one", "two", "a million", "24/7")
# "All 25 may come" has no date, though a task may write one like that.
NO_DATE = re.compile(r"\d\d? (?:may|march)")

TITLE = re.compile(rf"(?:{TITLES}|St)\b\.?")
TOKEN = re.compile(rf"\b(?:{TITLE.pattern}|[^\W\d_]\.(?= )|[^\W\d_]+(?:['-][^\W\d_]+)*)")
PARTICLES = frozenset("van von de der den del della di da la le du bin ibn al el of the".split())
GREETED = re.compile(rf"\b{HELLO}[ ,]*\Z", re.IGNORECASE)
SENTENCE_START = re.compile(rf"(?:(?:\A|[.!?:;\"()*>-])[\s\"'(*]*|(?i:\b{HELLO})[^.!?\n]{{0,60}},\s*)\Z")
SUBJECT = re.compile(r"^Subject:[^\n]*", re.IGNORECASE | re.MULTILINE)
SIGNATURE_LINES = 4
# "At 3", "3 sharp", "15h", and both hours of "2-4 pm".
BARE_HOUR = (
    rf"\b(?:at|by|from|until|till|to|before|after|around|about|past|between) ({CLOCK_HOUR})(?![:.]\d| ?[ap]\.?m\b)|"
    rf"\b({CLOCK_HOUR})(?= ?(?:sharp|ish|tonight|tomorrow|in the (?:morning|afternoon|evening))\b)|\b({HOUR})(?=h\b)"
)
HOURS = rf"\b({CLOCK_HOUR}|noon|midnight)(?:[:.]\d\d)? ?(?:-|to|and|or) ?({CLOCK_HOUR}|noon|midnight)"


def find_facts(text: str) -> list[Fact]:
    """The facts of a text in the order of their first appearance; one that comes again in other words stands once."""
    plain = PLACEHOLDER.sub(_masked, ITEM.sub(_masked, _plain(text)))
    unique: dict[object, Fact] = {}
    for _, fact in sorted([*_scan(plain), *_names(plain)], key=lambda found: found[0]):
        if fact.text.lower() not in NO_NUMBER and not NO_DATE.fullmatch(fact.text):
            unique.setdefault((fact.kind, _parts(fact)), fact)
    return list(unique.values())


def invented(answer: str, asked: str) -> list[Fact]:
    """The facts of `answer` that `asked`, its whole prompt, does not have in any spelling."""
    facts = find_facts(answer)
    if not facts:
        return []
    keys, squeezed = _task_keys(_plain(asked)), _squeeze(asked)
    return [fact for fact in facts if not all(part & keys or _in(part, squeezed) for part in _parts(fact))]


def _plain(text: str) -> str:
    """Plain quotes and dashes, single spaces, lines kept."""
    return re.sub(r"[^\S\n]+", " ", text.translate(QUOTES_AND_DASHES))


def _scan(text: str) -> Iterator[tuple[int, Fact]]:
    for match in SCANNED.finditer(text):
        kind, found = cast("FactKind", match.lastgroup), match.group()
        yield match.start(), Fact(kind, found.rstrip(".,;:!?") if kind == "link" else found)


def _names(text: str) -> Iterator[tuple[int, Fact]]:
    """Capitalised words, except those of a subject line, of other facts, and alone at a sentence's beginning."""
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
    if not alone and _all_capital(line) and not re.match(HELLO, line, re.IGNORECASE):
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
    """The run without the words at its ends that are not names; nothing if none is left."""
    if not run:
        return
    before = line[max(0, run[0].start() - 80) : run[0].start()]
    certain = alone or TITLE.match(run[0].group()) or GREETED.search(before)
    words = run if certain or not SENTENCE_START.search(before) else run[1:]
    words = list(dropwhile(lambda word: _not_a_name(word.group()), words))
    while words and (_not_a_name(words[-1].group()) or TITLE.fullmatch(words[-1].group())):
        words.pop()
    if words:
        yield words


def _not_a_name(word: str) -> bool:
    return is_not_name(word) or word.lower() in PARTICLES or (len(word) > 1 and word.isupper())


def _parts(fact: Fact) -> tuple[Part, ...]:
    match fact.kind:
        case "number":
            return (frozenset({*(("number", value) for value in values(fact.text)), *_clock(fact.text)}),)
        case "amount":
            value = values(fact.text)[0]
            return (frozenset({("money", value, currency(fact.text)), ("bare", value)}),)
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


def _clock(text: str) -> set[Key]:
    """The minutes of the day that a time may mean: both halves of the day unless it says which."""
    plain = re.sub(rf"\b{SMALL}", in_figures, text.lower())
    if re.search("noon|midday|midnight", plain):
        return {("time", 0 if "midnight" in plain else 720)}
    if in_one := re.fullmatch(r"([01]\d|2[0-3])([0-5]\d)", plain):
        return {("time", int(in_one[1]) * 60 + int(in_one[2]))}
    if past := re.match(r"(half|quarter|\d+)(?: minutes)? (to |past |(?<=half ))(\d+)", plain):
        minutes = {"half": 30, "quarter": 15}.get(past[1]) or int(past[1])
        return _both_halves(int(past[3]), -minutes if past[2] == "to " else minutes)
    figures = re.match(rf"({HOUR})(?:[:.h ]([0-5]\d))?(?: ?([ap])\.?m|(?![\d%:.])| o'clock)", plain)
    if not figures or not (figures[2] or figures[3] or "o'clock" in plain or plain.endswith("h")):
        return set()
    hour, minute = int(figures[1]), int(figures[2] or 0)
    if figures[3]:
        return {("time", hour % 12 * 60 + minute + (720 if figures[3] == "p" else 0))}
    return {("time", hour % 24 * 60 + minute)} if hour > 12 or hour == 0 else _both_halves(hour, minute)


def _both_halves(hour: int, minute: int) -> set[Key]:
    return {("time", (hour % 12 * 60 + minute) % 720 + half) for half in (0, 720)}


def _date_parts(text: str) -> tuple[Part, ...]:
    if text in ("tomorrow", "yesterday"):
        return (frozenset({("day", text)}),)
    numbers = [int(number) for number in re.findall(r"\d+", re.sub(WORD_DAY, in_figures, text).replace("'", "20"))]
    days, years = [n for n in numbers if n <= 31], [n for n in numbers if n > 31]
    weekday = next((n for n, day in enumerate(WEEKDAYS) if re.match(rf"{day[:3]}[a-z]*\b", text)), None)
    parts = [] if weekday is None else [frozenset[Key]({("weekday", weekday)})]
    month = next((n for n, name in enumerate(MONTHS, 1) if re.search(rf"(?<![a-z]){name[:3]}(?!\w*day)", text)), 0)
    if month:
        parts.append(frozenset({("day", days[0], month)} if days else {("month", month)}))
    elif len(numbers) > 2 or len(days) == 2:
        # 2024-06-03, 3/6/24 or 3/6: which number is the month is open.
        *years, one, other = numbers if numbers[0] > 31 else reversed(numbers)
        parts.append(frozenset({("day", one, other), ("day", other, one)}))
    elif days and years:
        parts.append(frozenset({("month", days[0])}))
    return (*parts, *map(_year, years))


def _year(number: int) -> Part:
    return frozenset(("number", float(number + century)) for century in ([0] if number > 99 else [1900, 2000]))


def _task_keys(task: str) -> frozenset[Key]:
    """Every key that the task holds, generously: a 14 anywhere lets an answer say "the 14th"."""
    with_figures = re.sub(WORD_DAY, in_figures, task, flags=re.IGNORECASE)
    task = task if with_figures == task else f"{task}\n{with_figures}"
    lower = task.lower()
    keys: set[Key] = {("word", word.removesuffix("s")) for word in _words(task)}
    keys.update(("number", number) for number in numbers(lower))
    keys.update(("weekday", n) for n, day in enumerate(WEEKDAYS) if re.search(rf"\b{day[:3]}(?:s|rs?)?\b", lower))
    for n, month in enumerate(MONTHS, 1):
        if re.search(rf"\b{month[:3]}({month[3:]}|t?)\b", lower):
            keys.add(("month", n))
    for _, fact in _scan(task):
        keys |= _fact_keys(fact)
    for hours in (*re.findall(BARE_HOUR, lower), *re.findall(HOURS, lower)):
        for hour in filter(None, hours):
            keys |= _clock(f"{hour} o'clock")
    for clock in re.findall(rf"\b\d{{1,2}}[:.]\d\d\b|\b{CLOCK_HOUR} {MINUTES}|\b{MINUTES} to {CLOCK_HOUR}", lower):
        keys |= _clock(clock.replace(".", ":"))
    for one, other in re.findall(r"\b(\d\d?)[/.](\d\d?)\b", task):
        keys |= {("day", int(one), int(other)), ("day", int(other), int(one))}
    for day, month in re.findall(rf"\b({DAY})(?= ?(?:-|,|to|and|or|&) ?{DAY} ?(?:of )?({MONTH}))", lower):
        keys |= _fact_keys(Fact("date", f"{day} {month}"))
    for month, day in re.findall(rf"\b({MONTH}) {DAY} ?(?:-|,|to|and|or|&) ?({DAY})\b", lower):
        keys |= _fact_keys(Fact("date", f"{day} {month}"))
    return frozenset(keys)


def _fact_keys(fact: Fact) -> set[Key]:
    """The keys that a fact of a task gives: an amount of a currency is none of another, and a date gives its month."""
    keys = {key for part in _parts(fact) for key in part if key[0] != "bare"}
    if fact.kind == "number":
        keys.update(("bare", value) for value in values(fact.text))
    elif fact.kind == "time":
        keys.update([("number", float(int(minute) // 60 % 12 or 12)) for _, minute in keys])
    elif fact.kind == "date":
        days = [(int(key[1]), int(key[2])) for key in keys if key[0] == "day" and len(key) == 3]
        years = [int(key[1]) for key in keys if key[0] == "number"]
        keys.update(("month", month) for _, month in days)
        for year, (day, month) in product(years, days):
            # The 30th of February has no weekday.
            with suppress(ValueError):
                keys.add(("weekday", date(year, month, day).weekday()))
    return keys
