"""Measures one request: when it came, when its tokens left, how it ended, how many tokens it used.

Every token passes here, so each costs only a comparison of a few bytes, a look at the clock and a reference to the
message, 0.3 us in all. Only the messages up to the first with text are parsed, usually two; vLLM puts the tokens used
so far into every message of a stream (`--enable-force-include-usage`), so the last one is enough. vLLM sends one event
a message. No more than one message of an answer is held at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import SSE_ERRORS
from server.metrics import CANARY, UNKNOWN, Metrics, Outcome

EVENT = b'data: {"'
LAST_EVENT = b"data: [DONE]"
# Of /v1/responses and /v1/messages, whose events have names.
NAMED = b"event: "
TEXT_EVENTS = (b"response.output_text.delta", b"response.function_call_arguments.delta", b"content_block_delta")
USAGE_EVENTS = (b"response.completed", b"response.incomplete", b"message_delta")
LAST_EVENTS = (b"response.completed", b"response.incomplete", b"message_stop")
# Where an answer's text can be; the first event of a chat has a role and nothing else.
TEXT_FIELDS = ("content", "text", "reasoning", "tool_calls")
# Cannot be text of an email: within a JSON string the quotes are escaped.
USAGE = b'"usage":{'
MAX_USAGE_BYTES = 1000
JSON = json.JSONDecoder()

# The key in an ASGI scope of a request's Observation.
OBSERVATION = "mailwright.observation"


class MetricsLayer:
    """Measures the requests for the routes `counted`."""

    def __init__(self, app: ASGIApp, metrics: Metrics, counted: Collection[tuple[str, str]]) -> None:
        self._app = app
        self._metrics = metrics
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope.get("method"), scope.get("path")) not in self._counted:
            return await self._app(scope, receive, send)
        with Observation(self._metrics, receive, send) as seen:
            await self._app({**scope, OBSERVATION: seen}, seen.receive, seen.send)


class Observation:
    """Wraps `receive` and `send` for one request; a context manager, which counts the request when it ends.

    `cold` is to be set if the request had to wait for its adapter to load.
    """

    def __init__(
        self, metrics: Metrics, receive: Receive, send: Send, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.cold = False
        self._metrics = metrics
        self._receive = receive
        self._send = send
        self._clock = clock
        self._arrived = clock()
        self._adapter: str | None = None
        self._status = 0
        self._first_token: float | None = None
        self._last_token = 0.0
        self._last = b""
        self._finished = False
        self._broken = False
        self._disconnected = False
        self._drafted = False

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, *_: object) -> None:
        outcome = self._outcome()
        self._metrics.requests.labels(self._adapter or UNKNOWN, outcome).inc()
        if self._adapter:
            self._metrics.in_flight.labels(self._adapter).dec()
            self._count_answer(self._adapter, outcome)

    def set_adapter(self, name: str, canary: bool = False) -> None:
        """To be called once, when the adapter is known: `name` is published, or the base model's."""
        self._adapter = self._metrics.label(f"{name}{CANARY}" if canary else name)
        self._metrics.in_flight.labels(self._adapter).inc()

    def mark_submitted(self) -> None:
        """vLLM gets the request now."""
        self._metrics.queue_wait.labels(self._adapter or UNKNOWN).observe(self._clock() - self._arrived)

    def drafted(self, count: int, held: bool, seconds: float) -> None:
        """The answer is the best of `count` drafts, which took `seconds`, and the checker holds it to be sendable."""
        self._drafted = True
        label = self._adapter or UNKNOWN
        self._metrics.drafts.labels(label).inc(count)
        self._metrics.drafted.labels(label, "held" if held else "with_findings").inc()
        self._metrics.drafting.labels(label).observe(seconds)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._finished:
            self._disconnected = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Not async itself, which saves a coroutine for every token."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._look_at(message.get("body", b""))
            if not message.get("more_body", False):
                self._finished = True
        return self._send(message)

    def _look_at(self, body: bytes) -> None:
        if body.startswith(SSE_ERRORS):
            self._broken = True
        elif body.startswith(EVENT):
            self._last = body
            self._last_token = self._clock()
            if self._first_token is None and has_text(body):
                self._first()
        elif body.startswith(NAMED):
            self._look_at_named(body)
        elif body.startswith(b"{"):
            self._last = body
        elif body.startswith(LAST_EVENT):
            # A client that hangs up now has everything.
            self._finished = True

    def _look_at_named(self, body: bytes) -> None:
        name = body[len(NAMED) : body.find(b"\n")]
        if name in TEXT_EVENTS:
            self._last_token = self._clock()
            if self._first_token is None:
                self._first()
        if name in USAGE_EVENTS:
            self._last = body
        self._finished = self._finished or name in LAST_EVENTS

    def _first(self) -> None:
        self._first_token = self._last_token
        load = "cold" if self.cold else "warm"
        seconds = self._last_token - self._arrived
        self._metrics.first_token.labels(self._adapter or UNKNOWN, load).observe(seconds)

    def _count_answer(self, adapter: str, outcome: Outcome) -> None:
        prompt_tokens, completion_tokens = tokens_used(self._last)
        self._metrics.prompt_tokens.labels(adapter).inc(prompt_tokens)
        self._metrics.completion_tokens.labels(adapter).inc(completion_tokens)
        if outcome == "ok":
            self._metrics.end_to_end.labels(adapter).observe(self._clock() - self._arrived)
            # A checked draft leaves at once, when it is written.
            if self._first_token is not None and completion_tokens > 1 and not self._drafted:
                seconds = (self._last_token - self._first_token) / (completion_tokens - 1)
                self._metrics.per_token.labels(adapter).observe(seconds)

    def _outcome(self) -> Outcome:
        if self._disconnected:
            return "client_gone"
        if self._broken or not self._finished:
            return "server_error"
        if self._status in (422, 503):
            return "refused"
        if self._status >= 400:
            return "server_error" if self._status >= 500 else "client_error"
        return "ok"


def has_text(event: bytes) -> bool:
    """Whether a server-sent event brings text, or a part of a tool call."""
    try:
        choices = json.loads(event.removeprefix(b"data: ").split(b"\n\n", 1)[0]).get("choices") or []
    except ValueError:
        return False
    return any((choice.get("delta") or choice).get(field) for choice in choices for field in TEXT_FIELDS)


def tokens_used(message: bytes) -> tuple[int, int]:
    """Tokens of the prompt and of the answer by the usage in `message`, an event or a whole answer; 0 if it has none.

    Looked for from the end: an answer with the probabilities of its tokens is megabytes to parse.
    """
    start = message.rfind(USAGE)
    if start < 0:
        return 0, 0
    text = message[start + len(USAGE) - 1 :][:MAX_USAGE_BYTES].decode(errors="replace")
    try:
        usage, _ = JSON.raw_decode(text)
    except ValueError:
        return 0, 0
    read, written = (usage.get(f"{kind}_tokens") or 0 for kind in ("prompt", "completion"))
    return read or usage.get("input_tokens") or 0, written or usage.get("output_tokens") or 0
