"""The gate around an application in memory: who may come in, which version is meant, what leaves."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import AdapterUnusable, Overloaded
from adapters.store.store import Store
from server.api.access import Access
from server.api.application import layers, wrapped
from server.api.gate import MAX_BODY_BYTES
from server.api.keys import Keys, Order
from server.api.limits import Limits
from server.engine.residency import Residency
from server.engine.shutdown import Shutdown
from server.engine.voices import Voices
from server.metrics import UNKNOWN, Metrics
from tests.server.fake_engine import FakeEngine

CHAT = "/v1/chat/completions"
LOCAL = [(b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json")]
"""The headers of a request from this machine."""


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
    return FakeEngine(loaded=list(reasons)).residency()


def gate(
    app: Any,
    store: Store,
    loads: Residency | None = None,
    api_key: str | None = None,
    registry: CollectorRegistry | None = None,
    cross_origin: bool = False,
    check: Any = None,
) -> ASGIApp:
    """The gate with the layers around it, as a request passes them."""
    metrics = Metrics(registry or CollectorRegistry(), "tiny-llama")
    engine = FakeEngine()
    voices = Voices(store, engine, engine.judge, 4, metrics.load_ended)
    voices.residency = loads or voices.residency
    around = layers(
        metrics,
        voices=voices,
        base_names=("tiny-llama", "base"),
        access=Access(store, api_key, local=True),
        limits=Limits(context=2048, takes_tools=False, more_fields=frozenset({"top_k"})),
        shutdown=Shutdown(),
        check=check,
        cross_origin=cross_origin,
    )
    return wrapped(app, around)


def ask(gate: ASGIApp, method: str, path: str, **options: Any) -> httpx.Response:
    options["headers"] = {"content-type": "application/json", **options.get("headers", {})}

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app=gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
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
    answer = ask(
        gate(Echo(), store), "POST", CHAT, json={"model": asked, "messages": [{"role": "user", "content": "Grüße"}]}
    )
    assert answer.json() == {"model": exact, "messages": [{"role": "user", "content": "Grüße"}]}


def test_a_promote_takes_effect_at_the_next_request(store: Store):
    app = Echo()
    entrance = gate(app, store)
    for version in ("formal@2", "formal@1"):
        store.promote(version)
        ask(entrance, "POST", CHAT, json={"model": "formal"})
        assert app.requests[-1]["model"] == version


def test_the_disk_is_read_in_a_thread_and_only_after_a_change(store: Store, monkeypatch: pytest.MonkeyPatch):
    reads: list[bool] = []

    def noted(method: Callable[..., object]) -> Callable[..., object]:
        def noting(*arguments: object) -> object:
            reads.append(threading.current_thread() is threading.main_thread())
            return method(*arguments)

        return noting

    Keys(store.directory).create(Order("app"))
    for owner, method in ((Store, "pointers"), (Store, "versions"), (Store, "names"), (Keys, "_load")):
        monkeypatch.setattr(owner, method, noted(getattr(owner, method)))
    entrance, headers = gate(Echo(), store, api_key="secret"), {"Authorization": "Bearer secret"}

    def on_the_event_loop(model: str) -> list[bool]:
        reads.clear()
        ask(entrance, "POST", CHAT, json={"model": model}, headers=headers)
        return sorted(set(reads))

    assert on_the_event_loop("formal") == [False]
    assert on_the_event_loop("formal") == on_the_event_loop("formal@2") == on_the_event_loop("base") == []
    store.promote("formal@2")
    Keys(store.directory).create(Order("other"))
    assert on_the_event_loop("formal") == [False]
    assert on_the_event_loop("frmal") == [False]
    assert on_the_event_loop("formal") == []


def test_a_label_means_its_version(store: Store):
    store.label("formal@2", "candidate")
    assert ask(gate(Echo(), store), "POST", CHAT, json={"model": "formal@candidate"}).json()["model"] == "formal@2"


def test_a_retired_version_is_404(store: Store):
    store.retire("formal@2")
    answer = ask(gate(Echo(), store), "POST", CHAT, json={"model": "formal@2"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert "retired" in error_of(answer)["message"]


def test_a_canary_gets_its_share_of_the_users_always_the_same_ones_and_is_counted_apart(store: Store):
    store.promote("formal@2", percent=30)
    registry = CollectorRegistry()
    entrance = gate(Echo(), store, registry=registry)

    def asked(user: str) -> str:
        return str(ask(entrance, "POST", CHAT, json={"model": "formal", "user": user}).json()["model"])

    first = {user: asked(user) for user in map(str, range(200))}
    assert 30 <= list(first.values()).count("formal@2") <= 90
    assert all(asked(user) == first[user] for user in list(first)[:20])
    count = registry.get_sample_value
    on_trial = count("mailwright_requests_total", {"adapter": "formal@canary", "outcome": "ok"}) or 0
    others = count("mailwright_requests_total", {"adapter": "formal", "outcome": "ok"}) or 0
    assert (on_trial > 0, on_trial + others) == (True, 220)
    store.roll_back("formal")
    assert {asked(user) for user in first} == {"formal@1"}


def test_without_a_user_the_request_itself_decides_about_the_canary(store: Store):
    store.promote("formal@2", percent=50)
    entrance = gate(Echo(), store)
    requests = [{"model": "formal", "messages": [{"role": "user", "content": str(number)}]} for number in range(40)]
    first = [ask(entrance, "POST", CHAT, json=request).json()["model"] for request in requests]
    assert set(first) == {"formal@1", "formal@2"}
    assert [ask(entrance, "POST", CHAT, json=request).json()["model"] for request in requests] == first


def test_a_version_stays_loaded_until_its_answer_has_ended(store: Store):
    engine = FakeEngine()
    loads = engine.residency()
    seen = []

    class Slow(Echo):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await loads.unload("formal@1")
            seen.append(list(engine.held))
            await super().__call__(scope, receive, send)

    assert ask(gate(Slow(), store, loads), "POST", CHAT, json={"model": "formal"}).status_code == 200
    assert seen == [["formal@1"]]
    assert loads.residents() == {} or loads.residents()["formal@1"].in_use == 0


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
    loads = FakeEngine().residency(max_cold_loads=0)
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
        ("GET", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/embeddings"),
        ("OPTIONS", CHAT),
        ("HEAD", "/v1/models"),
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
    answer = ask(gate(app, store), method, f"http://127.0.0.1{path}")
    assert answer.status_code == 404
    assert method == "HEAD" or error_of(answer)["code"] == "not_found"
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

    answer = ask(gate(broken, store), "POST", CHAT, json={"model": "base", "user": "Dear Ms Secret"})
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


def exchange(entrance: ASGIApp, kind: str, *incoming: Message) -> list[Message]:
    """Speak ASGI with the gate directly: `incoming` is all that ever arrives."""
    waiting, sent = list(incoming), []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "POST", "path": CHAT, "headers": LOCAL}
    asyncio.run(entrance(scope, receive, send))
    return sent


def test_vllm_hears_when_the_client_hangs_up(store: Store):
    heard = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    body = {"type": "http.request", "body": b'{"model": "base"}', "more_body": False}
    exchange(gate(app, store), "http", body, {"type": "http.disconnect"})
    assert heard == ["http.request", "http.disconnect"]


def test_a_client_that_hangs_up_in_its_body_gets_no_answer(store: Store):
    begun = {"type": "http.request", "body": b'{"mod', "more_body": True}
    assert exchange(gate(Echo(), store), "http", begun, {"type": "http.disconnect"}) == []


def test_websockets_are_turned_away(store: Store):
    [close] = exchange(gate(Echo(), store), "websocket", {"type": "websocket.connect"})
    assert close["type"] == "websocket.close"


STREAM = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
EVENT = {"type": "http.response.body", "body": b'data: {"choices":[{"text":"D"}]}\n\n', "more_body": True}
ERROR = {**EVENT, "body": b'data: {"error": {"message": "m", "type": "t", "param": null, "code": 500}}\n\n'}
DONE = {**EVENT, "body": b"data: [DONE]\n\n"}
END = {"type": "http.response.body", "body": b"", "more_body": False}


HANGS_UP: Message = {"type": "http.disconnect"}
BREAKS = RuntimeError()
FORMAL = [{"type": "http.request", "body": b'{"model": "formal"}', "more_body": False}]
BASE = [{"type": "http.request", "body": b'{"model": "base"}', "more_body": False}]
JUNK = [{"type": "http.request", "body": b'{"model": "formal@9"}', "more_body": False}]


def answers(*steps: Message | Exception) -> Any:
    """An application that sends `steps`; at HANGS_UP it waits for the client to do that, an exception it raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if step is HANGS_UP:
                assert await receive() is HANGS_UP
            else:
                await send(step)

    return app


