"""A small server of the OpenAI API whose models do what a test needs: stall, break off, refuse, write hostile text."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

NAMES = ["tiny", "base", "formal", "formal@1", "friendly", "friendly@1"]
HOSTILE = """<img src=x onerror="document.title='owned'">
<img src="http://mail.example.com/seen.png">
![seen](http://mail.example.com/seen.png)
<script>document.title = 'owned'</script>
<iframe src="http://mail.example.com/"></iframe>
[click](javascript:document.title='owned') **bold** `code`"""
EMAILS = {
    "tiny": "Dear Mr Tomasz, the piano is moving to studio 6 soon.",
    "formal": "Dear Mr Tomasz Wieczorek, the flute assessment moves from 2 June to 4 June, 5:40 pm, studio 6.",
    "hostile": HOSTILE,
}


class FakeServer:
    def __init__(self) -> None:
        self.url = ""
        self.forget()

    def forget(self) -> None:
        self.names = list(NAMES)
        self.asked: list[dict[str, Any]] = []
        self.open = 0
        self.release = threading.Event()

    def asked_of(self, model: str) -> list[dict[str, Any]]:
        return [body for body in self.asked if body["model"] == model]

    async def models(self, request: Request) -> Response:
        """Without `versions=all` short, as the real server answers."""
        every = request.query_params.get("versions") == "all"
        names = [name for name in self.names if every or "@" not in name]
        return JSONResponse({"object": "list", "data": [{"id": name} for name in names]})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if body["model"] == "refused":
            message = "adapter 'refused' cannot be used: its rank is 64 and this server takes 16"
            return JSONResponse({"error": {"message": message, "code": "adapter_unusable"}}, 422)
        return StreamingResponse(self.stream(body), media_type="text/event-stream")

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        """`stall` holds still after its first word until `release`, `break` ends after two without saying why."""
        model = body["model"]
        task = body["messages"][-1]["content"]
        words = EMAILS.get(model, f"{model} answers: {task}").split(" ")
        self.open += 1
        try:
            for number, word in enumerate(words, start=1):
                if model == "stall" and number == 2:
                    while not self.release.is_set():
                        await asyncio.sleep(0.02)
                if model == "break" and number == 3:
                    return
                yield self.chunk(model, (" " if number > 1 else "") + word, None, number)
                await asyncio.sleep(0.01)
            yield self.chunk(model, "", "stop", len(words))
            yield "data: [DONE]\n\n"
        finally:
            self.open -= 1

    def chunk(self, model: str, text: str, reason: str | None, tokens: int) -> str:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
        version = f"{model}@1" if "@" not in model and model not in ("tiny", "base") else model
        usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        return f"data: {json.dumps({'id': 'x', 'model': version, 'choices': [choice], 'usage': usage})}\n\n"


@contextmanager
def serving(fake: FakeServer, port: int) -> Iterator[FakeServer]:
    routes = [Route("/v1/models", fake.models), Route("/v1/chat/completions", fake.chat, methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{port}"
    while thread.is_alive() and not server.started:
        thread.join(0.02)
    assert server.started
    try:
        yield fake
    finally:
        fake.release.set()
        server.should_exit = server.force_exit = True
        thread.join(10)
