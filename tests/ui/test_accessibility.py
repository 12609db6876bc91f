"""The page for everybody: no serious finding of axe, light or dark, wide or on a phone."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.ui.conftest import Open, Tab
from tests.ui.fake_server import FakeServer

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_with_everything_open(fake: FakeServer, open_tab: Open, scheme: str):
    tab = open_tab(color_scheme=scheme)
    tab.choose("left", "refused")
    tab.write()
    expect(tab.part("left", "status")).to_contain_text("its rank is 64")
    tab.finished("right")
    assert serious(tab) == []
    tab.choose("left", "tiny")
    tab.button("Write the left one again").click()
    tab.finished()
    closed = tab.page.locator("button.label-wrap:not(.open)")
    while closed.count():
        closed.first.click()
    tab.page.get_by_label("Fields", exact=True).check()
    expect(tab.page.get_by_label("Recipient")).to_be_visible()
    assert serious(tab) == []


def test_on_a_phone_nothing_is_wider_than_the_screen_and_it_works(fake: FakeServer, open_tab: Open):
    tab = open_tab(viewport=PHONE)
    tab.write()
    tab.finished()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    left, right = (tab.answer(side).bounding_box() for side in ("left", "right"))
    assert left["y"] + left["height"] < right["y"], "the sides stand below each other"
    assert serious(tab) == []


def test_the_answers_can_be_reached_by_keyboard_and_have_names(tab: Tab):
    expect(tab.answer("left")).to_be_enabled()
    expect(tab.page.get_by_role("textbox", name="Right answer")).to_have_attribute("readonly", "")
    expect(tab.part("right", "status")).to_have_attribute("role", "status")


def test_nothing_moves_while_the_emails_are_written(tab: Tab, fake: FakeServer):
    tab.write("Thank Ada for the chairs.")
    tab.finished()
    before = tab.button("Write the right one again").bounding_box()
    tab.choose("right", "stall")
    tab.write()
    expect(tab.answer("right")).to_have_value("stall")
    assert tab.button("Write the right one again").bounding_box() == before


def serious(tab: Tab) -> list[str]:
    found = Axe().run(tab.page).response["violations"]
    return [
        f"{finding['id']}: {node['html'][:200]}"
        for finding in found
        if finding["impact"] in ("serious", "critical")
        for node in finding["nodes"]
    ]
