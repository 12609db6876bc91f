"""Who asks, for what, of which version; is it loaded? Then the request goes to vLLM.

An allow-list around all of vLLM's application: vLLM has other paths that reach the engine with an adapter's name in a
header or without a key, and all of them are 404 here; headers and fields are allow-listed too. The request's `model`
becomes the exact version, so that the answer names the version that wrote it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.errors import AdapterNotFound, PathNotFound, RequestError, RequestTooLarge
from adapters.store.version import Version
from server.api.access import Access
from server.api.errors import ANSWER_HEADERS
from server.api.instruction import instruct
from server.api.keys import CALLER, Caller
from server.api.keys import Scope as KeyScope
from server.api.limits import Limits, read_request
from server.api.request_metrics import OBSERVATION, Observation
from server.drafts.drafts import Check, Drafts, replay
from server.engine.shutdown import Shutdown
from server.engine.voices import Voices
from server.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES

Headers = Mapping[bytes, bytes]

# A million characters is more than any context here holds, and little enough to parse on the event loop.
MAX_BODY_BYTES = 2**20

OPEN = {("GET", "/health")}
WRITING = {("POST", path) for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)}
# Paths whose streams consist of events with names.
NAMED_EVENTS = (RESPONSES, MESSAGES)
WRITERS: frozenset[KeyScope] = frozenset({"infer"})
READERS: frozenset[KeyScope] = frozenset({"infer", "admin"})
READING: dict[tuple[str, str], frozenset[KeyScope]] = {
    ("GET", "/v1/models"): READERS,
    ("GET", "/v1/adapters"): READERS,
    ("GET", "/openapi.json"): READERS,
    ("GET", "/metrics"): frozenset({"metrics"}),
}
# Paths with a name in them, by method.
NAMED: dict[str, tuple[re.Pattern[str], frozenset[KeyScope]]] = {
    "GET": (re.compile(r"/v1/(?:models|adapters)/([^/]+)"), READERS),
    "POST": (re.compile(r"/v1/adapters/([^/]+)/(?:load|pin|unload|promote|rollback)"), frozenset({"admin"})),
}
# Headers that vLLM gets; others of a client's would choose its rank, priority, session or request id.
PASSED = {b"host", b"accept", b"accept-encoding", b"origin", b"content-type", b"traceparent"}
PREFLIGHT = {b"access-control-request-method", b"access-control-request-headers"}


class Gate:
    """`base_names` are all names of the base model, the one that its metrics carry first.

    `cross_origin`: vLLM answers a browser's preflight requests, for the origins that the operator allows.
    """

    def __init__(
        self,
        app: ASGIApp,
        voices: Voices,
        base_names: Sequence[str],
        access: Access,
        limits: Limits,
        shutdown: Shutdown,
        check: Check,
        cross_origin: bool = False,
    ) -> None:
        self._app = app
        self._voices = voices
        self._base_names = tuple(base_names)
        self._access = access
        self._limits = limits
        self._shutdown = shutdown
        self._drafts = Drafts(app, check)
        self._cross_origin = cross_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "this server has no websockets"})
        elif _route(scope) in WRITING:
            await self._write(scope, receive, send)
        else:
            await self._read(scope, receive, send)

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request for an answer. Each step raises what the layer for errors answers."""
        headers, seen = dict(scope["headers"]), scope[OBSERVATION]
        # Who asks: 401, 403, or 429 beyond the limits of the key.
        caller = await self._access.authorise(headers, WRITERS)
        _check_content_type(headers)
        with self._shutdown.in_flight(), self._access.admitted(caller) as quota, caller.acting():
            scope[ANSWER_HEADERS].extend(quota)
            # For what: 400 or 413.
            request = read_request(scope["path"], await read_body(headers, receive), self._limits)
            drafts = caller.take_drafts(request)
            # Which version: 404.
            version = await self._version(request, caller, seen)
            if version is None:
                return await self._hand_on(scope, request, drafts, receive, send, seen)
            # Loaded: 422 where it cannot be, 503 where there is no room.
            async with self._voices.residency.using(version) as waited:
                seen.cold = waited
                request["model"] = version.id
                instruct(scope["path"], request, version)
                await self._hand_on(scope, request, drafts, receive, send, seen)

    async def _version(self, request: dict[str, Any], caller: Caller, seen: Observation) -> Version | None:
        """The exact version that `request` names; None for the base model."""
        model = request["model"]
        try:
            if not caller.may_use(model, self._base_names):
                raise AdapterNotFound(model)
            if model in self._base_names:
                seen.set_adapter(self._base_names[0])
                return None
            version, canary = await self._voices.reader.route(model, canary_key(request))
        except AdapterNotFound:
            raise await self._not_found(model, caller) from None
        seen.set_adapter(version.name, canary)
        return version

    async def _hand_on(
        self, scope: Scope, request: dict[str, Any], drafts: int, receive: Receive, send: Send, seen: Observation
    ) -> None:
        if drafts:
            seen.mark_submitted()
            inner = {**scope, "headers": _passed(scope)}
            return await self._drafts.answer(inner, request, drafts, receive, send, seen.drafted)
        body = json.dumps(request).encode()
        length = (b"content-length", str(len(body)).encode())
        seen.mark_submitted()
        await self._app({**scope, "headers": [*_passed(scope), length]}, replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request for a list, a page or an operator's command."""
        headers = dict(scope["headers"])
        passed = _passed(scope, b"content-length")
        if self._cross_origin and scope["method"] == "OPTIONS" and PREFLIGHT & headers.keys():
            passed += [(name, headers[name]) for name in PREFLIGHT & headers.keys()]
        elif _route(scope) not in OPEN:
            scopes, reference = _allowed(scope)
            caller = await self._access.authorise(headers, scopes)
            if scopes is None:
                raise PathNotFound(
                    f"this server has no {scope['method']} {scope['path'][:200]}", "GET /v1/models lists what it serves"
                )
            if reference is not None and not caller.may_use(reference, self._base_names):
                raise await self._not_found(reference, caller)
            with caller.acting():
                return await self._app({**scope, "headers": passed, CALLER: caller}, receive, send)
        await self._app({**scope, "headers": passed}, receive, send)

    async def _not_found(self, reference: str, caller: Caller) -> AdapterNotFound:
        """The same for a missing model and one that `caller` may not use; it names only models that they may use."""
        visible = partial(caller.may_use, base_names=self._base_names)
        return await asyncio.to_thread(self._voices.store.not_found, reference, visible)


def canary_key(request: dict[str, Any]) -> bytes:
    """What a canary's share is drawn by: the `user` that the request gives, so that one person meets one version."""
    user = request.get("user")
    return user.encode() if isinstance(user, str) and user else json.dumps(request).encode()


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        RequestTooLarge: it is, or announces to be, larger than MAX_BODY_BYTES.
        ClientDisconnect: the client hung up.
    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            raise _too_large()
    return b"".join(parts)


def _route(scope: Scope) -> tuple[str, str]:
    return scope["method"], scope["path"]


def _allowed(scope: Scope) -> tuple[frozenset[KeyScope] | None, str | None]:
    """The scopes of which one is needed, None for a path that is not served; and the adapter in the path if any."""
    method, path = _route(scope)
    if method in NAMED:
        pattern, scopes = NAMED[method]
        if match := pattern.fullmatch(path):
            return scopes, match[1]
    return READING.get((method, path)), None


def _passed(scope: Scope, *also: bytes) -> list[tuple[bytes, bytes]]:
    """The headers for vLLM, with our request id, and without those that frame the body unless named in `also`."""
    names = PASSED.union(also)
    return [
        *((name, value) for name, value in dict(scope["headers"]).items() if name in names),
        scope[ANSWER_HEADERS][0],
    ]


def _check_content_type(headers: Headers) -> None:
    """Raise RequestError unless the body is declared as JSON: a page of a web site can send all else unasked."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise RequestError("the request's Content-Type is not application/json", "send Content-Type: application/json")


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"the request's body is larger than {MAX_BODY_BYTES} bytes", "send a shorter conversation")
