"""Checked drafts by the real server: vLLM writes them, the checker reads them, OpenAI's client gets one."""

import httpx
import pytest

from adapters.emails.checker import fitted
from tests.serving import RunningServer

pytestmark = pytest.mark.vllm

TASK = [{"role": "user", "content": "Thank Ada for the 12 chairs. I'm Kim."}]


def test_an_answer_says_how_it_was_chosen(server: RunningServer):
    answer = server.client().chat.completions.create(
        model="formal:checked", messages=TASK, max_tokens=12, extra_body={"drafts": 3}
    )
    extra = answer.model_extra
    assert extra
    assert answer.model == "formal@1"
    assert extra["mailwright"]["drafts"] == 3
    assert 1 <= extra["mailwright"]["given"] <= extra["mailwright"]["checked"] <= 3
    assert 0 <= extra["mailwright"]["probability"] <= 1
    assert extra["mailwright"]["holds"] == (extra["mailwright"]["probability"] >= fitted().threshold)
    assert answer.usage
    assert answer.usage.completion_tokens > 12, "of all drafts"


def test_a_stream_lives_while_drafts_are_written(server: RunningServer):
    body = {"model": "formal:checked", "messages": TASK, "max_tokens": 12, "stream": True, "drafts": 2}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=120) as answer:
        text = answer.read().decode()
    assert answer.status_code == 200
    assert text.startswith(": ")
    assert '"mailwright"' in text
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("completions", {"prompt": "Thank Ada.", "max_tokens": 8}),
        ("responses", {"input": "Thank Ada.", "max_output_tokens": 8}),
        ("messages", {"messages": TASK, "max_tokens": 8}),
    ],
)
def test_every_path_writes_drafts(server: RunningServer, path: str, asked: dict[str, object]):
    body = {"model": "friendly", "drafts": 2, **asked}
    answer = httpx.post(f"{server.url}/v1/{path}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["mailwright"]["drafts"] == 2


def test_a_draft_is_as_likely_as_a_request_for_probabilities_says(server: RunningServer):
    asked = {"model": "formal", "prompt": "Thank Ada.", "max_tokens": 8, "temperature": 0, "min_tokens": 8}
    plain = httpx.post(f"{server.url}/v1/completions", json=asked | {"logprobs": 0}, timeout=120).json()
    drafted = httpx.post(f"{server.url}/v1/completions", json=asked | {"drafts": 1}, timeout=120).json()
    assert drafted["choices"][0]["text"] == plain["choices"][0]["text"]
    assert drafted["choices"][0]["logprobs"] is None
    assert drafted["mailwright"]["checked"] == 1


def test_what_vllm_refuses_is_refused(server: RunningServer):
    body = {"model": "formal:checked", "messages": TASK, "temperature": 9}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 400
    assert "temperature" in answer.json()["error"]["message"]


def test_drafts_are_counted(server: RunningServer):
    before = server.metric('mailwright_drafts_total{adapter="warm"}')
    server.ask("warm", drafts=2)
    assert server.metric('mailwright_drafts_total{adapter="warm"}') - before == 2
