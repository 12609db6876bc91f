"""Write the generated parts of docs/: commands, recipe fields, errors, metrics and figures, each from the code.

    .venv/bin/python deploy/reference_page.py

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. This file knows no other text of a page.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from pkgutil import resolve_name
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import itertools

from adapters import errors
from server.metrics import ALL as SERIES
from trainer.evaluation.figures import FIGURES
from trainer.training.recipe import Recipe

DOCS = ROOT / "docs"
PART = re.compile(r"(?<=<!-- generated: )(?P<name>\w+) -->\n.*?<!-- end -->", re.DOTALL)
COMMAND = re.compile(r"^ {4}([a-z][a-z-]*)(?: {2}|$)", re.MULTILINE)
UNLISTED = {"server": ["keys"]}
"""Commands that a program's own --help shows in its usage only."""


def commands() -> str:
    """The --help of every command."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    parts = [part for program in scripts for part in _command(resolve_name(scripts[program]), [program])]
    return "\n".join(parts)


def _command(main: Callable[[Sequence[str]], int], words: list[str]) -> Iterator[str]:
    """The part of one command, then those of its own commands."""
    shown = help_of(main, words[1:])
    yield f"{'#' * min(len(words) + 1, 3)} {' '.join(words)}\n\n```text\n{shown.strip()}\n```\n"
    listed = shown.partition("positional arguments:")[2].partition("\n\n")[0]
    for name in [*COMMAND.findall(listed), *UNLISTED.get(" ".join(words), [])]:
        yield from _command(main, [*words, name])


def help_of(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> str:
    printed = StringIO()
    with patch.dict(os.environ, COLUMNS="100"), redirect_stdout(printed), suppress(SystemExit):
        main([*arguments, "--help"])
    return printed.getvalue()


def recipe() -> str:
    """Every field of a recipe, with its flag where it has one."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    flags = set(re.findall(r"--[a-z-]+", help_of(resolve_name(scripts["trainer"]), ["sft"])))
    meanings = documented(Recipe)
    rows = []
    for name, field in Recipe.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        default = "required" if field.is_required() else f"`{field.default}`"
        rows.append([f"`{name}`", f"`{flag}`" if flag in flags else "", default, meanings.get(name, "")])
    return table(["field", "flag", "default", "meaning"], rows)


def documented(described: type) -> dict[str, str]:
    """The strings that stand under the fields of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(described))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def error_table() -> str:
    """Every error, with its status and code over HTTP, and its docstring."""
    kinds = list(_kinds(errors.MailwrightError))
    rows = [
        [str(kind.status), f"`{kind.code}`", f"`{kind.type}`", kind.__name__, inspect.getdoc(kind) or ""]
        for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code, kind.__name__))
    ]
    return table(["status", "`code`", "`type`", "error", "meaning"], rows)


def _kinds(kind: type[errors.MailwrightError]) -> Iterator[type[errors.MailwrightError]]:
    """`kind` and what is derived from it in that module; tests derive more."""
    yield kind
    for derived in kind.__subclasses__():
        if derived.__module__ == errors.__name__:
            yield from _kinds(derived)


def metrics() -> str:
    """Every series of the server, then the upper limits of its buckets."""
    rows = [
        [
            f"`{series.name}`",
            series.kind.__name__.lower(),
            ", ".join(f"`{label}`" for label in series.labels),
            series.unit,
            series.help,
        ]
        for series in SERIES
    ]
    buckets = [
        f"- `{series.name}`: {', '.join(f'{limit:g}' for limit in series.buckets)}"
        for series in SERIES
        if series.buckets
    ]
    listed = "\n".join(buckets)
    return f"{table(['series', 'type', 'labels', 'unit', 'meaning'], rows)}\nUpper limits of the buckets:\n\n{listed}\n"


def figures() -> str:
    """Every figure of an evaluation."""
    rows = [[f"`{name}`", figure.title, figure.unit, figure.meaning] for name, figure in FIGURES.items()]
    return table(["name", "figure", "unit", "meaning"], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


PARTS = {"commands": commands, "recipe": recipe, "errors": error_table, "metrics": metrics, "figures": figures}


def rewritten(page: str) -> str:
    """`page` with every generated part as it should be."""
    return PART.sub(lambda part: f"{part['name']} -->\n\n{PARTS[part['name']]()}\n<!-- end -->", page)


if __name__ == "__main__":
    for file in sorted(DOCS.rglob("*.md")):
        file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
