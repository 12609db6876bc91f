"""What a person does on the page and sees there, before a server that does what the test needs."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.serving import free_port
from tests.ui.conftest import Open, Tab, running_page
from tests.ui.fake_server import EMAILS, FakeServer, serving

pytestmark = pytest.mark.browser


def test_opened_the_page_is_ready_and_ctrl_enter_writes_with_the_base_model_and_a_voice(tab: Tab):
    expect(tab.model("left")).to_have_value("tiny")
    expect(tab.model("right")).to_have_value("formal")
    tab.task.press("Control+Enter")
    tab.finished()
    expect(tab.answer("left")).to_have_value(EMAILS["tiny"])
    expect(tab.answer("right")).to_have_value(EMAILS["formal"])


def test_each_side_shows_the_version_that_answered_and_its_figures(tab: Tab):
    tab.write()
    tab.finished()
    figures = tab.part("right", "figures")
    expect(figures.locator(".token").nth(0)).to_have_text("formal@1 version")
    expect(figures.locator(".token").nth(1)).to_contain_text(" s first token")
    expect(figures.locator(".token").nth(2)).not_to_contain_text("–")
    expect(figures.locator(".token").nth(3)).to_have_text(f"{len(EMAILS['formal'].split())} tokens")


def test_the_facts_of_a_shipped_task_are_ticked_or_crossed_in_words_too(tab: Tab):
    tab.write()
    tab.finished()
    expect(tab.part("right", "facts")).to_contain_text("✓ flute assessment kept")
    expect(tab.part("right", "facts")).to_contain_text("✗ Nkechi Brightwell missing")
    expect(tab.part("left", "facts")).to_contain_text("✗ flute assessment missing")


def test_a_task_of_ones_own_has_no_facts_to_tick(tab: Tab):
    tab.write("Thank Ada for the 12 chairs.")
    tab.finished()
    expect(tab.part("right", "facts")).to_be_hidden()


def test_the_words_that_only_one_side_has_are_marked_in_both(tab: Tab):
    tab.write()
    tab.finished()
    marked = tab.page.locator(".differences.left .highlighted")
    expect(marked.first).to_have_text("piano is moving")
    expect(tab.page.locator(".differences.right .highlighted").first).to_contain_text("Wieczorek")
    shown = (
        "text => [...document.querySelectorAll('.differences.left .text')].map(e => e.textContent).join('') === text"
    )
    tab.page.wait_for_function(shown, arg=EMAILS["tiny"])
    assert "underline" in marked.first.locator(".text").evaluate("e => getComputedStyle(e).textDecorationLine")


def test_a_side_that_stalls_leaves_the_other_writing(tab: Tab, fake: FakeServer):
    tab.choose("left", "stall")
    tab.write()
    tab.finished("right")
    expect(tab.part("left", "status")).to_have_text("Writing …")
    expect(tab.answer("left")).to_have_value("stall")
    fake.release.set()
    tab.finished("left")


def test_stop_ends_the_writing_on_the_server_too_and_keeps_what_is_there(tab: Tab, fake: FakeServer):
    tab.choose("left", "stall")
    tab.choose("right", "stall")
    tab.write()
    expect(tab.answer("right")).to_have_value("stall")
    expect(tab.answer("left")).to_have_value("stall")
    assert fake.open == 2
    tab.button("Stop").click()
    for side in ("left", "right"):
        expect(tab.part(side, "status")).to_have_text("Stopped.")
        expect(tab.answer(side)).to_have_value("stall")
    wait_until_closed(tab, fake)


def test_writing_again_while_it_writes_starts_afresh(tab: Tab, fake: FakeServer):
    tab.choose("left", "stall")
    tab.write("First task")
    expect(tab.answer("left")).to_have_value("stall")
    tab.choose("left", "tiny")
    tab.write("Second task")
    tab.finished()
    expect(tab.answer("left")).to_have_value(EMAILS["tiny"])
    wait_until_closed(tab, fake)


def test_one_side_can_be_written_again_without_the_other(tab: Tab, fake: FakeServer):
    tab.write()
    tab.finished()
    tab.choose("right", "friendly")
    tab.button("Write the right one again").click()
    expect(tab.answer("right")).to_have_value(f"friendly answers: {tab.task.input_value()}")
    tab.finished()
    assert [body["model"] for body in fake.asked].count("tiny") == 1
    assert fake.asked_of("friendly")[0]["messages"] == fake.asked_of("tiny")[0]["messages"]


def test_a_change_is_asked_of_both_with_the_same_history(tab: Tab, fake: FakeServer):
    tab.write("Thank Ada for the 12 chairs.")
    tab.finished()
    tab.page.get_by_label("the left answer").check()
    tab.page.get_by_label("Change", exact=True).fill("shorter, and mention the deadline")
    tab.page.get_by_label("Change", exact=True).press("Control+Enter")
    expect(tab.page.get_by_label("Change", exact=True)).to_have_value("")
    tab.page.wait_for_function("() => document.querySelector('.given textarea')?.value.includes('deadline')")
    tab.finished()
    wait_until_asked(tab, fake, 4)
    left, right = fake.asked_of("tiny")[1], fake.asked_of("formal")[1]
    assert (
        left["messages"]
        == right["messages"]
        == [
            {"role": "user", "content": "Thank Ada for the 12 chairs."},
            {"role": "assistant", "content": EMAILS["tiny"]},
            {"role": "user", "content": "shorter, and mention the deadline"},
        ]
    )


def test_the_fields_become_the_task(tab: Tab, fake: FakeServer):
    tab.page.get_by_label("Fields", exact=True).check()
    tab.page.get_by_label("Recipient").fill("Ada Kovac")
    tab.page.get_by_label("Purpose").fill("thanks for the chairs")
    tab.page.get_by_label("Points, one a line").fill("12 chairs\nby Friday")
    tab.page.get_by_label("Purpose").press("Control+Enter")
    tab.finished()
    task = fake.asked_of("formal")[0]["messages"][0]["content"]
    assert all(part in task for part in ("Ada Kovac", "thanks for the chairs", "12 chairs", "by Friday"))


def test_temperature_seed_and_length_belong_to_a_side(tab: Tab, fake: FakeServer):
    tab.page.get_by_role("button", name="Settings of the right model").click()
    tab.page.get_by_label("number input for Right temperature").fill("0.7")
    tab.page.get_by_label("Right seed").fill("11")
    tab.page.get_by_label("number input for Right length").fill("64")
    tab.page.get_by_label("number input for Right length").blur()
    tab.write()
    tab.finished()
    fields = ("temperature", "seed", "max_tokens")
    assert [fake.asked_of("formal")[0][field] for field in fields] == [0.7, 11, 64]
    assert [fake.asked_of("tiny")[0][field] for field in fields] == [0, 0, 256]


def test_an_answer_can_be_copied(fake: FakeServer, open_tab: Open):
    tab = open_tab(permissions=["clipboard-read", "clipboard-write"])
    tab.write()
    tab.finished()
    tab.page.locator("#right .answer button").click()
    assert tab.page.evaluate("navigator.clipboard.readText()") == EMAILS["formal"]


def test_the_conversation_is_saved_as_markdown_and_json(tab: Tab):
    tab.write("Thank Ada for the 12 chairs.")
    tab.finished()
    files = {}
    for kind in ("Markdown", "JSON"):
        with tab.page.expect_download() as download:
            tab.button(f"Save as {kind}").click()
        files[download.value.suggested_filename] = Path(download.value.path()).read_text()
    (exchange,) = json.loads(files["emails.json"])["exchanges"]
    assert (exchange["task"], exchange["right"]["version"]) == ("Thank Ada for the 12 chairs.", "formal@1")
    assert EMAILS["formal"] in files["emails.md"]
    assert EMAILS["tiny"] in files["emails.md"]


@pytest.mark.parametrize(
    ("model", "words"),
    [("refused", "its rank is 64 and this server takes 16"), ("break", "The stream ended early")],
)
def test_what_goes_wrong_is_said_in_the_pane_and_the_other_side_writes_on(tab: Tab, model: str, words: str):
    tab.choose("left", model)
    tab.write()
    expect(tab.part("left", "status")).to_contain_text(words)
    tab.finished("right")


def test_a_server_that_is_away_is_said_in_words_and_the_page_works_when_it_is_back(open_tab: Open, tmp_path: Path):
    port = free_port()
    with running_page(f"http://127.0.0.1:{port}", tmp_path) as page:
        tab = open_tab(page.url, ready=False)
        expect(tab.page.locator(".away")).to_contain_text(f"No server answers at http://127.0.0.1:{port}/v1")
        tab.write()
        expect(tab.part("left", "status")).to_contain_text("Start one with `server`")
        with serving(FakeServer(), port):
            expect(tab.model("right")).to_have_value("formal")
            expect(tab.page.locator(".away")).to_be_hidden()
            tab.write()
            tab.finished()
        tab.page.context.close()


def test_a_version_published_meanwhile_is_offered_when_the_list_is_opened(tab: Tab, fake: FakeServer):
    fake.names.append("formal@2")
    tab.model("left").click()
    expect(tab.page.get_by_role("option", name="formal@2")).to_be_visible()


def test_without_a_task_the_page_asks_for_one(tab: Tab, fake: FakeServer):
    tab.write("  ")
    expect(tab.page.get_by_text("Say what to write, or start from a shipped task.")).to_be_visible()
    assert fake.asked == []


def test_ten_browsers_at_once_each_get_their_own_answers(fake: FakeServer, open_tab: Open):
    tabs = [open_tab() for _ in range(10)]
    for number, tab in enumerate(tabs):
        tab.choose("left", "stall")
        tab.choose("right", "echo")
        tab.write(f"task number {number}")
    for number, tab in enumerate(tabs):
        expect(tab.answer("right")).to_have_value(f"echo answers: task number {number}")
        expect(tab.answer("left")).to_have_value("stall")
    assert fake.open == 10, "the left sides of all ten are written at the same time"
    fake.release.set()
    for number, tab in enumerate(tabs):
        expect(tab.answer("left")).to_have_value(f"stall answers: task number {number}")


def test_closing_the_tab_stops_the_writing_even_while_the_server_is_silent(tab: Tab, open_tab: Open, fake: FakeServer):
    watcher = open_tab()
    tab.choose("left", "stall")
    tab.write()
    expect(tab.answer("left")).to_have_value("stall")
    tab.page.close()
    wait_until_closed(watcher, fake)


def wait_until_closed(tab: Tab, fake: FakeServer) -> None:
    for _ in range(600):
        if fake.open == 0:
            return
        tab.page.wait_for_timeout(50)
    pytest.fail(f"{fake.open} streams are still open")


def wait_until_asked(tab: Tab, fake: FakeServer, requests: int) -> None:
    for _ in range(600):
        if len(fake.asked) >= requests:
            return
        tab.page.wait_for_timeout(50)
    pytest.fail(f"the server was asked {len(fake.asked)} times")
