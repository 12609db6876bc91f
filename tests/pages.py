"""The README and the pages of docs/ in the order in which one reads them, and the commands that they show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"


def _in_order(part: Any) -> Iterator[str]:
    """The files of the navigation."""
    if isinstance(part, str):
        yield part
    else:
        for child in part.values() if isinstance(part, dict) else part:
            yield from _in_order(child)


NAVIGATION = [DOCS / file for file in _in_order(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])]
PAGES = [README, *(page for page in NAVIGATION if page.is_file())]


def fences(language: str) -> list[str]:
    """What every page has in fences of that language."""
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    return [
        block for page in pages for block in re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    ]


def _commands() -> Iterator[list[str]]:
    for line in "".join(fences("sh")).splitlines():
        if words := shlex.split(line, comments=True):
            yield words


COMMANDS = [list(words) for words in dict.fromkeys(map(tuple, _commands()))]
"""Every line of a fence `sh` as its words, each once."""


def commands(*programs: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[0] in programs]
