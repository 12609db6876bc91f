"""The page's parts without a browser: what may be written into, and what stays in memory."""

from pathlib import Path

import pytest
from gradio import components

from ui.client import Client
from ui.pages.compare import Page, sorted_models
from ui.pages.teach import SHIPPED_EMAILS
from ui.settings import read

MARKUP = (components.HTML, components.Markdown, components.Chatbot)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    settings = read(["--kept", str(tmp_path)], {})
    return Page(settings, Client(settings))


def test_a_component_that_renders_markup_is_never_written_into(page: Page):
    outputs = {block for fn in page.blocks.fns.values() for block in fn.outputs}
    assert [type(block) for block in outputs if isinstance(block, MARKUP)] == []
    assert len(outputs) > 20


@pytest.mark.asyncio
async def test_when_a_tab_closes_its_session_is_forgotten(page: Page):
    blocks = page.blocks
    request = type("Request", (), {"session_hash": "abc"})()
    blocks.state_holder.set_blocks(blocks)
    writing = blocks.state_holder["abc"][page._both[0].latest._id]
    ended = writing.start()
    await page._forget(request)
    assert ended.is_set()
    assert "abc" not in blocks.state_holder.session_data
    await page._forget(request)


def test_only_the_shipped_voices_have_shipped_emails():
    assert {file.stem for file in SHIPPED_EMAILS.glob("*.jsonl")} == {"formal", "friendly"}


def test_voices_come_before_their_versions_and_checked_drafts_last():
    served = ["tiny", "base", "formal", "formal@1", "formal@2", "warm", "warm@1", "formal:checked", "warm:checked"]
    models, voices = sorted_models(served)
    assert models == [
        *["tiny", "base", "formal", "warm"],
        *["formal@2", "formal@1", "warm@1"],
        *["formal:checked", "warm:checked"],
    ]
    assert voices == ["formal", "warm"]
