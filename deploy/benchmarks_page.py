"""Write docs/benchmarks/index.md from docs/benchmarks/results.json, which holds the newest result of each benchmark.

.venv/bin/python deploy/benchmarks_page.py             write the page
.venv/bin/python deploy/benchmarks_page.py --check     exit status 1 if the page is stale
.venv/bin/python deploy/benchmarks_page.py add FILE    put the result in FILE in place of an older one, write the page
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
HEAD = """# Benchmarks

Written by `deploy/benchmarks_page.py` from `results.json`; do not edit this page by hand.

The newest result of each benchmark, newest first, times in UTC. [What followed from them](../decisions/cpu-serving.md).
Speed differs by a tenth and more between two runs: compare figures within one table only.
"""


class Result(BaseModel, extra="forbid"):
    """One run of one benchmark, its date in UTC. What the run did not record stays empty."""

    bench: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    headline: str
    """One sentence: what came out."""
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d( \d\d:\d\d)?$")
    command: str = ""
    commit: str = ""
    machine: str
    versions: dict[str, str] = {}
    load: str = ""
    """What the machine did: rounds, clients, tokens, and what else ran on it."""
    goal: str = ""
    rows: list[dict[str, str | int | float]] = Field(min_length=1)
    """Successive rows with the same keys are one table."""
    notes: list[str] = []


RESULTS = TypeAdapter(list[Result])


def page(results: Sequence[Result]) -> str:
    index = ["| benchmark | result | date |", "| --- | --- | --- |"]
    index += [f"| [{result.bench}](#{result.bench}) | {result.headline} | {result.date[:10]} |" for result in results]
    return "\n".join([HEAD, *index, *(line for result in results for line in section(result))]) + "\n"


def section(result: Result) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    facts = {
        "Command": f"`{result.command}`" if result.command else "",
        "Date": result.date,
        "Commit": f"`{result.commit}`" if result.commit else "",
        "Machine": result.machine,
        "Versions": versions,
        "Load": result.load,
        "Goal": result.goal,
    }
    yield from ("", f"## {result.bench}", "", result.headline, "")
    yield from (f"- {name}: {fact}" for name, fact in facts.items() if fact)
    for columns, rows in groupby(result.rows, key=list):
        yield from ("", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|")
        yield from (f"| {' | '.join(cell(row[column]) for column in columns)} |" for row in rows)
    if result.notes:
        yield from ("", *(f"- {note}" for note in result.notes))


def cell(value: str | int | float) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def added(results: Sequence[Result], new: Result) -> list[Result]:
    """Newest first, with `new` in place of its bench's earlier result."""
    for old in results:
        if old.bench == new.bench and old.date > new.date:
            raise SystemExit(f"error: results.json has {new.bench} of {old.date}, newer than {new.date}: kept")
    kept = [result for result in results if result.bench != new.bench]
    return sorted([*kept, new], key=lambda result: result.date, reverse=True)


def read_result(file: Path) -> Result:
    try:
        return Result.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise SystemExit(f"error: {file} is not a result: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with status 1 if the page is stale; write nothing")
    parser.add_subparsers(dest="command").add_parser("add").add_argument("file", type=Path)
    args = parser.parse_args(arguments)
    source, target = DOCS / "results.json", DOCS / "index.md"
    results = RESULTS.validate_json(source.read_text(encoding="utf-8"))
    if args.command == "add":
        results = added(results, read_result(args.file))
        written = [result.model_dump(exclude_defaults=True) for result in results]
        source.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    wanted = page(results)
    if args.check:
        stale = not target.exists() or target.read_text(encoding="utf-8") != wanted
        if stale:
            print(f"error: {target} is stale\nhint: .venv/bin/python deploy/benchmarks_page.py", file=sys.stderr)
        return int(stale)
    target.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
