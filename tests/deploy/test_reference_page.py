"""The generated parts of the documentation are those that the code gives."""

from pathlib import Path

import pytest

from adapters import errors
from server.metrics import ALL
from tests.deploy.conftest import DEPLOY, script

DOCS = DEPLOY.parent / "docs"
REFERENCE = script("reference_page")
PAGES = [file for file in sorted(DOCS.rglob("*.md")) if "<!-- generated: " in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_the_code_says(page: Path):
    text = page.read_text(encoding="utf-8")
    assert REFERENCE.rewritten(text) == text, "stale: run .venv/bin/python deploy/reference_page.py"


def test_every_part_has_a_place():
    written = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in REFERENCE.PARTS if f"<!-- generated: {name} -->" not in written] == []


def test_a_stale_part_is_written_anew_and_nothing_else():
    page = "before\n<!-- generated: errors -->\nold\n<!-- end -->\nafter\n<!-- generated: figures -->\n<!-- end -->\n"
    text = REFERENCE.rewritten(page)
    assert text.startswith("before\n<!-- generated: errors -->\n\n| status |")
    assert "\n<!-- end -->\nafter\n<!-- generated: figures -->\n\n| name |" in text
    assert REFERENCE.rewritten(text) == text


@pytest.mark.parametrize(
    "command", ["trainer sft", "trainer evaluate", "server", "server keys create", "adapters promote", "ui"]
)
def test_every_command_shows_its_help(command: str):
    assert f" {command}\n\n```text\nusage: {command} " in REFERENCE.commands()


def test_a_field_of_a_recipe_names_its_flag_where_it_has_one():
    rows = REFERENCE.recipe()
    assert "\n| `batch_size` | `--batch-size` | required | Emails a step. |\n" in rows
    assert "\n| `warmup` |  | `0.05` | " in rows


def test_every_error_has_its_status_and_code():
    rows = REFERENCE.error_table()
    assert f"\n| {errors.Overloaded.status} | `{errors.Overloaded.code}` | " in rows
    assert [row for row in rows.splitlines() if row.endswith("|  |")] == [], (
        "its meaning is missing in adapters/errors.py"
    )


def test_every_series_is_listed():
    rows = REFERENCE.metrics()
    assert [series.name for series in ALL if f"| `{series.name}` |" not in rows] == []
