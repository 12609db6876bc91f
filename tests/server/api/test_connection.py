"""Real sockets against a real uvicorn with our protocol, around an application that echoes."""

import asyncio
import gc
import json
import logging
import re
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from server.api import connection
from server.api.connection import MAX_HEADER_BYTES, MAX_HEADERS, MAX_PIPELINED, Connection

GOOD = b"GET /good HTTP/1.1\r\nHost: here\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
SECRET = b"dear-ada-i-resign"
UNREAD_BYTES = 2**24
"""More than the kernel's buffers hold of what nobody reads."""
QUIET = 30.0
"""Seconds that a test waits for what should come at once."""


@dataclass
class Listening:
    address: tuple[str, int]
    server: uvicorn.Server
    paths: list[str]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=QUIET)

    def say(self, *parts: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        with closing(self.connect()) as client:
            for part in parts:
                client.sendall(part)
            return everything(client)

    def wait_until_nobody_is_connected(self) -> None:
        deadline = time.monotonic() + QUIET
        while self.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.01)


async def echo(scope: Any, receive: Any, send: Any, paths: list[str]) -> None:
    """/good answers at once, /body with the body, /early without reading it, /endless never ends, /large is
    UNREAD_BYTES long."""
    paths.append(scope["path"])
    answer = scope["path"].encode()
    if scope["path"] == "/body":
        message = await receive()
        answer = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            answer += message.get("body", b"")
        if message["type"] == "http.disconnect":
            return
        answer += b",".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/large":
        await send({"type": "http.response.body", "body": b"x" * UNREAD_BYTES, "more_body": True})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        # As vLLM, which waits here for the client to hang up while it writes.
        if (await receive())["type"] == "http.disconnect":
            paths.append("/dropped")
            return
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
        if (await asyncio.wait_for(receive(), QUIET))["type"] == "http.disconnect":
            return
    await send({"type": "http.response.body", "body": answer, "more_body": False})


