"""What hostile clients do to a server on this machine: every attack is bounded in number and in time.

It knows sockets and HTTP answers, and of the server only what tests/serving.py says.
"""

import asyncio
import json
import re
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import psutil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from tests.serving import RunningServer, memory_mb

Address = tuple[str, int]
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
QUIET_SECONDS = 0.3
"""Whoever says nothing more for so long after an answer has said everything."""
DRIP_SECONDS = 60.0
"""By then the server has ended what never becomes a request: after 10 s (server/api/connection.py), on a busy
machine."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def check(self) -> None:
        """It has a request id, is not the server's fault, and is OpenAI's error object if it is an error."""
        assert self.headers.get("x-request-id"), (self.status, self.body)
        assert self.status < 500, (self.status, self.body)
        if self.status >= 400:
            assert self.headers["content-type"] == "application/json"
            error = json.loads(self.body)["error"]
            assert sorted(error) == ["code", "message", "param", "type"]
            assert all(isinstance(error[field], str) and error[field] for field in ("code", "message", "type"))
            assert error["param"] is None or isinstance(error["param"], str)


def answers_in(received: bytes) -> list[Answer]:
    """Every whole answer in what a connection gave; nothing may stand between or behind them."""
    found = []
    while received:
        assert STATUS.match(received), received[:200]
        head, _, rest = received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        status = int(line.split()[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body, received = _chunks(rest)
        else:
            length = int(headers.get("content-length", "0"))
            body, received = rest[:length], rest[length:]
            assert len(body) == length, "an answer was cut off"
        if status >= 200:
            found.append(Answer(status, headers, body))
    return found


def _chunks(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        if not length:
            return body, rest


def throw(
    address: Address,
    parts: Sequence[bytes],
    left_open: list[socket.socket] | None = None,
    quiet: float = QUIET_SECONDS,
) -> list[Answer]:
    """Send `parts` one by one and return what is answered at once.

    A connection that is neither answered nor closed within `quiet` seconds waits for more: it goes to `left_open`.
    """
    client = socket.create_connection(address, timeout=60)
    with suppress(ConnectionError):  # the server may have heard enough
        for part in parts:
            client.sendall(part)
    received, open_still = b"", True
    client.settimeout(quiet)
    with suppress(TimeoutError, ConnectionError):
        while part := client.recv(2**16):
            received += part
            # On a busy machine the rest of an answer that has begun may be late.
            client.settimeout(quiet if _is_whole(received) else 60)
        open_still = False
    answers = answers_in(received)
    if open_still and not answers and left_open is not None:
        left_open.append(client)
    else:
        client.close()
    return answers


def _is_whole(received: bytes) -> bool:
    try:
        return bool(answers_in(received))
    except (AssertionError, ValueError):
        return False


def outlive(left_open: list[socket.socket], seconds: float) -> Counter[str]:
    """Wait until the server has answered or closed each of them; it must within `seconds` of now."""
    ends: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    for client in left_open:
        with closing(client):
            client.settimeout(max(0.01, deadline - time.monotonic()))
            received = b""
            with suppress(ConnectionError):
                while part := client.recv(2**16):
                    received += part
            answers = answers_in(received)
            for answer in answers:
                answer.check()
            ends.update([" ".join(str(answer.status) for answer in answers) or "closed"])
    left_open.clear()
    return ends


async def drip(address: Address, beginning: bytes, seconds: float) -> str:
    """Send `beginning` and then a byte every half second, until the server ends it; it must within `seconds`."""
    reader, writer = await asyncio.open_connection(*address)
    received = asyncio.create_task(reader.read())
    async with asyncio.timeout(seconds):
        with suppress(ConnectionError):
            writer.write(beginning)
            while not received.done():
                writer.write(b"x")
                await writer.drain()
                await asyncio.wait([received], timeout=0.5)
    writer.close()
    with suppress(ConnectionError):
        answers = answers_in(await received)
        for answer in answers:
            answer.check()
        return " ".join(str(answer.status) for answer in answers) or "closed"
    return "reset"


@contextmanager
def half_open(address: Address, count: int) -> Iterator[list[socket.socket]]:
    """That many connections: every second one has sent the beginning of a request, the others nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 1024)), hard))
    clients: list[socket.socket] = []
    try:
        for number in range(count):
            clients.append(socket.create_connection(address, timeout=60))
            if number % 2:
                clients[-1].sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        yield clients
    finally:
        for client in clients:
            client.close()


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


CHAT = b"/v1/chat/completions"
HOST = b"Host: 127.0.0.1\r\n"
KIND = b"Content-Type: application/json\r\n"
BODY = b'{"model": "nobody", "messages": []}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"

