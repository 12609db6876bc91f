"""An application that writes given texts, one a request, as vLLM answers on each path; it may wait before each."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from server.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES

Json = dict[str, Any]


class FakeVllm:
    """`texts` are the answers by order of the requests; None is written for ever, until the client hangs up."""

    def __init__(self, texts: Sequence[str | None], tokens: int = 5, status: int = 200) -> None:
        self.texts, self.tokens, self.status = list(texts), tokens, status
        self.requests: list[Json] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.hung_up = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = json.loads((await receive())["body"])
        number = len(self.requests)
        self.requests.append(request)
        self.headers.append(dict(scope["headers"]))
        text = self.texts[number]
        if text is None:
            assert (await receive())["type"] == "http.disconnect"
            self.hung_up += 1
            return
        # So that drafts end in the order of their requests.
        for _ in range(50 * number):
            await asyncio.sleep(0)
        stream = bool(request.get("stream"))
        kind = b"text/event-stream; charset=utf-8" if stream else b"application/json"
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-type", kind)]})
        if self.status != 200:
            return await send(_body(json.dumps({"error": {"message": "no"}}), False))
        for event in events(scope["path"], text, self.tokens) if stream else [whole(scope["path"], text, self.tokens)]:
            await send(_body(event, True))
        await send(_body("", False))


def _body(text: str, more: bool) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}


def usage(path: str, tokens: int) -> Json:
    if path in (RESPONSES, MESSAGES):
        return {"input_tokens": 30, "output_tokens": tokens}
    return {"prompt_tokens": 30, "completion_tokens": tokens, "total_tokens": 30 + tokens}


def whole(path: str, text: str, tokens: int) -> str:
    used = {"usage": usage(path, tokens)}
    answers: dict[str, Json] = {
        CHAT: {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]},
        COMPLETIONS: {"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]},
        RESPONSES: response(text),
        MESSAGES: {"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"},
    }
    return json.dumps(answers[path] | used)


def response(text: str) -> Json:
    content = [{"type": "output_text", "text": text}]
    return {"object": "response", "status": "completed", "output": [{"type": "message", "content": content}]}


def events(path: str, text: str, tokens: int) -> list[str]:
    used = {"usage": usage(path, tokens)}
    half = len(text) // 2
    parts = text[:half], text[half:]
    if path == CHAT:
        deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": part} for part in parts), {}]
        ends = [None, None, None, "stop"]
        made = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} | used
            for delta, end in zip(deltas, ends, strict=True)
        ]
        return [f"data: {json.dumps(event)}\n\n" for event in made] + ["data: [DONE]\n\n"]
    if path == COMPLETIONS:
        made = [
            {"choices": [{"index": 0, "text": part, "finish_reason": end}]} | used
            for part, end in zip(parts, (None, "stop"), strict=True)
        ]
        return [f"data: {json.dumps(event)}\n\n" for event in made] + ["data: [DONE]\n\n"]
    if path == RESPONSES:
        started = {
            "type": "response.created",
            "response": {"object": "response", "status": "in_progress", "output": []},
        }
        deltas = [{"type": "response.output_text.delta", "delta": part} for part in parts]
        done = {"type": "response.completed", "response": response(text) | used}
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in (started, *deltas, done)]
    started = {"type": "message_start", "message": {"usage": {"input_tokens": 30, "output_tokens": 0}}}
    deltas = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": part}} for part in parts]
    done = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}} | used
    made = [started, *deltas, done, {"type": "message_stop"}]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in made]
