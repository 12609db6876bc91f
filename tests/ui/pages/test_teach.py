"""Teach this: a corrected email becomes an example in a file that the trainer reads."""

import re
import shlex
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.ui.conftest import RunningPage, Tab
from trainer.data.examples import read_examples
from ui.parts.kept_examples import MINIMUM, KeptExamples

pytestmark = pytest.mark.browser
TASK = "Thank Ada for the 12 chairs. I'm Kim."


@pytest.fixture
def nothing_kept(page_process: RunningPage) -> None:
    for file in page_process.kept.glob("*.jsonl"):
        file.unlink()


@pytest.fixture
def panel(nothing_kept: None, tab: Tab) -> Locator:
    """The right side's panel, open, with an answer to TASK in it.

    Opened before the answer comes: Gradio draws what came before once more, some 30 ms after the panel has opened, and
    over what a test has filled in by then.
    """
    panel = tab.page.locator(".teach").nth(1)
    panel.get_by_role("button").first.click()
    tab.write(TASK)
    tab.finished()
    expect(email(panel)).not_to_have_value("")
    return panel


def email(panel: Locator) -> Locator:
    return panel.get_by_label("Right email, as you would have sent it")


def keep(panel: Locator, text: str) -> None:
    email(panel).fill(text)
    panel.get_by_role("button", name="Keep", exact=True).click()


def note(panel: Locator) -> Locator:
    return panel.locator(".note textarea")


def starting(text: str) -> re.Pattern[str]:
    return re.compile(f"^{re.escape(text)}")


def test_an_email_put_right_is_kept_for_the_voice_where_the_page_says(panel: Locator, page_process: RunningPage):
    keep(panel, "Dear Ada,\n\nThank you for the 12 chairs.\n\nKim")
    file = page_process.kept / "formal.jsonl"
    expect(note(panel)).to_have_value(starting(f"1 email kept for formal in {file}"))
    (example,) = read_examples([file])
    assert (example.task, example.email) == (TASK, "Dear Ada,\n\nThank you for the 12 chairs.\n\nKim")


def test_undo_takes_back_what_this_page_kept_and_nothing_else(panel: Locator, page_process: RunningPage):
    others = KeptExamples(page_process.kept)
    others.keep("formal", "Invite Ben to the fair on 3 May.", "Dear Ben, come to the fair on 3 May.")
    keep(panel, "Dear Ada, thank you for the 12 chairs.")
    expect(note(panel)).to_have_value(starting("2 emails kept for formal"))
    panel.get_by_role("button", name="Undo", exact=True).click()
    expect(note(panel)).to_have_value(starting("Undone. 1 email kept for formal"))
    expect(panel.get_by_role("button", name="Undo", exact=True)).to_be_disabled()
    assert [example.task for example in read_examples([others.path("formal")])] == ["Invite Ben to the fair on 3 May."]


def test_an_email_for_a_task_that_evaluation_measures_with_is_refused_in_words(tab: Tab, page_process: RunningPage):
    tab.write()
    tab.finished()
    panel = tab.page.locator(".teach").nth(1)
    panel.get_by_role("button").first.click()
    expect(email(panel)).not_to_have_value("")
    panel.get_by_role("button", name="Keep", exact=True).click()
    expect(note(panel)).to_have_value(
        starting("Not kept: this is one of the tasks that `trainer evaluate` measures with")
    )


def test_from_twenty_kept_emails_on_the_page_shows_the_command_that_teaches_them(
    panel: Locator, page_process: RunningPage
):
    kept = KeptExamples(page_process.kept)
    for number in range(2, MINIMUM):
        kept.keep("formal", f"Thank Ada for the {number} tables.", f"Dear Ada, thank you for the {number} tables.")
    command = panel.locator(".command textarea")
    keep(panel, "Dear Ada, thank you for the 12 chairs.")
    expect(note(panel)).to_have_value(starting(f"{MINIMUM - 1} emails kept"))
    expect(command).to_be_hidden()
    keep(panel, "Dear Ada, thanks for all 12 chairs.")
    expect(command).to_be_visible()
    words = shlex.split(command.input_value())
    assert words[:2] == ["trainer", "sft"]
    files = [Path(words[number + 1]) for number, word in enumerate(words) if word == "--data"]
    assert files[-1] == kept.path("formal")
    assert len(read_examples(files)) > MINIMUM, "the emails that the shipped voice was taught with come along"
