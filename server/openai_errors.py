"""Every error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}` with a string code.

Our own errors say their status and code themselves (adapters/errors.py). vLLM answers with a number as code, so that
its error bodies are rewritten on the way out. Once a stream has begun, an error is one SSE event and then the end: a
stream that just stops would pass for a success. This file knows ASGI messages, but neither paths nor models.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from adapters.errors import AdapterNotFound, AdapterUnusable, MailwrightError, Overloaded, Unauthorised

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    422: "invalid_request",
    429: "rate_limit_exceeded",
    503: "overloaded",
}
# What vLLM names as the parameter at fault when a prompt is too long; its message text is nothing to rely on.
CONTEXT_PARAMETERS = ("input_text", "input_tokens")
SSE_ERROR = b'data: {"error"'


def body_of(error: MailwrightError) -> bytes:
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    param = "model" if isinstance(error, AdapterNotFound | AdapterUnusable) else None
    return _body(message, error.type, param, error.code)


def rewritten(status: int, body: bytes) -> bytes:
    """An error body that vLLM or its framework wrote, in OpenAI's shape."""
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    details = found.get("error") if isinstance(found, dict) else None
    if not isinstance(details, dict):
        details = {"message": body.decode(errors="replace")[:1000] or f"the request failed with status {status}"}
    param, code = details.get("param"), details.get("code")
    if not isinstance(code, str):
        code = _code(status, param)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _body(str(details.get("message")), kind, param, code)


def _code(status: int, param: object) -> str:
    if status == 404 and param == "model":
        return AdapterNotFound.code
    if status == 400 and param in CONTEXT_PARAMETERS:
        return "context_length_exceeded"
    return CODES.get(status, MailwrightError.code if status >= 500 else "invalid_request")


def _body(message: str, kind: str, param: object, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


class ErrorShaper:
    """Wraps `send` for one request: errors leave in OpenAI's shape, everything else leaves as it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
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
        elif self.streaming and message.get("body", b"").startswith(SSE_ERROR):
            await self._end_stream(_event_of(message["body"]))
        else:
            self.finished = not message.get("more_body", False)
            await self._send(message)

    async def fail(self, error: MailwrightError) -> None:
        """Answer with `error`, or end the stream that has begun with it."""
        if self.finished:
            return
        if not self.started:
            extra = []
            if isinstance(error, Overloaded):
                extra.append((b"retry-after", str(error.retry_after).encode()))
            if isinstance(error, Unauthorised):
                extra.append((b"www-authenticate", b"Bearer"))
            await self._answer(error.status, extra, body_of(error))
        elif self.streaming:
            await self._end_stream(b"data: " + body_of(error) + b"\n\n")

    async def _start(self, message: Message) -> None:
        if message["status"] >= 400:
            self._failed_start = message
            return
        self.started = True
        kind = dict(message["headers"]).get(b"content-type", b"")
        self.streaming = kind.startswith(b"text/event-stream")
        await self._send(message)

    async def _collect(self, start: Message, message: Message) -> None:
        self._failed_body += message.get("body", b"")
        if not message.get("more_body", False):
            replaced = (b"content-length", b"content-type")
            kept = [(name, value) for name, value in start["headers"] if name.lower() not in replaced]
            await self._answer(start["status"], kept, rewritten(start["status"], self._failed_body))

    async def _answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.started = self.finished = True
        headers = [*headers, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _end_stream(self, event: bytes) -> None:
        self.finished = True
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def _event_of(event: bytes) -> bytes:
    """vLLM's own error event (`data: {"error": ...}`, sometimes with `[DONE]` behind it) in OpenAI's shape."""
    body = event.removeprefix(b"data: ").split(b"\n\n", 1)[0]
    try:
        status = int(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        status = 500
    return b"data: " + rewritten(status, body) + b"\n\n"
