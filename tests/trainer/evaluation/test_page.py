"""The page as a file, and in a real browser that must ask for nothing and break nothing."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from playwright.sync_api import Page, sync_playwright

from adapters.errors import ConfigError
from adapters.store.manifest import Comparison, Evaluation, Row
from tests.trainer.evaluation.test_criteria import result
from trainer.evaluation.page import plots, render
from trainer.evaluation.results import Pair

COMPARISONS = [
    Comparison(against="promoted: formal@1", figure="sendable", difference=0.0, low=-0.1, high=0.1,
               verdict="no difference shown"),
    Comparison(against="base", figure="sendable", difference=0.3, low=0.1, high=0.5, verdict="better"),
    Comparison(against="base", figure="heldout_loss", difference=-1.0, low=-1.2, high=-0.8, verdict="better"),
]  # fmt: skip
LONG = "x" * 5000
HOSTILE = f"</p><script>document.title='broken'</script> \"quoted\" 'single' & &amp; <img src=//evil.example/x> {LONG}"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of each `mark`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.marked: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "mark":
            self.marked[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(limits: list[str] | None = None, **changed: Any) -> str:
    return render(result(**{"comparisons": COMPARISONS} | changed), limits or [])


def heading(html: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", html, re.DOTALL)
    assert found
    return found[1]


def test_the_verdict_comes_first():
    html = page()
    assert heading(html) == "formal@2 is better than the base model."
    assert "No difference shown between formal@2 and formal@1, the promoted version." in html
    assert html.index("<h1>") < html.index("<table>")
    assert "40\u00a0% against 10\u00a0%: +30.0 points, 95\u00a0% interval +10.0 to +50.0" in html


def test_without_a_comparison_there_is_no_verdict():
    assert heading(page(comparisons=[])) == "formal@2 was compared with nothing."


def test_a_worse_version_is_called_worse():
    worse = COMPARISONS[1].model_copy(update={"difference": -0.3, "low": -0.5, "high": -0.1, "verdict": "worse"})
    assert heading(page(comparisons=[worse])) == "formal@2 is worse than the base model."


def test_the_page_loads_nothing_and_allows_its_own_style_only():
    html = page()
    elements = Elements(html)
    policy = next(meta["content"] for meta in elements.all("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & {name for name, _ in elements.elements}
    assert not [a for _, a in elements.elements if {"src", "href", "style", "onclick", "onload"} & a.keys()]
    assert "url(" not in html
    assert "@import" not in html


def test_the_table_names_its_rows_and_columns():
    elements = Elements(page())
    assert {cell["scope"] for cell in elements.all("th")} == {"row", "col"}
    assert [region["tabindex"] for region in elements.all("div") if region.get("role") == "region"] == ["0"] * 3


def test_every_interval_has_a_text():
    drawn = [svg["aria-label"] for svg in Elements(page()).all("svg") if svg.get("role") == "img"]
    assert len(drawn) == len(COMPARISONS)
    assert drawn[1] == (
        "sendable emails, against base: 40\u00a0% against 10\u00a0%: +30.0 points, "
        "95\u00a0% interval +10.0 to +50.0, better"
    )


def test_each_criterion_is_met_or_missed():
    html = page(limits=["facts_kept >= base + 0.10", "forgetting <= 0.03"])
    assert "misses a criterion" in html
    assert re.findall(r">(met|missed)</strong>", html) == ["met", "missed"]
    assert "Criteria" not in page()
    with pytest.raises(ConfigError):
        page(limits=["beauty > 1"])


def test_memorisation_and_forgetting_are_shown_where_they_were_measured():
    assert "Memorisation" in page()
    assert "Memorisation" not in page(memorisation={}, forgetting={})


def test_a_hostile_text_is_text_wherever_it_stands():
    rows = [Row(model="base", figures={"sendable": 0.1}), Row(model=HOSTILE, figures={HOSTILE: 0.5})]
    hostile = {
        "version": HOSTILE, "base": HOSTILE, "machine": HOSTILE, "through": HOSTILE, "decoding": HOSTILE,
        "rows": rows, "comparisons": [COMPARISONS[1].model_copy(update={"against": HOSTILE, "figure": HOSTILE})],
        "memorisation": {HOSTILE: 1.0}, "pairs": [Pair(task=HOSTILE, before=HOSTILE, after="Dear Ada")],
    }  # fmt: skip
    elements = Elements(page(**hostile))
    assert not {"script", "img"} & {name for name, _ in elements.elements}


def test_words_that_one_side_has_alone_are_marked():
    html = page(pairs=[Pair(task="Thank Ada.", before="Dear Ada,\nthanks a lot.", after="Dear Ada,\nmany thanks.")])
    assert Elements(html).marked[2:] == ["a lot", "many"]


FINITE = st.floats(-1e3, 1e3)


@example([[0.0, 0.0, 5e-324]], "words")
@given(
    st.lists(st.tuples(FINITE, FINITE, FINITE).map(sorted), min_size=1, max_size=4),
    st.sampled_from(["sendable", "words"]),
)
def test_every_interval_and_zero_lie_on_the_axis(intervals: list[list[float]], figure: str):
    comparisons = [
        {"against": "base", "figure": figure, "difference": d, "low": low, "high": high, "verdict": "better"}
        for low, d, high in intervals
    ]
    (plot,) = plots(Evaluation(passed=True, primary="sendable", comparisons=comparisons))
    shown = [plot.at(x) for interval in intervals for x in interval] + [plot.at(0)]
    assert all(0 <= float(position.removesuffix("%")) <= 100 for position in shown)
    ticks = plot.ticks()
    assert 1 <= len(ticks) <= 12
    assert "0" in [label for _, label in ticks]


@pytest.fixture
def browser_page(tmp_path: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        assert program, "install Debian's chromium"
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.mark.browser
def test_in_a_browser_it_is_styled_complete_and_as_wide_as_the_screen(browser_page: Page, tmp_path: Path):
    file = tmp_path / "page.html"
    pairs = [Pair(task=HOSTILE, before=HOSTILE, after=f"Dear Ada,\n\n{HOSTILE}")]
    file.write_text(page(limits=["forgetting <= 0.03"], machine=LONG, pairs=pairs), encoding="utf-8")
    said: list[str] = []
    browser_page.on("console", lambda message: said.append(message.text))
    browser_page.on("pageerror", lambda error: said.append(str(error)))
    browser_page.on("request", lambda request: said.append(request.url))
    for width in (1280, 800, 390, 320):
        browser_page.set_viewport_size({"width": width, "height": 800})
        browser_page.goto(file.as_uri())
        assert browser_page.evaluate("document.documentElement.scrollWidth") <= width
    assert set(said) == {file.as_uri()}
    assert browser_page.title() == "formal@2: evaluation"
    assert browser_page.locator(".side.before .text").inner_text().startswith("</p><script>document.title='broken'")
    # The style sheet was let through by its digest.
    assert (
        browser_page.locator("mark").first.evaluate("mark => getComputedStyle(mark).textDecorationLine") == "underline"
    )
