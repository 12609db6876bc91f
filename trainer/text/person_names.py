"""Names of people in an email or its task, found by where they stand: greeting, sign-off, `to:` lines, titles.

A name that only stands within a sentence, without a title, is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Literal

import regex

from adapters.emails.form import FEMALE, HELLO, MALE, TITLES, is_closing, is_not_name

# A first name is male or female by its title.
Role = Literal["male", "female", "first", "last"]

TITLE_WORDS = frozenset(TITLES.lower().split("|"))

WORD = r"\p{Lu}\p{Ll}[\p{L}\p{M}]*(?:-\p{L}{2,}|['’]\p{Lu}\p{L}+)*|\p{Lu}['’]\p{Lu}\p{L}+(?:-\p{L}{2,})*|\p{Lu}{2,}"
PARTICLE = r"van|von|der|den|de|da|di|del|della|la|le|bin|ten|ter|dos|zu"
NAME = rf"(?:(?:{TITLES})\b\.?[ \t]+)*(?:{WORD})(?:[ \t]+(?:(?:{PARTICLE})[ \t]+)*(?:\p{{Lu}}\.|{WORD})){{0,3}}"
GREETINGS = rf"(?i:{HELLO})"
SEPARATOR = r"[ \t]*(?:,|&|/|\band\b|\bund\b|\bet\b|\by\b|\be\b)[ \t]*"
PLACES = [
    # The whole line greets, so that commas can only separate names; else the first comma ends the greeting.
    rf"(?m)^[ \t]*{GREETINGS}[ \t,]+(?P<name>{NAME})(?:{SEPARATOR}(?P<name>{NAME}))*[ \t]*[,:!.;-]*[ \t]*$",
    rf"(?m)^[ \t]*{GREETINGS}[ \t]+(?P<name>{NAME})(?:[ \t]+(?:and|&|und|et)[ \t]+(?P<name>{NAME}))?",
    rf"\A(?:Subject:[^\n]*\n)?\s*(?P<name>{NAME})[ \t]*[,:][ \t]*\n",
    rf"(?mi)^\W*(?:to|from|cc|signed|signature|sender|recipient|attn|contact|von|an|de|para)[ \t]*[:=][ \t]*"
    rf"(?-i:(?P<name>{NAME})(?:{SEPARATOR}(?P<name>{NAME}))*)",
    rf"\b(?:I['’]m|I am|[Mm]y name is|[Tt]his is|[Ss]igned|[Ee]-?mail(?: to)?|[Ww]rite to)[ \t]+(?P<name>{NAME})",
    rf"\b(?P<name>(?:{TITLES})\b\.?[ \t]+(?:{WORD})(?:[ \t]+(?:{WORD}))?)",
]
PATTERNS = [regex.compile(place) for place in PLACES]
ALONE = regex.compile(rf"({NAME})[ \t]*[,.]?")
CLOSED_WITH = regex.compile(rf"(?P<closing>[^,\n]{{2,40}}),[ \t]*(?P<name>{NAME})[.]?")
ONE_WORD = regex.compile(WORD)
TOKEN = regex.compile(r"(?<![\w\[])[\p{L}\p{M}]+(?:-[\p{L}\p{M}]{2,}|['’]\p{Lu}[\p{L}\p{M}]+)*(?![\w\]])")
PART = regex.compile(r"[\p{L}\p{M}]+")
BETWEEN = regex.compile(rf"[ \t]+(?:(?:{PARTICLE}|\p{{Lu}}\.)[ \t]+)*")
WITHIN_SENTENCE = regex.compile(r"[\p{L},][ \t]\Z")
TITLED = regex.compile(rf"((?:{TITLES})\b\.?[ \t]+)+")


def name_words(text: str) -> dict[str, Role]:
    """The words of every person's name in `text`, without titles and initials, and what kind of name each is."""
    words: dict[str, Role] = {}
    for name in _seeds(text):
        words = joined(words, _words(name))
    tokens = list(TOKEN.finditer(text))
    for left, right in pairwise(tokens):
        if text[left.end() : right.start()] != " ":
            continue
        if words.get(left[0], "last") != "last" and _may_be_name(right[0]):
            words.setdefault(right[0], "last")
        # Not at the start of a sentence, where any word has a capital.
        if words.get(right[0]) == "last" and _may_be_name(left[0]) and WITHIN_SENTENCE.search(text[: left.start()]):
            words.setdefault(left[0], "first")
    return words


def joined(known: dict[str, Role], more: dict[str, Role]) -> dict[str, Role]:
    """`known` and the words of `more` besides; male or female replaces first."""
    return known | {
        word: role
        for word, role in more.items()
        if word not in known or (known[word] == "first" and role in ("male", "female"))
    }


def occurrences(text: str, words: Collection[str], whole: bool = True) -> Iterator[tuple[int, int]]:
    """Where `words` stand, also in capitals, those of one `whole` name together. `[NAME]` is not one."""
    if not words:
        return
    spellings = {*words, *(word.upper() for word in words)}
    start = end = -1
    for at, until in _tokens(text, spellings):
        if start >= 0 and whole and BETWEEN.fullmatch(text[end:at]):
            end = until
            continue
        if start >= 0:
            yield start, end
        start, end = at, until
    if start >= 0:
        yield start, end


def _tokens(text: str, wanted: Collection[str]) -> Iterator[tuple[int, int]]:
    """Where the `wanted` words stand, also as a part of a hyphenated one."""
    for token in TOKEN.finditer(text):
        if token[0] in wanted:
            yield token.span()
        else:
            for part in PART.finditer(token[0]):
                if part[0] in wanted:
                    yield token.start() + part.start(), token.start() + part.end()


def _may_be_name(word: str) -> bool:
    return bool(ONE_WORD.fullmatch(word)) and not is_not_name(word) and word.lower() not in TITLE_WORDS


def _seeds(text: str) -> Iterator[str]:
    for pattern in PATTERNS:
        for match in pattern.finditer(text):
            yield from match.captures("name")
    yield from _signatures(text)


def _signatures(text: str) -> Iterator[str]:
    """Who signs: the line after a closing phrase, what follows it on its line, or a last line that is a name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-6:]
    for before, line in pairwise(last):
        alone = ALONE.fullmatch(line)
        closed = is_closing(before) or (line is lines[-1] and before[-1] in ".!?," and len(line.split()) <= 2)
        if alone and closed:
            yield alone[1]
    for line in last:
        match = CLOSED_WITH.fullmatch(line)
        if match and is_closing(match["closing"]):
            yield match["name"]


def _words(name: str) -> dict[str, Role]:
    """The words of one name up to a word that is not a name; a single word after a title is a last name."""
    title = TITLED.match(name)
    words: list[str] = []
    for word in ONE_WORD.findall(name[title.end() :] if title else name):
        if not _may_be_name(word):
            break
        words.append(word)
    first: Role = "first"
    if title and regex.search(rf"\b(?:{MALE}|{FEMALE})\b", title[0]):
        first = "male" if regex.search(rf"\b(?:{MALE})\b", title[0]) else "female"
    if len(words) == 1:
        return {words[0]: "last" if title else first}
    return {word: "last" if word == words[-1] else first for word in words}
