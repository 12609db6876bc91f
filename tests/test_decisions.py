"""DECISIONS.md is an index of the entries in docs/decisions/: every row has its entry, every entry its row."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted(set(DECISIONS.glob("*.md")) - {DECISIONS / "index.md"})
ROWS = re.findall(
    r"^\| (\S+) \| .+ \| (\w+) \| \[.+\]\((.+)#(.+)\) \|$",
    (ROOT / "DECISIONS.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
PARTS = ["Question", "Tried", "Result", "Decision"]
STATUSES = {"accepted", "superseded", "negative"}


def anchor(title: str) -> str:
    """As GitHub and MkDocs make it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def entries(page: Path) -> list[tuple[str, str]]:
    """Title and text of each entry of a page."""
    _, *sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(title, text) for title, _, text in (section.partition("\n") for section in sections)]


ENTRIES = [(page, title, text) for page in PAGES for title, text in entries(page)]


def test_the_index_has_every_entry_once_with_its_date_and_status():
    listed = sorted((page, name, date, status) for date, status, page, name in ROWS)
    written = []
    for page, title, text in ENTRIES:
        date, status = text.partition("\n")[0].split(", ")
        written.append((str(page.relative_to(ROOT)), anchor(title), date, status))
    assert listed == sorted(written)


def test_every_row_of_the_table_is_read():
    table = [line for line in (ROOT / "DECISIONS.md").read_text().splitlines() if line.startswith("| 2")]
    assert len(table) == len(ROWS) > 40


def test_the_index_is_newest_first_and_so_is_every_page():
    dates = [row[0] for row in ROWS]
    assert dates == sorted(dates, reverse=True)
    for page in PAGES:
        of_page = [text[:10] for _, text in entries(page)]
        assert of_page == sorted(of_page, reverse=True), page.name


@pytest.mark.parametrize(("page", "title", "text"), ENTRIES, ids=[title for _, title, _ in ENTRIES])
def test_an_entry_has_a_date_a_status_and_the_four_parts_in_order(page: Path, title: str, text: str) -> None:
    head = re.fullmatch(r"\d{4}-\d\d-\d\d, (\w+)", text.partition("\n")[0])
    assert head
    assert head[1] in STATUSES
    assert re.findall(r"^\*\*(\w+)\*\* \S", text, re.MULTILINE) == PARTS


def test_the_list_of_themes_has_every_page():
    linked = re.findall(r"\]\((.+)\)", (DECISIONS / "index.md").read_text(encoding="utf-8"))
    assert sorted(linked) == [page.name for page in PAGES]


def test_links_between_the_pages_of_docs_lead_to_a_heading():
    for page in PAGES:
        for target, name in re.findall(r"\]\((\S+?\.md)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
            text = (page.parent / target).read_text(encoding="utf-8")
            headings = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
            assert not name or name in headings, f"{page.name}: {target}#{name}"
