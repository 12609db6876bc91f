"""What a model writes stays text, and nobody else hears of it."""

import httpx
import pytest
from playwright.sync_api import expect

from tests.ui.conftest import RunningPage, Tab
from tests.ui.fake_server import HOSTILE, FakeServer


@pytest.mark.browser
def test_hostile_text_of_a_model_stays_text_everywhere(tab: Tab):
    tab.choose("left", "hostile")
    tab.write("Thank Ada for the chairs.")
    tab.finished()
    expect(tab.answer("left")).to_have_value(HOSTILE)
    expect(tab.page.locator(".differences.left")).to_contain_text("<script>document.title = 'owned'</script>")
    tab.page.get_by_label("the left answer").check()
    tab.page.get_by_label("Change", exact=True).fill("shorter")
    tab.button("Ask both").click()
    expect(tab.page.locator(".given textarea")).to_have_value(
        f"TASK\nThank Ada for the chairs.\n\nEMAIL\n{HOSTILE}\n\nTASK\nshorter"
    )
    tab.finished()
    assert tab.page.title() == "Mailwright"
    assert tab.page.locator("iframe").count() == 0
    assert tab.page.locator("img[src*='mail.example.com'], img[src='x']").count() == 0
    assert tab.strangers == []


@pytest.mark.browser
def test_neither_task_nor_answer_is_in_the_log_or_in_an_address(tab: Tab, page_process: RunningPage, fake: FakeServer):
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.choose("right", "break")
    tab.write("Tell Zebedee about the quagga.")
    expect(tab.part("right", "status")).to_contain_text("ended early")
    tab.finished("left")
    assert asked
    for text in ("Zebedee", "quagga", "piano"):
        assert text not in page_process.log.read_text()
        assert not [url for url in asked if text in url]


@pytest.mark.browser
def test_the_browser_may_ask_no_other_host_and_no_other_name_gets_the_page(page_process: RunningPage):
    answer = httpx.get(page_process.url)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "img-src 'self' data: blob:" in answer.headers["content-security-policy"]
    assert httpx.get(page_process.url, headers={"Host": "mail.example.com"}).status_code == 400