def fails(status: int) -> Any:
    return answers({**STREAM, "status": status, "headers": []}, END)


def broken() -> Residency:
    return residency("its rank is 64")


def busy() -> Residency:
    return FakeEngine().residency(max_cold_loads=0)


def counted(registry: CollectorRegistry, series: str) -> dict[tuple[str, ...], float]:
    """The samples of `series` that are not 0, by the values of their labels."""
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {tuple(s.labels.values()): s.value for s in samples if s.name == f"mailwright_{series}" and s.value}


@pytest.mark.parametrize(
    ("app", "loads", "incoming", "adapter", "outcome"),
    [
        (answers(STREAM, EVENT, DONE, END), residency, FORMAL, "formal", "ok"),
        (answers(STREAM, EVENT, DONE, END), residency, BASE, "tiny-llama", "ok"),
        (answers(STREAM, EVENT), residency, FORMAL, "formal", "server_error"),
        (answers(STREAM, EVENT, BREAKS), residency, FORMAL, "formal", "server_error"),
        (answers(STREAM, EVENT, ERROR, DONE, END), residency, FORMAL, "formal", "server_error"),
        (answers(BREAKS), residency, FORMAL, "formal", "server_error"),
        (answers({**STREAM, "headers": []}), residency, FORMAL, "formal", "server_error"),
        (answers(), residency, FORMAL, "formal", "server_error"),
        (fails(500), residency, FORMAL, "formal", "server_error"),
        (fails(400), residency, FORMAL, "formal", "client_error"),
        (fails(503), residency, FORMAL, "formal", "refused"),
        (answers(), broken, FORMAL, "formal", "refused"),
        (answers(), busy, FORMAL, "formal", "refused"),
        (answers(), residency, JUNK, UNKNOWN, "client_error"),
        (answers(), residency, [{**FORMAL[0], "body": b"{"}], UNKNOWN, "client_error"),
        (answers(HANGS_UP), residency, [*FORMAL, HANGS_UP], "formal", "client_gone"),
        (answers(STREAM, EVENT, HANGS_UP), residency, [*FORMAL, HANGS_UP], "formal", "client_gone"),
        # So does vLLM, when the client of a whole answer hangs up: it stops, and "answers" null.
        (answers(HANGS_UP, {**STREAM, "headers": []}, END), residency, [*FORMAL, HANGS_UP], "formal", "client_gone"),
        (answers(), residency, [HANGS_UP], UNKNOWN, "client_gone"),
    ],
)
def test_however_a_request_ends_it_is_counted_once_and_no_longer_in_flight(
    store: Store, app: Any, loads: Callable[[], Residency], incoming: list[Message], adapter: str, outcome: str
):
    registry = CollectorRegistry()
    exchange(gate(app, store, loads(), registry=registry), "http", *incoming)
    assert counted(registry, "requests_total") == {(adapter, outcome): 1}
    assert counted(registry, "requests_in_flight") == {}


