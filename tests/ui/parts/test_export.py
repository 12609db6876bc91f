"""A conversation in a file: everything that was written, and nothing that turns into markup."""

import json
from datetime import UTC, datetime

import pytest

from adapters.emails.prompts import task_messages
from ui.client import Answer, Ask
from ui.parts.export import Conversation, Exchange, Written, as_json, as_markdown

TASK = "Thank Ada for the 12 chairs.\n- from: Kim"
FORMAL = Written(
    Ask("formal", task_messages(TASK), 0.7, 7, 256),
    Answer("Dear Ms Byron,\n\nthank you.", "formal@2", "finished", "", 0.25, 12, 48.5),
)
FAILED = Written(Ask("base", task_messages(TASK), 0.0, None, 64), Answer("Hi", "", "failed", "The stream ended early."))


def conversation(*exchanges: Exchange) -> Conversation:
    return Conversation(datetime(2026, 11, 23, 9, 30, tzinfo=UTC), exchanges)


def test_json_holds_every_task_answer_figure_and_setting():
    text = as_json(conversation(Exchange(TASK, FAILED, FORMAL, "right"), Exchange("Shorter.", None, FORMAL)))
    formal = {
        "model": "formal",
        "temperature": 0.7,
        "seed": 7,
        "max_tokens": 256,
        "text": "Dear Ms Byron,\n\nthank you.",
        "version": "formal@2",
        "state": "finished",
        "problem": "",
        "first_token_seconds": 0.25,
        "tokens": 12,
        "tokens_per_second": 48.5,
    }
    failed = {"model": "base", "temperature": 0.0, "seed": None, "max_tokens": 64, "text": "Hi", "version": ""}
    failed |= {"state": "failed", "problem": "The stream ended early."}
    failed |= {"first_token_seconds": None, "tokens": None, "tokens_per_second": None}
    assert json.loads(text) == {
        "when": "2026-11-23T09:30:00+00:00",
        "exchanges": [
            {"task": TASK, "left": failed, "right": formal, "continued_from": "right"},
            {"task": "Shorter.", "left": None, "right": formal, "continued_from": None},
        ],
    }


def test_markdown_reads_as_a_page():
    assert as_markdown(conversation(Exchange(TASK, FAILED, FORMAL, "right"))) == (
        "# Emails compared, 23 November 2026, 09:30\n\n"
        "## Task 1\n\n"
        "```text\nThank Ada for the 12 chairs.\n- from: Kim\n```\n\n"
        "### Left: `base`\n\n"
        "- model `base`, temperature 0, seed None, at most 64 tokens\n"
        "- failed: The stream ended early.\n\n"
        "```text\nHi\n```\n\n"
        "### Right: `formal@2`\n\n"
        "- model `formal`, temperature 0.7, seed 7, at most 256 tokens\n"
        "- finished\n"
        "- first token after 0.25 s, 12 tokens, 48.5 tokens/s\n\n"
        "```text\nDear Ms Byron,\n\nthank you.\n```\n\n"
        "The conversation continued from the right answer.\n"
    )


@pytest.mark.parametrize(
    "text",
    ["```\n# Heading\n<script>alert(1)</script>", "`````", "a ```` b", "![x](http://example.org/?d=secret)\n```text"],
)
def test_what_a_model_writes_cannot_leave_its_fence(text: str):
    written = Written(FORMAL.ask, Answer(text, "formal@2", "finished"))
    lines = as_markdown(conversation(Exchange(text, None, written))).splitlines()
    fences = [
        line.removesuffix("text")
        for line in lines
        if line.startswith("```") and set(line.removesuffix("text")) == {"`"}
    ]
    longest = max(fences, key=len)
    inside = [n for n, line in enumerate(lines) if line.removesuffix("text") == longest]
    assert len(inside) == 4
    for opening, closing in (inside[:2], inside[2:]):
        assert "\n".join(lines[opening + 1 : closing]) == text
        assert all(len(longest) > len(row) for row in text.split() if set(row) == {"`"})
