"""Every error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}` with a string code.

Our own errors say their status and code themselves (adapters/errors.py). vLLM answers with a number as code, so that
its error bodies are rewritten on the way out. Once a stream has begun, an error is one SSE event and then the end: a
stream that just stops would pass for a success. This file knows ASGI messages, but neither paths nor models.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from adapters.errors import AdapterNotFound, MailwrightError, Overloaded, RateLimited, Unauthorised

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "invalid_request",
    422: "invalid_request",
    429: "rate_limit_exceeded",
    503: "overloaded",
}
# What vLLM names as the parameter at fault when a prompt is too long; its message text is nothing to rely on.
CONTEXT_PARAMETERS = ("input_text", "input_tokens")
MAX_FAULTS = 5
"""Fields at fault that an error lists: a wrong value of a union is wrong in hundreds of ways."""
SSE_ERRORS = (b'data: {"error"', b"event: error\n")
RETRY_SECONDS = 1
"""What a 429 or 503 of vLLM's own tells the client to wait: its queue is full."""


def body_of(error: MailwrightError) -> bytes:
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return _body(message, error.type, error.param, error.code)


def headers_of(error: MailwrightError) -> list[tuple[bytes, bytes]]:
    """What goes with the body of `error`: when to come back, or how to identify."""
    if isinstance(error, Overloaded | RateLimited):
        return [(b"retry-after", str(error.retry_after).encode())]
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
    """vLLM's message without the values that it repeats: the caller knows them, and a log of errors must not."""
    said = dict.fromkeys(filter(None, map(_fault, message.split("\n")[1:])))
    return "; ".join(list(said)[:MAX_FAULTS]) or re.sub(r", value=.*\)$", ")", message, flags=re.DOTALL)


def _fault(line: str) -> str | None:
    """Of a line of vLLM's about one field, where and what is wrong; None if it is none."""
    try:
        error = ast.literal_eval(line.strip())
        return f"{error['loc'].removeprefix('body.')}: {error['msg']}"
    except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, RecursionError, MemoryError):
        return None


def _code(status: int, param: object) -> str:
    if status == 404 and param == "model":
        return AdapterNotFound.code
    if status == 400 and param in CONTEXT_PARAMETERS:
        return "context_length_exceeded"
    return CODES.get(status, MailwrightError.code if status >= 500 else "invalid_request")


def _body(message: str, kind: str, param: object, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


class ErrorShaper:
    """Wraps `send` for one request: errors leave in OpenAI's shape, everything else leaves as it is.

    `headers` are added to every answer, and more may be put there before it begins. `named_events`: the events of this
    path's streams have names, and an error is one called `error`.
    """

    def __init__(
        self, send: Send, headers: list[tuple[bytes, bytes]] | None = None, named_events: bool = False
    ) -> None:
        self._send = send
        self.headers = [] if headers is None else headers
        self._event = b"event: error\ndata: " if named_events else b"data: "
        self._failed_start: Message | None = None
        self._failed_body = b""
        self.started = False
        self.streaming = False
        self.finished = False

    async def __call__(self, message: Message) -> None:
        if self.finished:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self._failed_start is not None:
            await self._collect(self._failed_start, message)
        elif self.streaming and message.get("body", b"").startswith(SSE_ERRORS):
            await self._end_stream(_error_in(message["body"]))
        else:
            self.finished = not message.get("more_body", False)
            await self._send(message)

    async def fail(self, error: MailwrightError) -> None:
        """Answer with `error`, or end the stream that has begun with it."""
        if self.finished:
            return
        if not self.started:
            await self._answer(error.status, headers_of(error), body_of(error))
        elif self.streaming:
            await self._end_stream(body_of(error))

    async def _start(self, message: Message) -> None:
        if message["status"] >= 400:
            self._failed_start = message
            return
        self.started = True
        kind = dict(message["headers"]).get(b"content-type", b"")
        self.streaming = kind.startswith(b"text/event-stream")
        replaced = {name for name, _ in self.headers}
        kept = [(name, value) for name, value in message["headers"] if name.lower() not in replaced]
        await self._send({**message, "headers": [*kept, *self.headers]})

    async def _collect(self, start: Message, message: Message) -> None:
        self._failed_body += message.get("body", b"")
        if not message.get("more_body", False):
            replaced = (b"content-length", b"content-type")
            kept = [(name, value) for name, value in start["headers"] if name.lower() not in replaced]
            if start["status"] in (429, 503) and b"retry-after" not in dict(kept):
                kept.append((b"retry-after", str(RETRY_SECONDS).encode()))
            await self._answer(start["status"], kept, rewritten(start["status"], self._failed_body))

    async def _answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.started = self.finished = True
        headers = [
            *headers,
            *self.headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _end_stream(self, error: bytes) -> None:
        self.finished = True
        event = self._event + error + b"\n\n"
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def _error_in(event: bytes) -> bytes:
    """The body of vLLM's own error event, which sometimes has a name before it and `[DONE]` behind, in our shape."""
    body = event.partition(b"data: ")[2].split(b"\n\n", 1)[0]
    try:
        status = int(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        status = 500
    return rewritten(status, body)
