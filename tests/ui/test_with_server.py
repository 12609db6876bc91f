"""The page before the real server, on the tiny model: one journey from opening it to a kept email."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.serving import RunningServer
from tests.ui.conftest import Open, running_page
from trainer.data.examples import read_examples

pytestmark = [pytest.mark.vllm, pytest.mark.browser]

ENDED = re.compile(r"Finished\.|reached the limit")
"""A random model seldom ends by itself."""


def test_a_person_compares_changes_regenerates_and_keeps(server: RunningServer, open_tab: Open, tmp_path: Path):
    with running_page(server.url, tmp_path) as page:
        tab = open_tab(page.url)
        assert tab.model("left").input_value() == server.base.name
        tab.choose("right", "formal")
        # Before the answer comes: what Gradio draws while a panel opens can fall over what a test fills in.
        panel = tab.page.locator(".teach").nth(1)
        panel.get_by_role("button").first.click()
        tab.write("Thank Ada for the 12 chairs. I'm Kim.")
        for side in ("left", "right"):
            expect(tab.part(side, "status")).to_have_text(ENDED)
        expect(tab.part("left", "figures").locator(".text").first).to_have_text(server.base.name)
        expect(tab.part("right", "figures").locator(".text").first).to_have_text("formal@1")
        assert tab.answer("left").input_value() != tab.answer("right").input_value()
        expect(tab.page.locator(".differences.right .highlighted .text").first).to_be_visible()

        email = panel.get_by_label("Right email, as you would have sent it")
        expect(email).to_have_value(tab.answer("right").input_value())
        email.fill("Dear Ada, thank you for the chairs. Kim")
        expect(email).to_have_value("Dear Ada, thank you for the chairs. Kim")
        panel.get_by_role("button", name="Keep", exact=True).click()
        expect(panel.locator(".note textarea")).to_have_value(re.compile("^1 email kept for "))
        # The voice offered first is the first in the store, which other tests fill too.
        (example,) = read_examples(page.kept.glob("*.jsonl"))
        assert example.email == "Dear Ada, thank you for the chairs. Kim"
        tab.page.context.close()


def test_closing_the_tab_ends_the_writing_in_the_engine(server: RunningServer, open_tab: Open, tmp_path: Path):
    with running_page(server.url, tmp_path) as page:
        tab, watcher = open_tab(page.url), open_tab(page.url)
        for side in ("left", "right"):
            tab.page.get_by_role("button", name=f"Settings of the {side} model").click()
            tab.page.get_by_label(f"number input for {side.capitalize()} length").fill("1024")
            tab.page.get_by_label(f"number input for {side.capitalize()} length").blur()
        tab.write("Write for as long as you can.")
        expect(tab.answer("left")).not_to_have_value("")
        tab.page.close()
        for _ in range(400):
            if server.metric("vllm:num_requests_running") == 0:
                break
            watcher.page.wait_for_timeout(50)
        assert server.metric("vllm:num_requests_running") == 0
        watcher.page.context.close()