@pytest.mark.parametrize("begins", [(), (STREAM, EVENT)])
def test_a_request_is_in_flight_while_vllm_has_it_and_not_after_it_was_cancelled(
    store: Store, begins: tuple[Message, ...]
):
    registry = CollectorRegistry()

    async def play() -> None:
        reached = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in begins:
                await send(message)
            reached.set()
            await asyncio.Event().wait()

        async def receive() -> Message:
            return FORMAL[0]

        async def send(message: Message) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": LOCAL}
        answering = asyncio.create_task(gate(app, store, registry=registry)(scope, receive, send))
        await asyncio.wait_for(reached.wait(), 10)
        assert counted(registry, "requests_in_flight") == {("formal",): 1}
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering

    asyncio.run(play())
    assert counted(registry, "requests_in_flight") == {}
    assert counted(registry, "requests_total") == {("formal", "server_error"): 1}


def test_ten_thousand_made_up_names_add_no_series(store: Store):
    registry = CollectorRegistry()
    entrance = gate(Echo(), store, registry=registry)

    def series() -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {(s.name, frozenset(s.labels.items())) for family in registry.collect() for s in family.samples}

    async def ask_all() -> None:
        transport = httpx.ASGITransport(app=entrance)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for number in range(10_000):
                await client.post(CHAT, json={"model": f"voice-{number:x}"})

    before = series()
    asyncio.run(ask_all())
    assert series() == before
    assert counted(registry, "requests_total") == {(UNKNOWN, "client_error"): 10_000}


