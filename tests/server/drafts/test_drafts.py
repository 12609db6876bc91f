"""A request for drafts, from the gate to a vLLM in memory: the first that holds is answered, the others end."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from prometheus_client import CollectorRegistry

from adapters.emails.checker import DOUBT, Signals, Verdict
from adapters.emails.tasks import Task
from adapters.store.store import Store
from server.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.server.api.test_gate import ask, gate
from tests.server.drafts.fake_vllm import FakeVllm

TASK = [{"role": "user", "content": "Thank Ada."}]
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": TASK},
    COMPLETIONS: {"prompt": "Thank Ada."},
    RESPONSES: {"input": "Thank Ada."},
    MESSAGES: {"messages": TASK, "max_tokens": 99},
}


class Check:
    """Holds what begins with `good`; the more exclamation marks the better."""

    def __init__(self) -> None:
        self.seen: list[tuple[Task, str, bool]] = []

    def __call__(self, task: Task, email: str, ended: bool, signals: Signals) -> Verdict:
        self.seen.append((task, email, ended))
        holds = email.startswith("good")
        return Verdict(0.9 if holds else 0.1 * email.count("!"), holds, () if holds else (DOUBT,))


def drafted(store: Store, app: FakeVllm, path: str = CHAT, **fields: Any) -> httpx.Response:
    body = {"model": "formal:checked", "drafts": len(app.texts), **ASKED[path], **fields}
    return ask(gate(app, store, check=Check()), "POST", path, json=body)


def test_the_draft_that_holds_is_answered_and_the_others_are_hung_up_on(store: Store):
    app = FakeVllm(["bad", "good", None])
    answer = drafted(store, app).json()
    assert answer["choices"][0]["message"]["content"] == "good"
    assert answer["mailwright"] == {
        "drafts": 3,
        "checked": 2,
        "given": 2,
        "holds": True,
        "probability": 0.9,
        "findings": [],
    }
    assert app.hung_up == 1
    assert answer["usage"]["completion_tokens"] == 15, "of the draft that was cut short too"


def test_the_best_one_is_answered_with_its_findings_where_none_holds(store: Store):
    answer = drafted(store, FakeVllm(["bad!", "bad!!!", "bad"])).json()
    assert answer["choices"][0]["message"]["content"] == "bad!!!"
    assert not answer["mailwright"]["holds"]
    assert answer["mailwright"]["findings"] == [
        {"kind": "meaning", "words": "", "sentence": "Emails like this one often say something else than their task."}
    ]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_every_path_answers_checked_drafts(store: Store, path: str, stream: bool):
    answer = drafted(store, FakeVllm(["bad", "good email"]), path, stream=stream)
    assert answer.status_code == 200
    assert '"mailwright"' in answer.text
    assert "bad" not in answer.text
    if stream:
        assert answer.text.startswith(": 1 of 2 drafts written\n\n")
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_the_drafts_are_requests_of_their_own(store: Store):
    app = FakeVllm(["bad", "good"])
    drafted(store, app, seed=5, temperature=0.3)
    assert [request["seed"] for request in app.requests] == [5, 6]
    assert {request["model"] for request in app.requests} == {"formal@1"}
    assert not any("drafts" in request for request in app.requests)
    assert len({headers[b"x-request-id"] for headers in app.headers}) == 2


def test_an_error_of_vllm_is_answered_as_it_is(store: Store):
    for stream in (False, True):
        answer = drafted(store, FakeVllm(["", ""], status=400), stream=stream)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "no"


def test_a_key_may_forbid_drafts(store: Store):
    from server.api.keys import Keys, Order

    _, token = Keys(store.directory).create(Order("app", drafts=2))
    headers = {"authorization": f"Bearer {token}"}
    asked = {"model": "formal", **ASKED[CHAT]}
    entrance = gate(FakeVllm(["bad", "good"]), store, check=Check())
    refused = ask(entrance, "POST", CHAT, json=asked | {"drafts": 3}, headers=headers)
    assert refused.status_code == 403
    assert "at most 2 drafts" in refused.json()["error"]["message"]
    assert ask(entrance, "POST", CHAT, json=asked | {"drafts": 2}, headers=headers).status_code == 200


def test_drafts_are_counted(store: Store):
    registry = CollectorRegistry()
    app = FakeVllm(["bad", "good"])
    body = {"model": "formal", "drafts": 2, **ASKED[CHAT]}
    ask(gate(app, store, registry=registry, check=Check()), "POST", CHAT, json=body)
    label = {"adapter": "formal"}
    assert registry.get_sample_value("mailwright_drafts_total", label) == 2
    assert registry.get_sample_value("mailwright_drafted_answers_total", label | {"result": "held"}) == 1
    assert registry.get_sample_value("mailwright_drafting_seconds_count", label) == 1
    assert registry.get_sample_value("mailwright_completion_tokens_total", label) == 10


def test_a_client_that_hangs_up_ends_every_draft(store: Store):
    app = FakeVllm([None, None])
    entrance = gate(app, store, check=Check())
    body = json.dumps({"model": "formal", "drafts": 2, **ASKED[CHAT]}).encode()

    async def hang_up() -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            while len(app.requests) < 2:
                await asyncio.sleep(0)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError("nothing can be sent to a client that is gone")

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "query_string": b""}
        await entrance(scope, receive, send)

    asyncio.run(hang_up())
    assert app.hung_up == 2


def test_openais_own_client_reads_an_answer_and_a_stream(store: Store):
    async def both() -> tuple[str, str, Any]:
        transport = httpx.ASGITransport(app=gate(FakeVllm(["bad", "good"] * 2), store, check=Check()))
        http = httpx.AsyncClient(transport=transport)
        client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=http)
        asked: Any = {"model": "formal", "messages": TASK, "extra_body": {"drafts": 2}}
        whole = await client.chat.completions.create(**asked)
        parts = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        return whole.choices[0].message.content or "", streamed, whole.model_extra

    content, streamed, extra = asyncio.run(both())
    assert content == streamed == "good"
    assert extra
    assert extra["mailwright"]["given"] == 2
