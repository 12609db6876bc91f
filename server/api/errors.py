"""Every error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}` with a string code.

Our own errors have their status and code (adapters/errors.py). vLLM answers with a number as code, so its error bodies
are rewritten on the way out. Once a stream has begun, an error is one SSE event and then the end: a stream that just
stops would look like a success.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import AdapterNotFound, MailwrightError, Overloaded, RateLimited, Unauthorised
from adapters.store.store import Store
from server.api.keys import CALLER, Caller

CODES = {
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "overloaded",
}
# The parameter at fault, by vLLM, when a prompt is too long; its message text is not relied on.
CONTEXT_PARAMETERS = ("input_text", "input_tokens")
# Fields at fault that an error lists: a wrong value of a union is wrong in hundreds of ways.
MAX_FAULTS = 5
SSE_ERRORS = (b'data: {"error"', b"event: error\n")
# What a 429 or 503 of vLLM's own gives as Retry-After: its queue is full.
RETRY_SECONDS = 1
# The key in an ASGI scope of the headers that the answer gets, the request id first.
ANSWER_HEADERS = "mailwright.answer_headers"

Headers = list[tuple[bytes, bytes]]

logger = logging.getLogger(__name__)


class ErrorLayer:
    """Answers every exception that is raised within, and gives every request its id.

    `named_events`: paths whose streams consist of events with names.
    """

    def __init__(self, app: ASGIApp, named_events: Collection[str]) -> None:
        self._app = app
        self._named_events = named_events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = [(b"x-request-id", secrets.token_hex(16).encode())]
        shaper = ErrorShaper(send, headers, scope["path"] in self._named_events)
        try:
            await self._app({**scope, ANSWER_HEADERS: headers}, receive, shaper)
            if shaper.streaming:
                await shaper.fail(MailwrightError("the stream broke off"))
        except ClientDisconnect:
            pass
        except MailwrightError as exc:
            await shaper.fail(exc)
        except Exception as exc:  # the top of a request: whatever it is, the client gets an answer and the log a trace
            # Without the exception's text, which may quote somebody's mail.
            logger.error("%s\n%s", type(exc).__name__, "".join(traceback.format_tb(exc.__traceback__)))
            await shaper.fail(MailwrightError("the server failed on this request", "its log says where"))


class ErrorShaper:
    """Wraps `send` for one request: errors leave in OpenAI's shape, everything else leaves as it is.

    `headers` are added to every answer, and more may be put there before it begins. `named_events`: the events of this
    path's streams have names, and an error is one called `error`.
    """

    def __init__(self, send: Send, headers: Headers, named_events: bool = False) -> None:
        self._send = send
        self._headers = headers
        self._event = b"event: error\ndata: " if named_events else b"data: "
        self._failed_start: Message | None = None
        self._failed_body = b""
        self._started = False
        self._finished = False
        self.streaming = False

    async def __call__(self, message: Message) -> None:
        if self._finished:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self._failed_start is not None:
            await self._collect(self._failed_start, message)
        elif self.streaming and message.get("body", b"").startswith(SSE_ERRORS):
            await self._end_stream(_error_in(message["body"]))
        else:
            self._finished = not message.get("more_body", False)
            await self._send(message)

    async def fail(self, error: MailwrightError) -> None:
        """Answer with `error`, or end the stream that has begun with it."""
        if self._finished:
            return
        if not self._started:
            await self._answer(error.status, headers_of(error), body_of(error))
        elif self.streaming:
            await self._end_stream(body_of(error))

    async def _start(self, message: Message) -> None:
        if message["status"] >= 400:
            self._failed_start = message
            return
        self._started = True
        kind = dict(message["headers"]).get(b"content-type", b"")
        self.streaming = kind.startswith(b"text/event-stream")
        kept = _without(message["headers"], *(name for name, _ in self._headers))
        await self._send({**message, "headers": [*kept, *self._headers]})

    async def _collect(self, start: Message, message: Message) -> None:
        self._failed_body += message.get("body", b"")
        if not message.get("more_body", False):
            kept = _without(start["headers"], b"content-length", b"content-type")
            if start["status"] in (429, 503) and b"retry-after" not in dict(kept):
                kept.append((b"retry-after", b"%d" % RETRY_SECONDS))
            await self._answer(start["status"], kept, rewritten(start["status"], self._failed_body))

    async def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        self._started = self._finished = True
        about_body = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers = [*headers, *self._headers, *about_body]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _end_stream(self, error: bytes) -> None:
        self._finished = True
        event = self._event + error + b"\n\n"
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def answer_in_routes(store: Store) -> Callable[[Request, Exception], Awaitable[Response]]:
    """FastAPI's handler of our errors; a missing adapter is answered with names that the caller may use."""

    async def answer(request: Request, error: Any) -> Response:
        caller: Caller = request.scope[CALLER]
        if isinstance(error, AdapterNotFound) and not caller.sees_all:
            [reference] = request.path_params.values()
            error = await asyncio.to_thread(store.not_found, reference, caller.may_use)
        headers = {name.decode(): value.decode() for name, value in headers_of(error)}
        return Response(body_of(error), error.status, headers, media_type="application/json")

    return answer


