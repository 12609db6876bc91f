"""What every request passes first: may it come in, which exact version does it mean, and is that version loaded?

Pure ASGI around vLLM's application. It is an allow-list: vLLM has other paths that reach the engine with an adapter's
name in a header or without a key, and all of them are 404 here. The request's `model` is rewritten to the exact
version, so that the answer names the version that wrote it. This file knows no vLLM: residency loads, openai_errors
words the answers, observe measures.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapters.errors import MailwrightError, PathNotFound, RequestError, RequestTooLarge, Unauthorised
from adapters.store import Store
from server.ending import Ending
from server.metrics import CANARY, Metrics
from server.observe import Observation, Receive
from server.openai_errors import ErrorShaper, Message, Send
from server.residency import Residency

Scope = dict[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 2**20
"""A million characters is more than any context here holds, and little enough to parse on the event loop."""

OPEN = {("GET", "/health")}
WRITING = {("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}
READING = {("GET", "/v1/models"), ("GET", "/v1/adapters"), ("GET", "/metrics")}
NAMED = {
    "GET": re.compile(r"/v1/(models|adapters)/[^/]+"),
    "POST": re.compile(r"/v1/adapters/[^/]+/(load|pin|unload|promote|rollback)"),
}
"""Paths with a name in them, by method."""

logger = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client hung up before its request was complete: there is nobody to answer."""


class Gate:
    """`base_names` are all names of the base model, the one that its metrics carry first."""

    def __init__(
        self,
        app: Application,
        store: Store,
        residency: Residency,
        metrics: Metrics,
        base_names: Sequence[str],
        api_key: str | None,
        ending: Ending,
    ) -> None:
        self._app = app
        self._store = store
        self._residency = residency
        self._metrics = metrics
        self._base_names = tuple(base_names)
        self._api_key = api_key.encode() if api_key else None
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "this server has no websockets"})
        elif _route(scope) in WRITING:
            with Observation(self._metrics, receive, send) as seen:
                await self._http(scope, seen.receive, ErrorShaper(seen.send), seen)
        else:
            await self._http(scope, receive, ErrorShaper(send))

    async def _http(self, scope: Scope, receive: Receive, send: ErrorShaper, seen: Observation | None = None) -> None:
        """`seen` watches a request that writes, and there is none for the others."""
        try:
            self._let_in(scope)
            if seen:
                with self._ending.answering():
                    await self._write(scope, receive, send, seen)
            else:
                await self._answer(scope, receive, send)
        except ClientGone:
            return
        except MailwrightError as exc:
            await send.fail(exc)
        except Exception as exc:  # the top of a request: whatever it is, the client gets an answer and the log a trace
            # Without the exception's text, which may quote somebody's mail.
            logger.error("%s\n%s", type(exc).__name__, "".join(traceback.format_tb(exc.__traceback__)))
            await send.fail(MailwrightError("the server failed on this request", "its log says where"))

    async def _write(self, scope: Scope, receive: Receive, send: ErrorShaper, seen: Observation) -> None:
        async with self._exact(await read_body(scope, receive), seen) as body:
            seen.handed_over()
            await self._answer(_with_length(scope, len(body)), replay(body, receive), send)

    async def _answer(self, scope: Scope, receive: Receive, send: ErrorShaper) -> None:
        await self._app(scope, receive, send)
        if send.streaming:
            await send.fail(MailwrightError("the stream broke off"))

    def _let_in(self, scope: Scope) -> None:
        route = _route(scope)
        if route in OPEN:
            return
        if self._api_key and not hmac.compare_digest(_bearer_token(scope), self._api_key):
            raise Unauthorised("no valid API key came with the request", "send the header Authorization: Bearer KEY")
        method, path = route
        if route not in WRITING | READING and not (method in NAMED and NAMED[method].fullmatch(path)):
            raise PathNotFound(f"this server has no {method} {path[:200]}", "GET /v1/models lists what it serves")

    @asynccontextmanager
    async def _exact(self, body: bytes, seen: Observation) -> AsyncIterator[bytes]:
        """`body` with the exact version as its `model`; that version stays loaded as long as the context lasts.

        Base models pass as they are.
        """
        request = parse(body)
        model = request["model"]
        if model in self._base_names:
            seen.belongs_to(self._base_names[0])
            yield json.dumps(request).encode()
            return
        version, canary = self._store.route(model, whose(request, body))
        seen.belongs_to(f"{version.name}{CANARY}" if canary else version.name)
        async with self._residency.using(version) as seen.cold:
            request["model"] = version.id
            yield json.dumps(request).encode()


def parse(body: bytes) -> dict[str, Any]:
    """The request as an object that names a model.

    Raises:
        RequestError: it is not JSON, not an object, or has no model.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise RequestError("the request's body is not valid JSON") from exc
    if not isinstance(request, dict):
        raise RequestError("the request's body must be a JSON object")
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise RequestError("the request names no model", 'give "model": the base model, an adapter, or adapter@version')
    return request


def whose(request: dict[str, Any], body: bytes) -> bytes:
    """What a canary's share is drawn by: the `user` that the request gives, so that one person meets one version."""
    user = request.get("user")
    return user.encode(errors="replace") if isinstance(user, str) and user else body


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        RequestTooLarge: it is, or says that it is, larger than MAX_BODY_BYTES.
        ClientGone: the client hung up.
    """
    announced = _header(scope, b"content-length")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
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


def _route(scope: Scope) -> tuple[str, str]:
    return scope["method"], scope["path"]


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _bearer_token(scope: Scope) -> bytes:
    scheme, _, token = _header(scope, b"authorization").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _with_length(scope: Scope, length: int) -> Scope:
    framing = (b"content-length", b"transfer-encoding")
    headers = [(key, value) for key, value in scope["headers"] if key not in framing]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"the request's body is larger than {MAX_BODY_BYTES} bytes", "send a shorter conversation")
