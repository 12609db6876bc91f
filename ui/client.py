"""An async OpenAI client of the server: an answer as a snapshot that grows, and trouble told in words.

This file knows no page. It never raises for what the server does while writing: the answer then says `failed` and why.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletionChunk

from adapters.emails.prompts import Message
from adapters.errors import ServerProblem
from adapters.settings import is_loopback
from ui.settings import Settings

INTERVAL_SECONDS = 0.05
"""Between two snapshots: faster than anybody reads, slow enough for a page that is drawn again each time."""
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 120.0
"""A server that says nothing for 20 s may be loading a voice: only a much longer silence is trouble."""

State = Literal["waiting", "writing", "finished", "cut", "stopped", "failed"]


@dataclass(frozen=True)
class Ask:
    model: str
    messages: list[Message]
    temperature: float
    seed: int | None
    max_tokens: int


@dataclass(frozen=True)
class Answer:
    """An answer while it is written, and when it has ended.

    `finished`: the model ended it. `cut`: it reached `max_tokens`. `failed`: anything else that ends it, a stream that
    is over without saying why included; the text so far stays. `stopped`: for whoever stops reading to set. `problem`
    is a sentence or two with what to do, for `cut`, `failed` and an empty email. `version` is the exact version that
    writes. `tokens` comes from the server, and is None while, or if, it does not say.
    """

    text: str = ""
    version: str = ""
    state: State = "waiting"
    problem: str = ""
    first_token_seconds: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None


TROUBLE = (openai.OpenAIError, ServerProblem, ValueError, TypeError, LookupError, AttributeError)
"""What a server can cause: OpenAI's client checks no shapes, so that nonsense may fail anywhere on its way."""
HINTS = {
    "invalid_api_key": "Set MAILWRIGHT_API_KEY to one of its keys (server keys create), and start `ui` again.",
    "context_length_exceeded": "Shorten the task or the conversation, or allow fewer tokens.",
}


class Client:
    def __init__(self, settings: Settings) -> None:
        self._address = settings.server
        local = is_loopback(urlsplit(settings.server).hostname or "")
        self._openai = openai.AsyncOpenAI(
            base_url=settings.server,
            api_key=settings.api_key,
            max_retries=0,
            timeout=openai.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            # Mail for a server on this machine goes through no proxy, whatever the environment says.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if local else None,
        )

    async def close(self) -> None:
        await self._openai.close()

    async def models(self) -> list[str]:
        """The names that the server answers to: base models, voices, labels, and exact versions.

        Raises:
            ServerProblem: there is no such list; the message says why and what to do.
        """
        started = time.monotonic()
        try:
            answer = await self._openai.models.with_raw_response.list(extra_query={"versions": "all"})
            return [str(card["id"]) for card in json.loads(answer.text)["data"]]
        except TROUBLE as exc:
            raise ServerProblem(self._in_words(exc, started, begun=False)) from exc

    async def write(self, ask: Ask) -> AsyncGenerator[Answer]:
        """The answer as it grows: at most one snapshot every INTERVAL_SECONDS, always the newest, and the last one.

        Closing the generator, or cancelling whoever waits for it, closes the stream, and the server stops writing.
        """
        growing = _Growing(ask.max_tokens)
        changed = asyncio.Event()
        filling = asyncio.create_task(self._fill(growing, ask, changed))
        filling.add_done_callback(lambda _: changed.set())
        try:
            while not filling.done():
                yield growing.answer
                await asyncio.sleep(INTERVAL_SECONDS)
                await changed.wait()
                changed.clear()
            filling.result()
            yield growing.answer
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)

    async def _fill(self, growing: _Growing, ask: Ask, changed: asyncio.Event) -> None:
        try:
            stream = await self._openai.chat.completions.create(
                model=ask.model,
                messages=cast(Any, ask.messages),
                temperature=ask.temperature,
                seed=ask.seed,
                max_tokens=ask.max_tokens,
                stream=True,
                stream_options={"include_usage": True},
            )
            async with stream:
                _refuse_other_than_stream(stream.response.headers.get("content-type", ""), self._address)
                async for chunk in stream:
                    growing.add(chunk)
                    changed.set()
            growing.end()
        except TROUBLE as exc:
            growing.fail(self._in_words(exc, growing.heard, growing.begun))

    def _in_words(self, exc: Exception, heard: float, begun: bool) -> str:
        """What went wrong and what to do, in words. `heard` is when the server last said something."""
        match exc:
            case openai.APITimeoutError():
                silence = time.monotonic() - heard
                return (
                    f"The server at {self._address} has said nothing for {silence:.0f} s. "
                    "Its log says what it is doing. Try again when it answers."
                )
            case openai.APIConnectionError() if begun:
                return "The stream ended early: the connection to the server broke. Try again."
            case openai.APIConnectionError():
                return (
                    f"No server answers at {self._address} ({exc.__cause__ or exc}). "
                    "Start one with `server`, then try again."
                )
            case openai.APIStatusError():
                return _refusal(exc, self._address)
            case openai.APIError():
                return f"The server broke off with an error: {exc.message}. Try again."
            case ServerProblem():
                return exc.message
            case _:
                return _no_server(self._address, "what it sends is no answer of the OpenAI API")