async def invalid_fields(_: Request, error: Any) -> Response:
    """FastAPI's handler of RequestValidationError, instead of vLLM's, which repeats the values of the fields."""
    from vllm.entrypoints.serve.exception_handling.handlers.validation import clean_loc_for_param

    faults: dict[str, str] = {}
    for fault in error.errors():
        inner = getattr(fault.get("ctx", {}).get("error"), "parameter", None)
        field = (inner or clean_loc_for_param(fault["loc"])).removeprefix("body.")
        faults.setdefault(f"{field}: {_unquoted(fault['msg'])}", field)
    param = next(iter(faults.values()))
    body = _body("; ".join(list(faults)[:MAX_FAULTS]), "invalid_request_error", param, _code(400, param))
    return Response(body, 400, media_type="application/json")


def body_of(error: MailwrightError) -> bytes:
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return _body(message, error.type, error.param, error.code)


def headers_of(error: MailwrightError) -> Headers:
    """What goes with the body of `error`: when to come back, or how to identify."""
    if isinstance(error, Overloaded | RateLimited):
        return [(b"retry-after", b"%d" % error.retry_after)]
    return [(b"www-authenticate", b"Bearer")] if isinstance(error, Unauthorised) else []


def rewritten(status: int, body: bytes) -> bytes:
    """An error body that vLLM or its framework wrote, in OpenAI's shape."""
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    details = found.get("error") if isinstance(found, dict) else None
    if not isinstance(details, dict):
        details = {"message": body.decode(errors="replace")[:1000] or f"the request failed with status {status}"}
    param, code, kind = details.get("param"), details.get("code"), details.get("type")
    if not isinstance(code, str):
        code = _code(status, param)
        kind = "server_error" if status >= 500 else "invalid_request_error"
    if isinstance(param, str):
        param = param.removeprefix("body.")
    return _body(_unquoted(str(details.get("message"))), str(kind), param, code)


def _unquoted(message: str) -> str:
    """vLLM's message without the value that it repeats, which may be mail.

    The one place that reads a message's text: vLLM's routes answer with the text alone. Nothing is decided by it.
    """
    return re.sub(r", value=.*\)$", ")", message, flags=re.DOTALL)


def _code(status: int, param: object) -> str:
    if status == 404 and param == "model":
        return AdapterNotFound.code
    if status == 400 and param in CONTEXT_PARAMETERS:
        return "context_length_exceeded"
    return CODES.get(status, MailwrightError.code if status >= 500 else "invalid_request")


def _body(message: str, kind: str, param: object, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def _without(headers: Headers, *names: bytes) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in names]


def _error_in(event: bytes) -> bytes:
    """The body of vLLM's own error event, which sometimes has a name before it and `[DONE]` behind, in our shape."""
    body = event.partition(b"data: ")[2].split(b"\n\n", 1)[0]
    try:
        status = int(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        status = 500
    return rewritten(status, body)
