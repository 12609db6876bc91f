"""What vLLM's answers say, whole or as a stream, on every path; a note and a count of tokens put into them."""

import json

import pytest

from server.drafts.answers import Answer, Written, noted, read
from server.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.server.drafts import fake_vllm

PATHS = [CHAT, COMPLETIONS, RESPONSES, MESSAGES]
TEXT = "Dear Ada,\n\nThe chairs came.\n\nBest,\nBen"


def answer(path: str, stream: bool) -> Answer:
    texts = fake_vllm.events(path, TEXT, 9) if stream else [fake_vllm.whole(path, TEXT, 9)]
    return Answer(200, [], [text.encode() for text in texts])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_text_end_and_tokens_are_read(path: str, stream: bool):
    assert read(path, answer(path, stream)) == Written(TEXT, True, 9)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_a_note_and_all_tokens_come_with_the_end(path: str, stream: bool):
    note = {"drafts": 3, "holds": True}
    before = answer(path, stream)
    changed = Answer(200, [], noted(path, before, note, 27))
    assert read(path, changed) == Written(TEXT, True, 27)
    found = [body for body in changed.bodies if b'"mailwright"' in body]
    assert len(found) == 1
    event = json.loads(found[0][found[0].index(b"{") :])
    assert event.get("response", event)["mailwright"] == note
    unchanged = [body for body in before.bodies if b'"usage"' not in body]
    assert [body for body in changed.bodies if body in unchanged] == unchanged


def test_the_total_of_tokens_grows_with_them():
    body = noted(CHAT, answer(CHAT, False), {}, 27)[0]
    assert json.loads(body)["usage"] == {"prompt_tokens": 30, "completion_tokens": 27, "total_tokens": 57}


def test_an_answer_cut_by_its_limit_did_not_end():
    cut = fake_vllm.whole(CHAT, TEXT, 9).replace('"stop"', '"length"')
    assert not read(CHAT, Answer(200, [], [cut.encode()])).ended


def test_an_error_in_a_stream_is_no_answer():
    with pytest.raises(ValueError, match="error"):
        read(CHAT, Answer(200, [], [b'data: {"error": {"message": "out of memory"}}\n\n']))
