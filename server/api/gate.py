"""What every request passes first: may it come in, which exact version does it mean, and is that version loaded?

Pure ASGI around all of vLLM's application. It is an allow-list: vLLM has other paths that reach the engine with an
adapter's name in a header or without a key, and all of them are 404 here; so does it with headers and fields. The
request's `model` is rewritten to the exact version, so that the answer names the version that wrote it. This file knows
no vLLM: access knows who asks, limits what may be asked, residency loads, openai_errors words the answers, observe
measures.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapters.errors import AdapterNotFound, MailwrightError, PathNotFound, RequestError, RequestTooLarge
from adapters.store.audit import acting_as
from adapters.store.store import Store
from server.api.access import Access, check_scope
from server.api.errors import ErrorShaper, Message, Send
from server.api.keys import CALLER, Caller, Scope
from server.api.limits import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    Limits,
    check,
    parse,
)
from server.api.request_metrics import Observation, Receive
from server.engine.residency import Residency
from server.engine.shutdown import Ending
from server.metrics import CANARY, Metrics

Headers = Mapping[bytes, bytes]
Asgi = dict[str, Any]
"""An ASGI scope."""
Application = Callable[[Asgi, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 2**20
"""A million characters is more than any context here holds, and little enough to parse on the event loop."""

OPEN = {("GET", "/health")}
WRITING = {("POST", path) for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)}
NAMED_EVENTS = (RESPONSES, MESSAGES)
"""Paths whose streams consist of events with names."""
READERS: frozenset[Scope] = frozenset({"infer", "admin"})
READING: dict[tuple[str, str], frozenset[Scope]] = {
    ("GET", "/v1/models"): READERS,
    ("GET", "/v1/adapters"): READERS,
    ("GET", "/openapi.json"): READERS,
    ("GET", "/metrics"): frozenset({"metrics"}),
}
NAMED: dict[str, tuple[re.Pattern[str], frozenset[Scope]]] = {
    "GET": (re.compile(r"/v1/(?:models|adapters)/([^/]+)"), READERS),
    "POST": (re.compile(r"/v1/adapters/([^/]+)/(?:load|pin|unload|promote|rollback)"), frozenset({"admin"})),
}
"""Paths with a name in them, by method."""
PASSED = {b"host", b"accept", b"accept-encoding", b"origin", b"content-type", b"content-length", b"traceparent"}
"""Headers that vLLM gets; others of a client's would choose its rank, priority, session or request id."""
PREFLIGHT = {b"access-control-request-method", b"access-control-request-headers"}