class _Growing:
    """One answer as its chunks arrive, with the times that its figures need."""

    def __init__(self, max_tokens: int) -> None:
        self.answer = Answer()
        self.heard = self._started = time.monotonic()
        self.begun = False
        self._max_tokens = max_tokens
        self._first = self._last = 0.0
        self._reason: str | None = None

    def add(self, chunk: ChatCompletionChunk) -> None:
        self.heard = time.monotonic()
        self.begun = True
        answer = replace(self.answer, version=chunk.model or self.answer.version)
        if chunk.usage:
            answer = replace(answer, tokens=chunk.usage.completion_tokens)
        if chunk.choices:
            self._last = self.heard
            self._reason = chunk.choices[0].finish_reason or self._reason
            new = chunk.choices[0].delta.content or ""
            if new and not answer.text:
                self._first = self.heard
                answer = replace(answer, state="writing", first_token_seconds=self._first - self._started)
            answer = replace(answer, text=answer.text + new)
        if answer.text and answer.tokens and self._last > self._first:
            answer = replace(answer, tokens_per_second=(answer.tokens - 1) / (self._last - self._first))
        self.answer = answer

    def end(self) -> None:
        """The stream is over. One that breaks off in good order looks like any other, but gave no reason to end."""
        if self._reason is None:
            self.fail("The stream ended early: the server broke it off. Try again.")
        elif self._reason == "length":
            limit = f"The email reached the limit of {self._max_tokens} tokens. Allow more, or ask for a shorter one."
            self.answer = replace(self.answer, state="cut", problem=limit)
        else:
            empty = "" if self.answer.text else "The model wrote nothing. Say more in the task, or change the seed."
            self.answer = replace(self.answer, state="finished", problem=empty)

    def fail(self, problem: str) -> None:
        self.answer = replace(self.answer, state="failed", problem=problem)


def _refuse_other_than_stream(kind: str, address: str) -> None:
    if not kind.startswith("text/event-stream"):
        raise ServerProblem(_no_server(address, f"it answers with {kind or 'nothing'}"))


def _refusal(error: openai.APIStatusError, address: str) -> str:
    """The server's own words: they say what is wrong with the request, and quote no mail."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    if error.status_code == 401:
        return f"The server at {address} does not accept the API key. {HINTS['invalid_api_key']}"
    if not isinstance(message, str):
        return _no_server(address, f"it answers with status {error.status_code}")
    end = "" if message.endswith((".", "?")) else "."
    return f"The server refused: {message}{end} {HINTS.get(error.code or '', '')}".rstrip()


def _no_server(address: str, why: str) -> str:
    return f"What answers at {address} is no Mailwright server: {why}. Check --server, or MAILWRIGHT_SERVER."