SMUGGLED = {
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 24\r\n\r\n",
    "two lengths in one": b"Content-Length: 0, 24\r\n\r\n",
    "a signed length": b"Content-Length: +0\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": b"Content-Length: 0x0\r\n\r\n",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551617\r\n\r\n",
    "chunked, but not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked with a tab": b"Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a line feed alone": b"X: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a carriage return alone": b"X: 1\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a NUL": b"X: \0\r\n\r\n0\r\n\r\n",
    "a chunk of a signed size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk beyond 64 bits": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    "a chunk of 0x0": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk without its end": b"Transfer-Encoding: chunked\r\n\r\n1\r\nx",
    "an upgrade over a body": b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 24\r\n\r\n",
}
"""What may follow the first line of a POST and come before SECOND, so that one server sees two requests and another
only one: to be refused."""
SECOND = b"GET /health HTTP/1.1\r\n\r\n"

# fmt: off
METHODS = [b"OPTIONS", b"PUT", b"get", b"PRI", b"CONNECT", b"", b"G ET", b"\0", b"A" * 40]
TARGETS = [
    b"/", b"//health", b"/%00", b"/\0", b"/%ff", b"/\xff", b"/a b", b"", b"*", b"?", b"/#", b"http://127.0.0.1/health",
    b"http://127.0.0.1", b"http://[", b"127.0.0.1:80", b"/" + b"a" * 40_000, b"/../", b"/v1/models/%2e%2e%2fformal",
]
VERSIONS = [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/11", b"", b"ICE/1.0"]
ENDS = [b"\n", b"\r", b"\r\r\n", b""]
HARMLESS = [
    KIND, b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n",
    b"X: " + b"a" * 9_000 + b"\r\n", b"Origin: http://evil.example\r\n", b"Access-Control-Request-Method: POST\r\n",
    b"Authorization: Bearer \xff\r\n", b"X-Forwarded-For: \xff, ,\r\n", b"X-Forwarded-Proto: wss\r\n",
    b"Accept-Encoding: gzip;q=x\r\n", b"Host: [\r\n", b"Traceparent: x\r\n", b"X-Request-Id: \xff\r\n",
    b"X-Data-Parallel-Rank: 7\r\n", b"Range: bytes=0-\r\n",
]
"""Headers that are valid, whatever they ask for."""
ODD = [
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Content-Length: 0\r\n", LENGTH,
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
    b"X: " + b"a" * 40_000 + b"\r\n", b"X: 1\r\n" * 150, b": 1\r\n", b"X\r\n", b"X : 1\r\n", b" folded\r\n",
    b"X: \0\r\n",
]
BODIES = [
    (b"", b""), (LENGTH, BODY), (LENGTH, BODY + SECOND), (b"Content-Length: 3\r\n", b"\0\0\0"),
    (CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)), (CHUNKED, b"5;x=y\r\nabcde\r\n0\r\nX: y\r\n\r\n"),
    (LENGTH, BODY[:10]), (CHUNKED, b"5\r\nabc"), (CHUNKED, b"zz\r\n"), (b"", SECOND), (b"", b"\0" * 50),
]
"""Headers that say how long a body is, and the body: right, too short, too long, broken."""
# fmt: on


def mostly(usual: list[bytes], unusual: st.SearchStrategy[bytes] | list[bytes]) -> st.SearchStrategy[bytes]:
    """One in ten is unusual: of requests in which much is wrong, only the first thing would be tried."""
    odd = st.sampled_from(unusual) if isinstance(unusual, list) else unusual
    return st.integers(0, 9).flatmap(lambda number: st.sampled_from(usual) if number < 9 else odd)


random_header = st.builds(
    lambda name, value: b"%s: %s\r\n" % (name, value), st.binary(max_size=8), st.binary(max_size=16)
)
requests = st.builds(
    lambda method, target, version, end, host, harmless, odd, body, last: (
        b"%s %s %s%s%s%s%s" % (method, target, version, end, host, b"".join(harmless), odd)
        + b"%s%s%s" % (body[0], last, body[1])
    ),
    mostly([b"GET", b"POST"], METHODS),
    mostly([b"/health", b"/v1/models", b"/v1/models/formal", CHAT], st.sampled_from(TARGETS) | st.binary(max_size=20)),
    mostly([b"HTTP/1.1"], VERSIONS),
    mostly([b"\r\n"], ENDS),
    mostly([HOST], [b"", b"Host: evil.example\r\n"]),
    st.lists(st.sampled_from(HARMLESS), max_size=4),
    mostly([b""], st.sampled_from(ODD) | random_header),
    st.sampled_from(BODIES),
    mostly([b"\r\n"], ENDS),
)
on_the_wire = st.integers(0, 9).flatmap(
    lambda number: st.lists(requests, min_size=1, max_size=3).map(b"".join) if number < 9 else st.binary(min_size=1)
)


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted([0, len(data), *(cut % (len(data) + 1) for cut in cuts)])
    return [data[start:end] for start, end in pairwise(places)]


