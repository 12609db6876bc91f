"""Write the table of the server's series into deploy/README.md, from where they are declared (server/metrics.py).

.venv/bin/python deploy/metrics_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from server.metrics import ALL, Series

README = Path(__file__).with_name("README.md")
BEGIN = "<!-- series: written by deploy/metrics_table.py -->\n"
END = "<!-- end of series -->\n"


def table() -> str:
    rows = ["| series | type | labels | unit | meaning |", "| --- | --- | --- | --- | --- |", *map(row, ALL)]
    buckets = [
        f"- `{series.name}`: {', '.join(f'{limit:g}' for limit in series.buckets)}" for series in ALL if series.buckets
    ]
    return "\n".join([*rows, "", "Upper limits of the buckets:", "", *buckets]) + "\n"


def row(series: Series) -> str:
    labels = ", ".join(f"`{label}`" for label in series.labels)
    return f"| `{series.name}` | {series.kind.__name__.lower()} | {labels} | {series.unit} | {series.help} |"


def rewritten(readme: str) -> str:
    """`readme` with the table as it should be."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{README} lacks one of the lines\n{BEGIN}{END}")
    return before + begin + table() + end + after


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