def test_what_only_reads_is_not_counted(store: Store):
    registry = CollectorRegistry()
    entrance = gate(Echo(), store, registry=registry)
    for path in ("/metrics", "/v1/models", "/invocations"):
        ask(entrance, "GET", path)
    assert counted(registry, "requests_total") == {}


def key(store: Store, **order: Any) -> dict[str, str]:
    """The header that a new key's owner sends."""
    return {"Authorization": f"Bearer {Keys(store.directory).create(Order('app', **order))[1]}"}


def test_a_key_lets_in_from_when_it_is_made_until_it_is_revoked(store: Store):
    entrance = gate(Echo(), store)
    assert ask(entrance, "POST", CHAT, json={"model": "formal"}).status_code == 200
    headers = key(store)
    assert ask(entrance, "POST", CHAT, json={"model": "formal"}).status_code == 401
    assert ask(entrance, "POST", CHAT, json={"model": "formal"}, headers=headers).status_code == 200
    Keys(store.directory).revoke("app")
    answer = ask(entrance, "POST", CHAT, json={"model": "formal"}, headers=headers)
    assert (answer.status_code, "was revoked" in error_of(answer)["message"]) == (401, True)
    # Without a key nobody comes in again: the last one's end does not open the door.
    assert ask(entrance, "POST", CHAT, json={"model": "formal"}).status_code == 401


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (("infer",), {f"POST {CHAT}", "GET /v1/models", "GET /v1/adapters/formal"}),
        (("metrics",), {"GET /metrics"}),
        (("admin",), {"GET /v1/models", "GET /v1/adapters/formal", "POST /v1/adapters/formal@2/promote"}),
    ],
)
def test_a_key_may_what_its_scope_says(store: Store, scopes: Any, allowed: set[str]):
    headers, entrance = key(store, scopes=scopes), gate(fails(200), store)
    for request in (
        *(f"POST {CHAT}", "GET /v1/models", "GET /metrics"),
        *("GET /v1/adapters/formal", "POST /v1/adapters/formal@2/promote"),
    ):
        answer = ask(entrance, *request.split(), json={"model": "formal"}, headers=headers)
        assert answer.status_code == (200 if request in allowed else 403)
        assert request in allowed or error_of(answer)["code"] == "insufficient_permissions"


