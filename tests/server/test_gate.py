"""The gate around an application in memory: who may come in, which version is meant, what leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from adapters.errors import AdapterUnusable, Overloaded
from adapters.store import Store, Version
from server.gate import MAX_BODY_BYTES, Gate, Message, Receive, Scope, Send
from server.residency import Residency

CHAT = "/v1/chat/completions"


class Echo:
    """An application that answers with the request it saw, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        body = b"{}"
        if scope["method"] == "POST":
            message = await receive()
            body = message["body"]
            assert not message["more_body"]
            assert dict(scope["headers"])[b"content-length"] == str(len(body)).encode()
            self.requests.append(json.loads(body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def residency(*reasons: str) -> Residency:
    async def load(version: Version) -> list[str]:
        return list(reasons)

    return Residency(lambda version: [], load)


def gate(app: Any, store: Store, loads: Residency | None = None, api_key: str | None = None) -> Gate:
    return Gate(app, store, loads or residency(), ("tiny-llama", "base"), api_key)


def ask(gate: Gate, method: str, path: str, **options: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app=gate)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    return error


@pytest.mark.parametrize(
    ("asked", "exact"),
    [("formal", "formal@1"), ("formal@2", "formal@2"), ("base", "base"), ("tiny-llama", "tiny-llama")],
)
def test_the_exact_version_reaches_vllm(store: Store, asked: str, exact: str):
    answer = ask(gate(Echo(), store), "POST", CHAT, json={"model": asked, "messages": [{"content": "Grüße"}]})
    assert answer.json() == {"model": exact, "messages": [{"content": "Grüße"}]}


def test_a_promote_takes_effect_at_the_next_request(store: Store):
    app = Echo()
    entrance = gate(app, store)
    for version in ("formal@2", "formal@1"):
        store.promote(version)
        ask(entrance, "POST", CHAT, json={"model": "formal"})
        assert app.requests[-1]["model"] == version


def test_an_unknown_name_is_404_with_the_nearest_ones(store: Store):
    app = Echo()
    answer = ask(gate(app, store), "POST", CHAT, json={"model": "frmal"})
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "model_not_found"
    assert error_of(answer)["param"] == "model"
    assert "formal" in error_of(answer)["message"]
    assert app.paths == []


@pytest.mark.parametrize(
    "model", ["formal@9", "formal@", "@1", "formal@1/..", "../formal", "/etc", "Formal", "text", "formal@01"]
)
def test_no_spelling_gets_past_the_store(store: Store, model: str):
    answer = ask(gate(Echo(), store), "POST", CHAT, json={"model": model})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")


def test_a_version_that_cannot_be_served_is_422_with_every_reason(store: Store):
    answer = ask(gate(Echo(), store, residency("rank 64", "NaN")), "POST", CHAT, json={"model": "formal"})
    assert (answer.status_code, error_of(answer)["code"]) == (422, AdapterUnusable.code)
    assert "rank 64" in error_of(answer)["message"]
    assert "NaN" in error_of(answer)["message"]


def test_too_many_cold_loads_are_503_with_retry_after(store: Store):
    loads = Residency(lambda version: [], lambda version: asyncio.sleep(0, []), max_cold_loads=0)
    answer = ask(gate(Echo(), store, loads), "POST", CHAT, json={"model": "formal"})
    assert (answer.status_code, error_of(answer)["code"]) == (503, Overloaded.code)
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"17", b"{}", b'{"model": ""}', b'{"model": 7}', b'{"model": null}', b"[" * 100_000],
)
def test_a_body_that_is_no_request_is_400(store: Store, body: bytes):
    answer = ask(gate(Echo(), store), "POST", CHAT, content=body)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")


def test_a_large_body_is_413_whether_announced_or_not(store: Store):
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (MAX_BODY_BYTES // 2)

    app = Echo()
    for content in (b" " * (MAX_BODY_BYTES + 1), parts()):
        answer = ask(gate(app, store), "POST", CHAT, content=content)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")
    assert app.paths == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"),
        ("POST", "/v1/load_lora_adapter"),
        ("DELETE", "/adapters/formal"),
        ("POST", "/tokenize"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "//v1/chat/completions"),
        ("GET", CHAT),
        ("POST", "/health"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/a/b"),
        ("DELETE", "/v1/models/formal"),
        ("GET", "/docs"),
        ("GET", "/metrics/x"),
    ],
)
def test_whatever_is_not_allowed_is_404(store: Store, method: str, path: str):
    app = Echo()
    answer = ask(gate(app, store), method, f"http://server{path}")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    assert app.paths == []


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/models/formal@1"])
def test_what_only_reads_passes(store: Store, path: str):
    assert ask(gate(Echo(), store), "GET", path).status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret", "secret"]
)
def test_with_a_key_set_nothing_but_health_answers_without_it(store: Store, header: str):
    app = Echo()
    entrance = gate(app, store, api_key="secret")
    for method, path in [("GET", "/v1/models"), ("POST", CHAT), ("GET", "/metrics"), ("POST", "/invocations")]:
        answer = ask(entrance, method, path, headers={"Authorization": header}, json={"model": "base"})
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert app.paths == []
    assert ask(entrance, "GET", "/health").status_code == 200


def test_the_right_key_lets_in(store: Store):
    entrance = gate(Echo(), store, api_key="secret")
    assert (
        ask(entrance, "POST", CHAT, headers={"Authorization": "bearer secret"}, json={"model": "base"}).status_code
        == 200
    )


def test_an_exception_is_500_and_the_log_does_not_quote_it(store: Store, caplog: pytest.LogCaptureFixture):
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError((await receive())["body"])

    answer = ask(gate(broken, store), "POST", CHAT, json={"model": "base", "prompt": "Dear Ms Secret"})
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
    assert "ValueError" in caplog.text
    assert "in broken" in caplog.text
    assert "Secret" not in caplog.text + answer.text


@pytest.mark.parametrize("breaks", [True, False])
def test_a_stream_that_breaks_or_just_stops_ends_with_an_error(store: Store, breaks: bool):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        if breaks:
            raise RuntimeError

    answer = ask(gate(app, store), "POST", CHAT, json={"model": "base"})
    first, last, end = answer.text.split("\n\n")
    assert (first, end) == ("data: {}", "")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"


def exchange(app: Any, store: Store, kind: str, *incoming: Message) -> list[Message]:
    """Speak ASGI with the gate directly: `incoming` is all that ever arrives."""
    waiting, sent = list(incoming), []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "POST", "path": CHAT, "headers": []}
    asyncio.run(gate(app, store)(scope, receive, send))
    return sent


def test_vllm_hears_when_the_client_hangs_up(store: Store):
    heard = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    body = {"type": "http.request", "body": b'{"model": "base"}', "more_body": False}
    exchange(app, store, "http", body, {"type": "http.disconnect"})
    assert heard == ["http.request", "http.disconnect"]


def test_a_client_that_hangs_up_in_its_body_gets_no_answer(store: Store):
    begun = {"type": "http.request", "body": b'{"mod', "more_body": True}
    assert exchange(Echo(), store, "http", begun, {"type": "http.disconnect"}) == []


def test_websockets_are_turned_away(store: Store):
    [close] = exchange(Echo(), store, "websocket", {"type": "websocket.connect"})
    assert close["type"] == "websocket.close"
