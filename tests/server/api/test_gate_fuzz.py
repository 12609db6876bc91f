"""Anything at all, thrown at the gate around an application in memory: always an answer, never a 5xx, and the next good
request is answered. MAILWRIGHT_FUZZ_EXAMPLES (60) says how many examples each property gets."""

import asyncio
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from server.api.gate import MAX_BODY_BYTES
from tests import tiny
from tests.server.api.test_gate import CHAT, gate

EXAMPLES = int(os.environ.get("MAILWRIGHT_FUZZ_EXAMPLES", "60"))
ANSWER_SECONDS = 30
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

WRITING = [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"]
HEADERS = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
GOOD = b'{"model": "formal", "messages": [{"role": "user", "content": "Thank Ada."}]}'
GONE: Message = {"type": "http.disconnect"}

NAMES = {
    "empty": "",
    "a space": " ",
    "spaces around it": " formal ",
    "a space in it": "for mal",
    "traversal": "../../../etc/passwd",
    "traversal to another": "formal/../friendly",
    "traversal, Windows": "..\\..\\formal",
    "absolute": "/etc/passwd",
    "home": "~/formal",
    "dot": ".",
    "dots": "..",
    "trailing dot": "formal.",
    "hidden": ".formal",
    "at": "@",
    "at at": "@@",
    "two versions": "formal@1@2",
    "no version": "formal@",
    "no name": "@1",
    "version 0": "formal@0",
    "version -1": "formal@-1",
    "version 1.0": "formal@1.0",
    "version 01": "formal@01",
    "version of 20 digits": "formal@99999999999999999999",
    "version of 5,000 digits": "formal@" + "9" * 5000,
    "version in Arabic digits": "formal@\u0661",
    "version in superscript": "formal@\u00b2",
    "unknown label": "formal@nobody",
    "canary": "formal@canary",
    "reserved": "text",
    "version of the base model": "base@1",
    "percent-encoded": "%66ormal",
    "percent-encoded twice": "%2566ormal",
    "percent-encoded traversal": "%2e%2e%2fformal",
    "10 kB": "a" * 10_000,
    "64 characters": "a" * 64,
    "NUL": "formal\0",
    "newline": "formal\n",
    "header injection": "formal\r\nX-Evil: 1",
    "emoji": "\U0001f4e7",
    "look-alike": "f\u043ermal",
    "full width": "\uff46\uff4f\uff52\uff4d\uff41\uff4c",
    "zero width": "for\u200bmal",
    "right to left": "\u202elamrof",
    "combining": "forma\u0301l",
    "upper case": "FORMAL",
    "wildcard": "f*",
    "pattern": "[a-z]ormal",
    "URL": "http://127.0.0.1:1/formal",
    "hub id": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "template": "{{ 7 * 7 }}",
    "format": "%s%n{0}",
    "SQL": "formal' OR '1'='1",
    "markup": "<script>alert(1)</script>",
    "unknown": "nobody",
}
"""None of them may be taken for an adapter or the base model."""


def words(text: str) -> list[str]:
    return text.split()


# Not as uvicorn would let them all through, but as anything in between could.
names = st.sampled_from(list(NAMES.values())) | st.text(max_size=80)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | st.text(max_size=30)
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5)
)
fields = st.sampled_from(
    words(
        "model messages prompt input instructions system max_tokens n best_of stop stream stream_options logit_bias"
        " tools tool_choice response_format user seed temperature metadata chat_template priority lora"
    )
)
requests = st.dictionaries(fields, json_values, max_size=6)


def with_model(request: dict[str, Any], model: Any) -> bytes:
    return json.dumps({**request, "model": model}).encode()


def nested(depth: int, opening: str, closing: str) -> bytes:
    return f'{{"model": "formal", "messages": {opening * depth}1{closing * depth}}}'.encode()[: 2 * MAX_BODY_BYTES]


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    """`body` cut where `cuts` say, modulo its length: empty pieces too."""
    places = sorted([0, len(body), *(cut % (len(body) + 1) for cut in cuts)])
    return [body[start:end] for start, end in pairwise(places)]