def address_of(server: RunningServer) -> Address:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


class Attacked:
    """A running server under attack: a context that in the end compares what it holds with what it held before.

    `statuses` counts the answers that its requests got. `growth_mb`: what the server may have grown by.
    """

    def __init__(self, server: RunningServer, growth_mb: float) -> None:
        self.statuses: Counter[str] = Counter()
        self.figures: dict[str, object] = {}
        self._server = server
        self._growth_mb = growth_mb
        self.address = address_of(server)

    def __enter__(self) -> Self:
        self.check_good()
        self._files, self._memory_mb = self.files(), memory_mb(self._server.process.pid)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.check_good()
            until(lambda: self.files() <= self._files)
            grown = memory_mb(self._server.process.pid) - self._memory_mb
            self.figures |= {**self.statuses, "memory grown by, MB": round(grown, 1), "open files": self.files()}
            assert grown <= self._growth_mb

    def files(self) -> int:
        return psutil.Process(self._server.process.pid).num_fds()

    def check_good(self) -> float:
        """A good request is answered; after how many seconds."""
        began = time.monotonic()
        answer = self._server.ask("formal", max_tokens=1)
        assert answer.status_code == 200, answer.text
        return time.monotonic() - began

    def count(self, answers: list[Answer]) -> None:
        for answer in answers:
            answer.check()
            self.statuses[str(answer.status)] += 1
        self.statuses["connections"] += 1


def fuzz_wire(attacked: Attacked, examples: int, patience: float | None) -> None:
    """Throw `examples` of anything at sockets. With `patience`, in seconds, see how those end that wait for more."""
    left_open: list[socket.socket] = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(on_the_wire, st.lists(st.integers(min_value=0), max_size=3))
    def throw_one(data: bytes, cuts: list[int]) -> None:
        attacked.count(throw(attacked.address, in_pieces(data, cuts), left_open if patience else None))

    throw_one()
    if patience:
        ends = outlive(left_open, patience)
        attacked.statuses.update({f"left open, then {end}": count for end, count in ends.items()})


def fuzz_openapi(attacked: Attacked, url: str, examples: int) -> None:
    """Requests that schemathesis makes from the server's own page, good and bad ones; `examples` of each a path."""
    from schemathesis import openapi
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [not_a_server_error, status_code_conformance, content_type_conformance]
    checks += [response_headers_conformance, response_schema_conformance]
    page = openapi.from_url(f"{url}/openapi.json")
    for result in page.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:

            @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(operation.as_strategy(generation_mode=mode), st.sampled_from(["formal", "base", None]))
            def ask_once(case: Any, model: str | None) -> None:
                if model and isinstance(case.body, dict):
                    # Most texts are no model's name; and an answer may be short.
                    short = {field: 1 for field in case.body if field.startswith("max_")}
                    case.body = {**case.body, "model": model, "max_tokens": 1, **short}
                answer = case.call(base_url=url, timeout=120)
                attacked.statuses[str(answer.status_code)] += 1
                assert "x-request-id" in answer.headers
                case.validate_response(answer, checks=checks)

            try:
                ask_once()
            except Unsatisfiable:  # a path that takes nothing has no bad requests
                assert mode is GenerationMode.NEGATIVE, operation.label
                assert not list(operation.body), operation.label


async def slowloris(attacked: Attacked, count: int) -> None:
    """`count` connections that drip headers, while a good request is answered; all are ended by the server."""
    beginnings = [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"X: "]
    dripping = [asyncio.create_task(drip(attacked.address, beginnings[n % 3], DRIP_SECONDS)) for n in range(count)]
    seconds = await asyncio.to_thread(attacked.check_good)
    attacked.figures["a good request beside those that drip, s"] = round(seconds, 2)
    attacked.statuses.update(f"dripped, then {end}" for end in await asyncio.gather(*dripping))


def hold_half_open(attacked: Attacked, count: int) -> None:
    """`count` connections that are never a request, while a good request is answered; the server ends all of them."""
    with half_open(attacked.address, count) as clients:
        seconds = attacked.check_good()
        attacked.figures[f"a good request beside {count} half-open ones, s"] = round(seconds, 2)
        ends = outlive(clients, DRIP_SECONDS)
    attacked.statuses.update({f"half open, then {end}": count for end, count in ends.items()})