logger = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client hung up before its request was complete: there is nobody to answer."""


class Gate:
    """`base_names` are all names of the base model, the one that its metrics carry first.

    `cross_origin`: vLLM answers a browser's preflight requests, for the origins that the operator allows.
    """

    def __init__(
        self,
        app: Application,
        store: Store,
        residency: Residency,
        metrics: Metrics,
        base_names: Sequence[str],
        access: Access,
        limits: Limits,
        ending: Ending,
        cross_origin: bool = False,
    ) -> None:
        self._app = app
        self._store = store
        self._residency = residency
        self._metrics = metrics
        self._base_names = tuple(base_names)
        self._access = access
        self._limits = limits
        self._ending = ending
        self._cross_origin = cross_origin

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "this server has no websockets"})
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Asgi, receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(16).encode()
        named_events = scope["path"] in NAMED_EVENTS
        answer_headers = [(b"x-request-id", request_id)]
        if _route(scope) in WRITING:
            with Observation(self._metrics, receive, send) as seen:
                shaper = ErrorShaper(seen.send, answer_headers, named_events)
                if not await self._safely(self._write(scope, seen.receive, shaper, seen, request_id), shaper):
                    seen.client_left()
        else:
            shaper = ErrorShaper(send, answer_headers)
            await self._safely(self._read(scope, receive, shaper, request_id), shaper)

    async def _safely(self, work: Awaitable[None], send: ErrorShaper) -> bool:
        """Whether there was a client to the end; whatever `work` raises is answered."""
        try:
            await work
        except ClientGone:
            return False
        except MailwrightError as exc:
            await send.fail(exc)
        except Exception as exc:  # the top of a request: whatever it is, the client gets an answer and the log a trace
            # Without the exception's text, which may quote somebody's mail.
            logger.error("%s\n%s", type(exc).__name__, "".join(traceback.format_tb(exc.__traceback__)))
            await send.fail(MailwrightError("the server failed on this request", "its log says where"))
        return True

    async def _write(
        self, scope: Asgi, receive: Receive, send: ErrorShaper, seen: Observation, request_id: bytes
    ) -> None:
        headers = dict(scope["headers"])
        caller = self._access.caller(headers)
        check_scope(caller, frozenset({"infer"}))
        _check_kind(headers)
        with self._ending.answering(), self._access.admitted(caller) as quota, acting_as(caller.name):
            send.headers += [(name.encode(), value.encode()) for name, value in quota.items()]
            request = parse(await read_body(headers, receive))
            check(scope["path"], request, self._limits)
            async with self._exact(request, caller, seen) as body:
                seen.handed_over()
                passed = [*_passed(headers, request_id), (b"content-length", str(len(body)).encode())]
                await self._answer({**scope, "headers": passed}, replay(body, receive), send)

    async def _read(self, scope: Asgi, receive: Receive, send: ErrorShaper, request_id: bytes) -> None:
        headers = dict(scope["headers"])
        passed = _passed(headers, request_id, b"content-length")
        if self._cross_origin and scope["method"] == "OPTIONS" and PREFLIGHT & headers.keys():
            passed += [(name, headers[name]) for name in PREFLIGHT & headers.keys()]
        elif _route(scope) not in OPEN:
            caller = self._access.caller(headers)
            self._check_path(scope, caller)
            scope = {**scope, CALLER: caller}
            with acting_as(caller.name):
                return await self._answer({**scope, "headers": passed}, receive, send)
        await self._answer({**scope, "headers": passed}, receive, send)

    async def _answer(self, scope: Asgi, receive: Receive, send: ErrorShaper) -> None:
        await self._app(scope, receive, send)
        if send.streaming:
            await send.fail(MailwrightError("the stream broke off"))

    def _check_path(self, scope: Asgi, caller: Caller) -> None:
        """Raise what keeps `caller` from a path that writes nothing: it is not there, or not for this caller."""
        method, path = _route(scope)
        scopes, reference = READING.get((method, path)), None
        if scopes is None and method in NAMED:
            pattern, allowed = NAMED[method]
            if match := pattern.fullmatch(path):
                scopes, reference = allowed, match[1]
        if scopes is None:
            raise PathNotFound(f"this server has no {method} {path[:200]}", "GET /v1/models lists what it serves")
        check_scope(caller, scopes)
        if reference is not None and not caller.may_use(reference, self._base_names):
            raise self._not_found(reference, caller)

    @asynccontextmanager
    async def _exact(self, request: dict[str, Any], caller: Caller, seen: Observation) -> AsyncIterator[bytes]:
        """The body with the exact version as its `model`; that version stays loaded as long as the context lasts.

        Base models pass as they are.
        """
        model = request["model"]
        if not caller.may_use(model, self._base_names):
            raise self._not_found(model, caller)
        if model in self._base_names:
            seen.belongs_to(self._base_names[0])
            yield json.dumps(request).encode()
            return
        try:
            version, canary = self._store.route(model, whose(request))
        except AdapterNotFound as exc:
            raise exc if caller.sees_all else self._not_found(model, caller) from None
        seen.belongs_to(f"{version.name}{CANARY}" if canary else version.name)
        async with self._residency.using(version) as seen.cold:
            request["model"] = version.id
            yield json.dumps(request).encode()

    def _not_found(self, reference: str, caller: Caller) -> AdapterNotFound:
        """The same for what is not there and what `caller` may not use, and names only what that may."""
        return self._store.not_found(reference, lambda name: caller.may_use(name, self._base_names))


def whose(request: dict[str, Any]) -> bytes:
    """What a canary's share is drawn by: the `user` that the request gives, so that one person meets one version."""
    user = request.get("user")
    return user.encode() if isinstance(user, str) and user else json.dumps(request).encode()


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        RequestTooLarge: it is, or says that it is, larger than MAX_BODY_BYTES.
        ClientGone: the client hung up.
    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            raise _too_large()
    return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` once, and then what really comes: vLLM waits there for the client to hang up."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def _route(scope: Asgi) -> tuple[str, str]:
    return scope["method"], scope["path"]


def _passed(headers: Headers, request_id: bytes, *also: bytes) -> list[tuple[bytes, bytes]]:
    """The headers for vLLM, without those that frame the body unless named in `also`; vLLM takes on the request id."""
    kept = [(name, value) for name, value in headers.items() if name in PASSED and name != b"content-length"]
    return [*kept, *((name, headers[name]) for name in also if name in headers), (b"x-request-id", request_id)]


def _check_kind(headers: Headers) -> None:
    """Raise RequestError unless the body says that it is JSON: a page of a web site can send all else unasked."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise RequestError("the request's Content-Type is not application/json", "send Content-Type: application/json")


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"the request's body is larger than {MAX_BODY_BYTES} bytes", "send a shorter conversation")
