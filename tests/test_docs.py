"""The documentation is a site without broken links, and what it and the README point to exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify

from tests.pages import DOCS, PAGES, ROOT

FILES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "DECISIONS.md", ROOT / "deploy/README.md"]
GUIDES = [page for page in PAGES if page.parent.name not in ("benchmarks", "decisions")]
"""What describes the present: runs of the past may name flags that are gone."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
FOREIGN = {
    "--allowed-origins",
    "--build",
    "--config.file",
    "--enforce-eager",
    "--multi_gpu",
    "--no-deps",
    "--num_processes",
    "--storage.tsdb.path",
    "--web.listen-address",
}
"""Flags of other programs that the pages name."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [Path(sys.executable).parent / "mkdocs", "build", "--strict", "--site-dir", built],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return built


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = [page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")]
    assert [page for page in pages if not (site / page).is_file()] == []


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    assert {link for page in site.rglob("*.html") for link in LOADED.findall(page.read_text(encoding="utf-8"))} == set()


def test_no_page_has_a_diagram_that_the_theme_would_draw_with_a_script_from_elsewhere() -> None:
    assert [page.name for page in DOCS.rglob("*.md") if "```mermaid" in page.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_file_links_to_exists(file: Path) -> None:
    links = [link for link in LINK.findall(FENCE.sub("", file.read_text(encoding="utf-8"))) if "://" not in link]
    assert [link for link in links if not exists(file, link)] == []


def exists(file: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = file.parent / path if path else file
    if not anchor or not target.is_file():
        return target.exists()
    headings = HEADING.findall(FENCE.sub("", target.read_text(encoding="utf-8")))
    return anchor in {slugify(heading, "-") for heading in headings}


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_flag_that_a_page_names_exists(file: Path) -> None:
    known = set(re.findall(r"--[a-z][\w.-]*", (DOCS / "reference/commands.md").read_text(encoding="utf-8")))
    named = re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z0-9]", file.read_text(encoding="utf-8"))
    assert sorted(set(named) - known - FOREIGN) == []


def test_every_environment_setting_is_in_the_table() -> None:
    page = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    folders = ("adapters", "server", "trainer", "ui")
    sources = [file.read_text(encoding="utf-8") for folder in folders for file in (ROOT / folder).rglob("*.py")]
    read = set(re.findall(r"MAILWRIGHT_[A-Z_]+", "\n".join(sources)))
    assert read
    assert read == set(re.findall(r"MAILWRIGHT_[A-Z_]+", page))
