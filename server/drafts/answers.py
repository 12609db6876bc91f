"""What an answer of vLLM says, on each path that writes: its text, how it ended, its tokens; and a note put into it.

An answer is one JSON object, or the server-sent events of a stream, one a message. Paths and fields are OpenAI's and
Anthropic's; what a client did not ask for is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from server.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES

Json = dict[str, Any]

# The field of our own in an answer; clients skip fields that they do not know.
NOTE = "mailwright"
DATA = b"data: "
# A draft that ended so ended by itself, not by a limit.
ENDED = ("stop", "completed", "end_turn", "stop_sequence")
WRITTEN = ("completion_tokens", "output_tokens")


@dataclass(frozen=True)
class Answer:
    """The messages of one answer's body as vLLM sent them, with its status and headers."""

    status: int
    headers: list[tuple[bytes, bytes]]
    bodies: Sequence[bytes]

    @property
    def ok(self) -> bool:
        return self.status == 200


@dataclass(frozen=True)
class Written:
    """What one answer says; `tokens` were written for it."""

    text: str
    ended: bool
    tokens: int


def read(path: str, answer: Answer) -> Written:
    """Raises:
    ValueError: this is no answer of `path`, such as an error in a stream.
    """
    texts, end, tokens = [], "", 0
    for event in _events(answer.bodies):
        if "error" in event and not event.get("choices") and event.get("error"):
            raise ValueError("the stream has an error")
        texts += TEXTS[path](event)
        end = ENDS[path](event) or end
        tokens = _usage(event).get(WRITTEN[0]) or _usage(event).get(WRITTEN[1]) or tokens
    return Written("".join(texts).strip(), end in ENDED, tokens)


def noted(path: str, answer: Answer, note: Json, tokens: int) -> list[bytes]:
    """The messages of the answer with `note` in the part that says how it ended, and `tokens` as those written."""
    return [_changed(path, body, note, tokens) for body in answer.bodies]


def _events(bodies: Sequence[bytes]) -> Iterator[Json]:
    for body in bodies:
        found = _json_of(body)
        if found is not None:
            yield found


def _json_of(body: bytes) -> Json | None:
    """The object in one message: the whole of it, or what stands after `data: `; None for `[DONE]` and comments."""
    text = body if body.startswith(b"{") else body[body.find(DATA) + len(DATA) :] if DATA in body else b""
    return json.loads(text) if text.startswith(b"{") else None


def _changed(path: str, body: bytes, note: Json, tokens: int) -> bytes:
    event = _json_of(body)
    if event is None:
        return body
    ends, usage = ENDS[path](event), _usage(event)
    if ends:
        # The final event of /v1/responses holds the whole answer.
        event.get("response", event)[NOTE] = note
    for field in WRITTEN:
        if usage.get(field):
            _count(usage, field, tokens)
    if not ends and not usage:
        return body
    start = 0 if body.startswith(b"{") else body.find(DATA) + len(DATA)
    return (
        body[:start]
        + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        + (b"\n\n" if start else b"")
    )


def _count(usage: Json, field: str, tokens: int) -> None:
    if usage.get("total_tokens"):
        usage["total_tokens"] += tokens - usage[field]
    usage[field] = tokens


def _usage(event: Json) -> Json:
    whole = event.get("response", event.get("message", event))
    usage = (whole if isinstance(whole, dict) else event).get("usage")
    return usage if isinstance(usage, dict) else {}


def _chat_texts(event: Json) -> list[str]:
    parts = [choice.get("delta") or choice.get("message") or {} for choice in event.get("choices") or []]
    return [part["content"] for part in parts if isinstance(part.get("content"), str)]


def _completion_texts(event: Json) -> list[str]:
    return [choice["text"] for choice in event.get("choices") or [] if choice.get("text")]


def _response_texts(event: Json) -> list[str]:
    if event.get("type") == "response.output_text.delta":
        return [event["delta"]]
    items = event.get("output") or []
    return [part["text"] for item in items for part in item.get("content") or [] if part.get("type") == "output_text"]


def _message_texts(event: Json) -> list[str]:
    if event.get("type") == "content_block_delta":
        return [event["delta"].get("text") or ""]
    return [part["text"] for part in event.get("content") or [] if part.get("type") == "text"]


def _choice_end(event: Json) -> str:
    return next((choice["finish_reason"] for choice in event.get("choices") or [] if choice.get("finish_reason")), "")


def _response_end(event: Json) -> str:
    whole = event.get("response", event)
    status = whole.get("status") if isinstance(whole, dict) and whole.get("object") == "response" else ""
    return status if status in ("completed", "incomplete", "failed") else ""


def _message_end(event: Json) -> str:
    return (event.get("delta") or {}).get("stop_reason") or event.get("stop_reason") or ""


TEXTS: dict[str, Callable[[Json], list[str]]] = {
    CHAT: _chat_texts,
    COMPLETIONS: _completion_texts,
    RESPONSES: _response_texts,
    MESSAGES: _message_texts,
}
ENDS: dict[str, Callable[[Json], str]] = {
    CHAT: _choice_end,
    COMPLETIONS: _choice_end,
    RESPONSES: _response_end,
    MESSAGES: _message_end,
}