ODD_BODIES = [
    b"",
    b"null",
    b"\xff\xfe",
    b'{"model": "formal", "model": "base", "model": "nobody"}',
    b'{"model": "formal", "messages": 1, "messages": NaN}',
    b'{"model": "formal", "temperature": NaN}',
    b'{"model": "formal", "temperature": -Infinity, "n": Infinity}',
    b'{"model": "formal", "temperature": 1e999}',
    b'{"model": "formal", "seed": ' + b"9" * 5000 + b"}",
    b'{"model": "formal", "max_tokens": ' + b"9" * 4000 + b"}",
    b'{"model": "formal", "seed": -9223372036854775809}',
    b'{"model": "formal", "user": "\\ud800"}',
    b'{"model": "formal", "messages": [{"\\udfff": "x"}]}',
    b'{"model": "\\ud800"}',
    b'{"model": "formal\\ud83d"}',
    b'{"model": "formal", "\\u0000": "\\u0000"}',
    b'{"model": ["formal"]}',
    b'{"model": {"formal": 1}}',
    b'{"model": true}',
    b'{"model": "formal"}' * 2,
    b'{"model": "formal"}' + b" " * MAX_BODY_BYTES,
    b'{"model": "formal", "prompt": "' + b"a" * (MAX_BODY_BYTES - 40) + b'"}',
    b"[" * (MAX_BODY_BYTES - 1),
    b'{"model": "formal", "x": [' + b"{}," * 300_000 + b"{}]}",
]