@pytest.fixture(scope="module")
def running() -> Iterator[Listening]:
    paths: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send, paths)

    # The same loop as vLLM's, where a transport behaves a little differently from asyncio's own.
    config = uvicorn.Config(application, http=Connection, lifespan="off", loop="uvloop", timeout_keep_alive=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield Listening(listener.getsockname()[:2], server, paths)
        server.should_exit = True
        thread.join(QUIET)
        assert not thread.is_alive()


@pytest.fixture
def listening(running: Listening) -> Listening:
    running.wait_until_nobody_is_connected()
    running.paths.clear()
    return running


def everything(client: socket.socket) -> bytes:
    received = b""
    while part := client.recv(65536):
        received += part
    return received


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and code of the last answer in `answer`, which must be in OpenAI's shape and the connection's last."""
    *_, start = STATUS.finditer(answer)
    head, _, body = answer[start.start() :].partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"
    assert headers["x-request-id"]
    error = json.loads(body)["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["type"] == "invalid_request_error" or int(status.split()[1]) >= 500
    return int(status.split()[1]), error["code"]


def statuses(answers: bytes) -> list[int]:
    return [int(found[1]) for found in STATUS.finditer(answers)]


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: here", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_an_ordinary_connection_is_kept_and_serves_one_request_after_another(listening: Listening):
    with closing(listening.connect()) as client:
        for request in (GOOD, post(b"/body", b"x" * 2**20), GOOD):
            client.sendall(request)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += client.recv(65536)
            assert statuses(received) == [200]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense " + SECRET + b"\r\n\r\n",
        b"GET /" + SECRET + b"\x00 HTTP/1.1\r\n\r\n",
        b"GET /\xff" + SECRET + b" HTTP/1.1\r\n\r\n",
        b"GET http://here HTTP/1.1\r\nX: " + SECRET + b"\r\n\r\n",
        b"CONNECT here:80 HTTP/1.1\r\nX: " + SECRET + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nX " + SECRET + b": 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + SECRET,
        b"POST /body HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECRET,
        b"POST /body HTTP/1.1\r\nContent-Length: -1\r\n\r\n" + SECRET,
        b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n" + SECRET,
        b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + SECRET,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET,  # the beginning of TLS
    ],
)
def test_what_is_not_http_is_400_and_never_in_the_log(
    listening: Listening, caplog: pytest.LogCaptureFixture, request_bytes: bytes
):
    # uvicorn sets its own level and handlers, which hide its lines from the root logger.
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addHandler(caplog.handler)
    answer = listening.say(request_bytes)
    assert statuses(answer) == [400]
    assert refusal(answer) == (400, "invalid_request")
    assert SECRET not in answer
    assert SECRET.decode() not in caplog.text
    assert statuses(listening.say(GOOD + b"bad\r\n\r\n")) == [200]


def test_what_is_wrong_behind_a_good_request_does_not_spoil_its_answer(listening: Listening):
    answers = listening.say(post(b"/body", b"first") + b"\x00\x00\x00")
    assert statuses(answers) == [200]
    assert b"first" in answers


def test_a_broken_body_behind_a_good_request_is_refused_in_its_turn(listening: Listening):
    answers = listening.say(GOOD + b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
    assert statuses(answers) == [200, 400]
    assert refusal(answers) == (400, "invalid_request")
    assert listening.paths == ["/good"]


def test_a_body_that_breaks_after_its_answer_closes_the_connection(listening: Listening):
    with closing(listening.connect()) as client:
        client.sendall(b"POST /early HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        received = client.recv(65536)
        while not received.endswith(b"0\r\n\r\n"):
            received += client.recv(65536)
        client.sendall(b"nonsense\r\n")
        assert everything(client) == b""


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /" + b"a" * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEADER_BYTES + b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nX: ", *[b"a" * 1000] * 40],
        [b"GET /", *[b"a" * 1000] * 40],
        [b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * (MAX_HEADERS + 1) + b"\r\n"],
        [b"GET / HTTP/1.1\r\nX: ", b"a" * 2**23],  # refused long before it was all sent
        # Trailers, and a chunk's extensions.
        [b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", *[b"a" * 1000] * 2000],
        [b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", *[b"a" * 1000] * 2000],
    ],
)
def test_headers_beyond_the_limits_are_431(listening: Listening, parts: list[bytes]):
    assert refusal(listening.say(*parts)) == (431, "headers_too_large")
    assert statuses(listening.say(GOOD + b"bad\r\n\r\n")) == [200]


def test_headers_within_the_limits_pass(listening: Listening):
    large = b"X: " + b"a" * (MAX_HEADER_BYTES - 1000)
    many = b"\r\n".join([b"X: 1"] * (MAX_HEADERS - 3))
    for headers in (large, many):
        assert statuses(listening.say(post(b"/body", b"", headers, b"Connection: close"))) == [200]


def test_trailers_do_not_become_headers(listening: Listening):
    body = b"3\r\nabc\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n"
    head = b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    # In two parts: the application has its headers before the trailers come.
    answer = listening.say(head, body)
    assert statuses(answer) == [200]
    assert b"authorization" not in answer


def test_a_connection_that_sends_nothing_is_closed_without_a_word(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.1)
    assert listening.say() == b""


@pytest.mark.parametrize(
    "begins",
    [
        b"G",
        b"\r\n",
        b"GET / HTTP/1.1\r\nX: 1\r\n",
        b"POST /body HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc",
        b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_not_finished_in_time_is_408(listening: Listening, monkeypatch: pytest.MonkeyPatch, begins: bytes):
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(connection, "BODY_SECONDS", 0.2)
    assert refusal(listening.say(begins)) == (408, "request_timeout")


@pytest.mark.parametrize("slow", [b"G", b"POST /early HTTP/1.1\r\nContent-Length: 10\r\n\r\n"])
def test_dripping_bytes_buy_no_time(listening: Listening, monkeypatch: pytest.MonkeyPatch, slow: bytes):
    """Also behind an answered request, whose connection uvicorn keeps; and for a body that nobody waits for."""
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(connection, "BODY_SECONDS", 0.5)
    with closing(listening.connect()) as client:
        client.sendall(GOOD)
        assert client.recv(65536)
        client.sendall(slow)
        client.settimeout(0.05)
        deadline = time.monotonic() + QUIET
        while time.monotonic() < deadline:
            try:
                if not client.recv(65536):
                    return
                client.sendall(b"x")
            except TimeoutError:
                client.sendall(b"x")
            except OSError:
                return
    pytest.fail("the connection was still open")


def test_a_long_answer_is_under_no_deadline(listening: Listening, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.1)
    monkeypatch.setattr(connection, "BODY_SECONDS", 0.1)
    with closing(listening.connect()) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\n\r\n")
        assert statuses(client.recv(65536)) == [200]
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            everything(client)


def test_an_upgrade_is_an_ordinary_request_and_the_last_of_its_connection(listening: Listening):
    handshake = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answers = listening.say(b"GET /good HTTP/1.1\r\n" + handshake + GOOD)
    assert statuses(answers) == [200]
    assert b"connection: close" in answers


def test_an_upgrade_with_a_body_is_refused_because_the_body_would_be_lost(listening: Listening):
    upgrade = post(b"/body", b"abc", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")
    assert refusal(listening.say(upgrade)) == (400, "invalid_request")
    assert listening.paths == []


def test_a_flood_of_pipelined_requests_is_answered_up_to_the_limit(listening: Listening):
    answers = listening.say(GOOD * 1000)
    assert statuses(answers) == [200] * (1 + MAX_PIPELINED)


def test_too_many_connections_are_503_and_those_that_are_there_stay(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 1)
    with closing(listening.connect()) as first:
        first.sendall(b"GET /endless HTTP/1.1\r\n\r\n")
        assert statuses(first.recv(65536)) == [200]
        answer = listening.say(GOOD)
        assert refusal(answer) == (503, "overloaded")
        assert b"retry-after: " in answer
        first.sendall(b"x")
        assert len(listening.server.server_state.connections) >= 1


def test_a_refused_client_that_stays_is_hung_up_on(listening: Listening, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    with closing(listening.connect()) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert refusal(everything(client)) == (400, "invalid_request")
        listening.wait_until_nobody_is_connected()


def test_a_client_that_does_not_read_its_answer_is_dropped(listening: Listening, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "READER_SECONDS", 0.05)
    with closing(listening.connect()) as client:
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        while "/dropped" not in listening.paths:
            time.sleep(0.01)
        listening.wait_until_nobody_is_connected()
        assert len(everything(client)) < UNREAD_BYTES


def test_nothing_is_left_of_a_client_that_hangs_up_with_its_answer_unread(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
):
    connections: list[weakref.ref[Connection]] = []
    paused = Connection.pause_writing

    def pause_writing(self: Connection) -> None:
        connections.append(weakref.ref(self))
        paused(self)

    monkeypatch.setattr(Connection, "pause_writing", pause_writing)
    monkeypatch.setattr(connection, "READER_SECONDS", 1000.0)
    with closing(listening.connect()) as client:
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        while not connections:
            time.sleep(0.01)
    deadline = time.monotonic() + QUIET
    while connections[0]() is not None:
        assert time.monotonic() < deadline
        gc.collect()


def test_a_client_that_reads_slowly_gets_all_of_its_answer(listening: Listening, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "READER_SECONDS", 1.0)
    with closing(socket.socket()) as client:
        # Small, so that the server sees every part that is read.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        client.connect(listening.address)
        client.settimeout(QUIET)
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        size, began = 0, time.monotonic()
        while size < UNREAD_BYTES:
            part = client.recv(2**16)
            assert part, f"dropped after {size} bytes"
            size += len(part)
            # Three times as long as a client may take that reads nothing.
            time.sleep(3 * len(part) / UNREAD_BYTES)
        assert time.monotonic() - began > 3