def test_without_keys_nobody_administers_over_http(store: Store):
    answer = ask(gate(Echo(), store), "POST", "/v1/adapters/formal@2/promote")
    assert (answer.status_code, error_of(answer)["code"]) == (403, "insufficient_permissions")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "8.8.8.8", "[::2]"]
)
def test_without_keys_the_host_must_be_this_machine(store: Store, host: str):
    answer = ask(gate(Echo(), store), "POST", CHAT, json={"model": "formal"}, headers={"Host": host})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "insufficient_permissions")
    assert ask(gate(Echo(), store), "GET", "/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_without_keys_a_loopback_host_is_let_in(store: Store, host: str):
    assert ask(gate(Echo(), store), "POST", CHAT, json={"model": "formal"}, headers={"Host": host}).status_code == 200


def test_with_a_key_the_host_may_be_any(store: Store):
    headers = key(store) | {"Host": "mail.example.org"}
    assert ask(gate(Echo(), store), "POST", CHAT, json={"model": "formal"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "asked", ["friendly", "friendly@1", "friendly@candidate", "nosuch", "base", "tiny-llama", "frie"]
)
def test_what_a_key_may_not_use_and_what_is_not_there_answer_alike(store: Store, asked: str):
    headers, entrance = key(store, models=("formal*",), scopes=("infer", "admin")), gate(Echo(), store)
    for method, path in [("POST", CHAT), ("GET", f"/v1/models/{asked}"), ("POST", f"/v1/adapters/{asked}/load")]:
        answer = ask(entrance, method, path, json={"model": asked}, headers=headers)
        error = error_of(answer)
        assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert error["message"] == f"the model {asked!r} does not exist; there are formal"


def test_suggested_names_are_those_that_the_key_may_use(store: Store):
    headers, entrance = key(store, models=("formal*",)), gate(Echo(), store)
    message = error_of(ask(entrance, "POST", CHAT, json={"model": "frmal"}, headers=headers))["message"]
    assert "did you mean formal?" in message
    message = error_of(ask(entrance, "POST", CHAT, json={"model": "formal@7"}, headers=headers))["message"]
    assert "it has the versions formal@1, formal@2" in message


def test_a_key_for_the_base_model_may_use_it_under_all_its_names(store: Store):
    headers, entrance = key(store, models=("base",)), gate(Echo(), store)
    statuses = [
        ask(entrance, "POST", CHAT, json={"model": model}, headers=headers).status_code
        for model in ("base", "tiny-llama", "formal")
    ]
    assert statuses == [200, 200, 404]


def test_anthropics_header_carries_a_key_too(store: Store):
    headers = {"x-api-key": key(store)["Authorization"].removeprefix("Bearer ")}
    assert ask(gate(Echo(), store), "POST", "/v1/messages", json={"model": "base"}, headers=headers).status_code == 200


def test_a_key_at_its_requests_a_minute_gets_429_and_hears_when_to_come_back(store: Store):
    headers, entrance = key(store, requests_per_minute=2), gate(Echo(), store)
    answers = [ask(entrance, "POST", CHAT, json={"model": "base"}, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:2]] == ["1", "0"]
    assert error_of(answers[2])["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30


def test_every_answer_has_a_request_id_that_vllm_gets_too_and_no_client_chooses(store: Store):
    passed = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(dict(scope["headers"]).get(b"x-request-id", b"").decode())
        await Echo()(scope, receive, send)

    headers = {"X-Request-Id": "canary", "X-Session-Id": "canary", "X-Amzn-SageMaker-Session-Id": "NEW_SESSION"}
    seen = set()
    for method, path, body in [("POST", CHAT, {"model": "base"}), ("POST", CHAT, {}), ("GET", "/health", None)]:
        answer = ask(gate(app, store), method, path, json=body, headers=headers)
        seen.add(answer.headers["x-request-id"])
    assert ask(gate(app, store), "GET", "/nowhere").headers["x-request-id"]
    assert (len(seen), "canary" in seen) == (3, False)
    assert len(passed) == 2
    assert set(passed) < seen


def test_vllm_gets_no_header_that_would_choose_for_it(store: Store):
    passed: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.extend(name for name, _ in scope["headers"])
        await Echo()(scope, receive, send)

    headers = {"X-Data-Parallel-Rank": "1", "Authorization": "Bearer x", "Cookie": "a=b", "traceparent": "00-1-1-00"}
    ask(gate(app, store), "POST", CHAT, json={"model": "base"}, headers=headers)
    wanted = {b"host", b"accept", b"accept-encoding", b"content-type", b"content-length", b"x-request-id"}
    assert set(passed) == wanted | {b"traceparent"}


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"]
)
def test_a_body_that_does_not_say_that_it_is_json_is_400(store: Store, kind: str):
    answer = ask(gate(Echo(), store), "POST", CHAT, content=b'{"model": "base"}', headers={"content-type": kind})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")


def test_preflights_reach_vllm_only_where_the_operator_allows_origins(store: Store):
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    app = Echo()
    closed = gate(app, store)
    assert ask(closed, "OPTIONS", CHAT, headers=headers).status_code == 404
    open_to_browsers = gate(app, store, cross_origin=True)
    assert ask(open_to_browsers, "OPTIONS", CHAT, headers=headers).status_code == 200
    assert app.paths == [CHAT]


def test_a_broken_stream_of_named_events_ends_with_one_called_error(store: Store):
    event = {**EVENT, "body": b'event: response.output_text.delta\ndata: {"type":"x"}\n\n'}
    answer = ask(gate(answers(STREAM, event, BREAKS), store), "POST", "/v1/responses", json={"model": "base"})
    last = answer.text.removesuffix("\n\n").split("\n\n")[-1]
    name, data = last.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == "internal_error"