depths = st.sampled_from([10, 31, 32, 33, 100, 900, 1_000, 5_000, 20_000, 100_000])
valid_json = st.builds(with_model, requests, st.just("formal") | names | json_values) | json_values.map(
    lambda value: json.dumps(value).encode()
)
bodies = st.one_of(
    valid_json,
    st.binary(max_size=200),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    valid_json.map(lambda body: body[: len(body) // 2]),
    st.builds(
        lambda body, encoding: body.decode().encode(encoding, "replace"),
        valid_json,
        st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7"]),
    ),
    st.builds(nested, depths, st.sampled_from(["[", '{"a":', '[{"a":']), st.sampled_from(["]", "}", "}]", ""])),
    st.sampled_from(ODD_BODIES),
)
header_names = st.sampled_from(
    words(
        "authorization x-api-key host origin content-type content-length transfer-encoding expect connection cookie"
        " x-request-id x-forwarded-for x-forwarded-proto accept accept-encoding traceparent x-data-parallel-rank"
        " access-control-request-method sec-fetch-site range if-none-match"
    )
).map(str.encode) | st.binary(max_size=12).map(bytes.lower)
header_values = st.binary(max_size=60) | st.sampled_from(
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer \xff\xfe",
        b"bearer mw-0123456789ab-" + b"x" * 43,
        b"Basic Og==",
        b"-1",
        b"+5",
        b"1e3",
        b"\xb2",
        b"9" * 5000,
        b"0x10",
        b"[::1]",
        b"[",
        b"127.0.0.1:x",
        b"evil.example",
        b"localhost.",
        b"a" * 30_000,
        b"application/json; charset=utf-16",
        b"multipart/form-data",
        b"gzip",
        b"00-0-0-0",
        b"GET",
        b"100-continue",
    ]
)
headers = st.lists(st.tuples(header_names, header_values), max_size=8)
methods = st.sampled_from(words("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PRI SOURCE get")) | st.text(
    max_size=8
)
known_paths = st.sampled_from(
    words(
        " ".join(WRITING)
        + " /health /metrics /openapi.json /v1/models /v1/adapters /v1/models/formal /invocations /ping"
        " /v1/adapters/formal/promote /v1/load_lora_adapter /tokenize /v1/chat/completions/batch"
    )
)
paths = st.one_of(
    known_paths,
    known_paths.flatmap(
        lambda path: st.sampled_from([path + "/", "/" + path, path.upper(), path + "%00", path + "\0"])
    ),
    known_paths.flatmap(
        lambda path: st.sampled_from(["/." + path, "/x/.." + path, path + ";a=b", path + "?a", path + "#"])
    ),
    known_paths.map(lambda path: quote(quote(path, safe=""))),
    st.builds("/v1/models/{}".format, names),
    st.builds(
        "/v1/adapters/{}/{}".format, names, st.sampled_from(["load", "pin", "unload", "promote", "rollback", "x"])
    ),
    st.text(max_size=60),
    st.just("/" + "a" * 30_000),
    st.just("/v1/models/" + "%2e" * 5_000),
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body, if there is to be one, and answers."""
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}", "more_body": False})


@pytest.fixture(scope="module")
def entrance(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel) -> ASGIApp:
    store = Store(tmp_path_factory.mktemp("fuzz") / "store")
    for seed, name in enumerate(["formal", "formal", "friendly"], start=1):
        tiny.publish(store, base_model, name, seed)
    return gate(application, store)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def exchange(entrance: ASGIApp, scope: Scope, incoming: list[Message]) -> list[Message]:
    """What the gate sends when `incoming` arrives; after that the client hangs up."""
    waiting, sent = iter(incoming), []

    async def receive() -> Message:
        return next(waiting, GONE)

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(ANSWER_SECONDS):
        await entrance(scope, receive, send)
    return sent


def http(method: str, path: str, given: list[tuple[bytes, bytes]]) -> Scope:
    raw = quote(path, safe="/%").encode()
    return {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": raw,
        "headers": given,
        "extensions": {},
    }


def arriving(parts: list[bytes], complete: bool = True) -> list[Message]:
    last = len(parts) - 1
    return [
        {"type": "http.request", "body": part, "more_body": not complete or number < last}
        for number, part in enumerate(parts)
    ]


def check_answer(sent: list[Message]) -> int:
    """The status, of an answer that is complete, not ours to be ashamed of, and in OpenAI's shape if it is an error."""
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert [message["type"] for message in rest] == ["http.response.body"] * len(rest)
    assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [False]
    answer = dict(start["headers"])
    assert answer[b"x-request-id"]
    assert start["status"] < 500, b"".join(message["body"] for message in rest)
    if start["status"] >= 400:
        body = b"".join(message["body"] for message in rest)
        assert answer[b"content-type"] == b"application/json"
        assert answer[b"content-length"] == str(len(body)).encode()
        error = json.loads(body)["error"]
        assert sorted(error) == ["code", "message", "param", "type"]
        assert all(isinstance(error[field], str) and error[field] for field in ("code", "message", "type"))
        assert error["param"] is None or isinstance(error["param"], str)
        assert len(body) < 4096
    return int(start["status"])


def throw(runner: asyncio.Runner, entrance: ASGIApp, scope: Scope, incoming: list[Message]) -> int:
    """The status of the answer; a good request comes next and is answered."""
    status = check_answer(runner.run(exchange(entrance, scope, incoming)))
    assert check_answer(runner.run(exchange(entrance, http("POST", CHAT, HEADERS), arriving([GOOD])))) == 200
    return status


@fuzz
@given(st.sampled_from(WRITING), bodies, st.lists(st.integers(min_value=0), max_size=6))
def test_any_body_in_any_pieces(runner: asyncio.Runner, entrance: ASGIApp, path: str, body: bytes, cuts: list[int]):
    throw(runner, entrance, http("POST", path, HEADERS), arriving(pieces(body, cuts)))


@pytest.mark.parametrize("body", ODD_BODIES, ids=lambda body: repr(body[:60]))
def test_every_odd_body(runner: asyncio.Runner, entrance: ASGIApp, body: bytes):
    for path in WRITING:
        throw(runner, entrance, http("POST", path, HEADERS), arriving([body]))


@fuzz
@given(bodies, st.lists(st.integers(min_value=0), max_size=6), st.integers(min_value=0, max_value=6))
def test_a_client_that_hangs_up_anywhere_is_answered_in_full_or_not_at_all(
    runner: asyncio.Runner, entrance: ASGIApp, body: bytes, cuts: list[int], arrived: int
):
    incoming = arriving(pieces(body, cuts))[:arrived]
    sent = runner.run(exchange(entrance, http("POST", CHAT, HEADERS), incoming))
    assert not sent or check_answer(sent)
    throw(runner, entrance, http("POST", CHAT, HEADERS), arriving([GOOD]))


@fuzz
@given(methods, paths, headers, bodies)
@example("POST", CHAT, [*HEADERS, (b"content-length", b"\xb2")], GOOD)
@example("POST", CHAT, [*HEADERS, (b"content-length", b"9" * 5000)], GOOD)
@example("GET", "/v1/models", [(b"host", b"[")], b"")
def test_any_method_path_and_headers(
    runner: asyncio.Runner,
    entrance: ASGIApp,
    method: str,
    path: str,
    given_headers: list[tuple[bytes, bytes]],
    body: bytes,
):
    throw(runner, entrance, http(method, path, given_headers), arriving([body]))
    # And with what the gate asks for first, so that more of it gets past.
    throw(runner, entrance, http(method, path, [*given_headers, *HEADERS]), arriving([body]))


@fuzz
@given(st.integers(min_value=-(2**70), max_value=2**70) | st.integers(0, 100))
def test_any_announced_length(runner: asyncio.Runner, entrance: ASGIApp, length: int):
    announced = [*HEADERS, (b"content-length", str(length).encode())]
    status = throw(runner, entrance, http("POST", CHAT, announced), arriving([GOOD]))
    assert status == (413 if length > MAX_BODY_BYTES else 200)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_no_name_but_an_adapters_own_is_taken_for_it(runner: asyncio.Runner, entrance: ASGIApp, name: str):
    for path in WRITING:
        assert throw(runner, entrance, http("POST", path, HEADERS), arriving([with_model({}, name)])) in (400, 404)


@fuzz
@given(st.text(max_size=200) | st.text("formal@base.-_/%\\0123 ", max_size=12))
def test_any_other_name(runner: asyncio.Runner, entrance: ASGIApp, name: str):
    status = throw(runner, entrance, http("POST", CHAT, HEADERS), arriving([with_model({}, name)]))
    known = {"formal", "formal@1", "formal@2", "friendly", "friendly@1", "base", "tiny-llama"}
    assert status == 200 if name in known else status in (400, 404)
