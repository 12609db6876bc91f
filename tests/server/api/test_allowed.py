"""What keys allow, on the real server, and what the audit log says of it."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from adapters.store.audit import Audit
from server.api.keys import Keys, Order
from tests import tiny
from tests.serving import MAX_QUEUED, RunningServer

pytestmark = pytest.mark.vllm
COMPLETIONS = "/v1/completions"
LONG = {"model": "mine", "prompt": "Write.", "stream": True, "max_tokens": 1900, "ignore_eos": True}
SHORT = {"model": "mine", "prompt": "Write.", "max_tokens": 1}


@pytest.fixture(scope="module")
def guarded(keyed: RunningServer) -> RunningServer:
    """With two voices that no other test changes."""
    for seed, name in enumerate(["mine", "yours"], start=1):
        tiny.publish(keyed.store, keyed.base, name, seed)
    return keyed


def key(server: RunningServer, name: str, **order: Any) -> dict[str, str]:
    """The headers of a new key, made while the server runs."""
    _, token = Keys(server.store.directory).create(Order(name, **order))
    return {"Authorization": f"Bearer {token}"}


def ask(server: RunningServer, headers: dict[str, str], **fields: Any) -> httpx.Response:
    body = {"model": "mine", "prompt": "Write.", "max_tokens": 2} | fields
    return httpx.post(f"{server.url}{COMPLETIONS}", headers=headers, json=body, timeout=120)


def code_of(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert answer.headers["x-request-id"]
    return str(error["code"])


def entries(server: RunningServer, what: str) -> list[dict[str, Any]]:
    return [entry for entry in Audit(server.store.directory).entries(1000) if entry["what"] == what]


def test_keys_count_while_the_server_runs(guarded: RunningServer):
    assert code_of(ask(guarded, {})) == "invalid_api_key"
    headers = key(guarded, "short-lived", models=("mine",))
    assert ask(guarded, headers).json()["model"] == "mine@1"
    assert code_of(ask(guarded, headers, model="yours")) == "model_not_found"
    assert code_of(ask(guarded, headers, model="base")) == "model_not_found"
    listed = httpx.get(f"{guarded.url}/v1/models?versions=all", headers=headers).json()["data"]
    assert [card["id"] for card in listed] == ["mine", "mine@1", "mine:checked"]
    Keys(guarded.store.directory).revoke("short-lived")
    assert code_of(ask(guarded, headers)) == "invalid_api_key"


@pytest.mark.parametrize("path", ["/v1/models/friendlx", "/v1/adapters/friendlx", "/v1/models/friendlx@1"])
def test_names_that_a_key_may_not_use_are_suggested_by_no_path(guarded: RunningServer, path: str):
    headers = key(guarded, f"curious {path.translate({ord('/'): '-'})}", models=("fri*x",))
    answer = httpx.get(f"{guarded.url}{path}", headers=headers)
    assert (answer.status_code, code_of(answer)) == (404, "model_not_found")
    assert not any(name in answer.text for name in ("friendly", "formal", "mine", "yours"))


def test_who_loaded_which_content_is_in_the_audit_log(guarded: RunningServer):
    version = tiny.publish(guarded.store, guarded.base, "mine", 5)
    assert ask(guarded, key(guarded, "loader"), model=version.id).is_success
    [loaded] = [entry for entry in entries(guarded, "load") if entry["adapter"] == version.id]
    assert (loaded["digest"], loaded["result"]) == (version.digest, "loaded")
    assert loaded["who"].startswith("key ")
    assert loaded["who"].endswith("(loader)")


def test_beyond_its_requests_a_minute_a_key_gets_429_and_the_audit_log_says_so(guarded: RunningServer):
    headers = key(guarded, "slow", requests_per_minute=1)
    assert ask(guarded, headers).headers["x-ratelimit-remaining-requests"] == "0"
    refused = ask(guarded, headers)
    assert (refused.status_code, code_of(refused)) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert ask(guarded, key(guarded, "another")).is_success
    assert [entry["limit"] for entry in entries(guarded, "limit") if "(slow)" in entry["who"]] == ["requests"]


def test_streams_of_a_key_and_the_queue_of_all_are_bounded(guarded: RunningServer):
    one, all_others = key(guarded, "one", streams=1), key(guarded, "others")

    async def scene() -> None:
        async with httpx.AsyncClient(base_url=guarded.url, timeout=120) as client:
            writing = [
                asyncio.create_task(keep_writing(client, headers))
                for headers in [one, *[all_others] * (MAX_QUEUED - 1)]
            ]
            try:
                streams = await refusal(client, one)
                assert (streams.status_code, code_of(streams)) == (429, "rate_limit_exceeded")
                queue = await refusal(client, all_others)
                assert (queue.status_code, code_of(queue)) == (503, "overloaded")
                assert int(queue.headers["retry-after"]) >= 1
            finally:
                for task in writing:
                    task.cancel()
                await asyncio.gather(*writing, return_exceptions=True)

    asyncio.run(scene())


async def keep_writing(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """One long answer after the other: on a machine that stalls, one alone may be over before another begins."""
    while True:
        await client.post(COMPLETIONS, headers=headers, json=LONG)


async def refusal(client: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
    """The first answer that is none."""
    async with asyncio.timeout(120):
        while (answer := await client.post(COMPLETIONS, headers=headers, json=SHORT)).is_success:
            pass
    return answer


def test_once_its_streams_have_ended_a_key_may_begin_the_next(guarded: RunningServer):
    headers = key(guarded, "again", streams=1)
    for _ in range(3):
        assert ask(guarded, headers).is_success


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"max_tokens": 2049}, "context_length_exceeded", "max_tokens"),
        ({"prompt": "x" * 2049}, "context_length_exceeded", "prompt"),
        ({"prompt": "x" * 70_000}, "context_length_exceeded", "prompt"),
        ({"n": 9}, "invalid_request", "n"),
        ({"logit_bias": {"99999999": 1}}, "invalid_request", "logit_bias"),
        ({"top_k": 1}, "invalid_request", "top_k"),
        ({"temperature": "warm"}, "invalid_request", "temperature"),
    ],
)
def test_what_is_out_of_bounds_is_400_and_names_its_field(
    guarded: RunningServer, fields: dict[str, Any], code: str, param: str
):
    token = {"Authorization": f"Bearer {Keys(guarded.store.directory).create(Order(f'b{abs(hash(str(fields)))}'))[1]}"}
    answer = ask(guarded, token, **fields)
    assert (answer.status_code, code_of(answer)) == (400, code)
    assert answer.json()["error"]["param"] in (param, "input_tokens", "input_text", None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/nowhere"])
def test_no_web_site_is_let_in_by_default(guarded: RunningServer, path: str):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{guarded.url}{path}", headers=headers)
    assert answer.status_code in (401, 404)
    assert code_of(answer)
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_every_path_that_vllm_has_and_the_gate_has_not_is_404_in_openais_shape(guarded: RunningServer):
    headers = key(guarded, "curious", scopes=("infer", "admin", "metrics"))
    for path in ("/invocations", "/tokenize", "/v1/embeddings", "/v1/load_lora_adapter", "/adapters", "/ping", "/docs"):
        for method in ("GET", "POST", "DELETE", "PUT"):
            answer = httpx.request(method, f"{guarded.url}{path}", headers=headers)
            assert (answer.status_code, code_of(answer)) == (404, "not_found"), f"{method} {path}"


def test_the_openapi_page_lists_what_is_served_and_no_more(guarded: RunningServer):
    page = httpx.get(f"{guarded.url}/openapi.json", headers=key(guarded, "reader"), timeout=60).json()
    assert {"/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/adapters/{reference}/promote"} < set(
        page["paths"]
    )
    assert "/invocations" not in page["paths"]
    fields = json.dumps(page["paths"]["/v1/chat/completions"])
    assert ("chat_template" in fields, "ignore_eos" in fields, "max_completion_tokens" in fields) == (False, True, True)
