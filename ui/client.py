"""An async OpenAI client of the server: an answer is a growing snapshot, and every problem a sentence for the page.

A problem while the server writes raises nothing: the answer has the state `failed` and the reason.
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

from adapters.emails.prompts import INSTRUCTION, Message, instructed
from adapters.errors import ServerProblem
from adapters.settings import is_loopback
from ui.settings import Settings

# Between two snapshots: faster than people read, slow enough for a page that is drawn again each time.
INTERVAL_SECONDS = 0.05
CONNECT_SECONDS = 5.0
# A server that is silent for 20 s may be loading a voice: only a much longer silence is a problem.
SILENCE_SECONDS = 120.0

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

    `finished`: the model ended it. `cut`: it reached `max_tokens`. `failed`: any other end, also a stream without a
    finish reason; the text so far stays. `stopped` is for a reader that stops. `problem` says what happened and what to
    do, for `cut`, `failed` and an empty email. `version` is the exact version that writes. `tokens` comes from the
    server; None if it sends no count.
    """

    text: str = ""
    version: str = ""
    state: State = "waiting"
    problem: str = ""
    first_token_seconds: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None


# What a server can cause: OpenAI's client checks no types, so an invalid answer may fail anywhere.
SERVER_ERRORS = (openai.OpenAIError, ServerProblem, ValueError, TypeError, LookupError, AttributeError)
HINTS = {
    "invalid_api_key": "Set MAILWRIGHT_API_KEY to one of its keys (server keys create), and start `ui` again.",
    "context_length_exceeded": "Shorten the task or the conversation, or allow fewer tokens.",
}


class Client:
    def __init__(self, settings: Settings) -> None:
        self._address = settings.server
        # By their cards: an adapter's names its base model as its parent, other servers' cards have no parent at all.
        self._base_models: frozenset[str] = frozenset()
        local = is_loopback(urlsplit(settings.server).hostname or "")
        self._openai = openai.AsyncOpenAI(
            base_url=settings.server,
            api_key=settings.api_key,
            max_retries=0,
            timeout=openai.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            # Mail for a server on this machine never goes through a proxy of the environment.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if local else None,
        )

    async def close(self) -> None:
        await self._openai.close()

    async def models(self) -> list[str]:
        """The model names of the server: base models, voices, labels and exact versions; raises ServerProblem."""
        started = time.monotonic()
        try:
            answer = await self._openai.models.with_raw_response.list(extra_query={"versions": "all"})
            cards = json.loads(answer.text)["data"]
            self._base_models = frozenset(str(card["id"]) for card in cards if card.get("parent", "") is None)
            return [str(card["id"]) for card in cards]
        except SERVER_ERRORS as exc:
            raise ServerProblem(self._explain(exc, started, streaming=False)) from exc

    def _messages(self, ask: Ask) -> list[Message]:
        """The server gives a voice its own instruction; the base model gets the usual one, to be compared with it."""
        return instructed(ask.messages, INSTRUCTION) if ask.model in self._base_models else list(ask.messages)

    async def write(self, ask: Ask) -> AsyncGenerator[Answer]:
        """The newest snapshot of the answer, at most one every INTERVAL_SECONDS, and the last one.

        Closing the generator, or cancelling the task that reads it, closes the stream, and the server stops writing.
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
                messages=cast(Any, self._messages(ask)),
                temperature=ask.temperature,
                seed=ask.seed,
                max_tokens=ask.max_tokens,
                stream=True,
                stream_options={"include_usage": True},
            )
            async with stream:
                kind = stream.response.headers.get("content-type", "")
                if not kind.startswith("text/event-stream"):
                    raise ServerProblem(_no_server(self._address, f"it answers with {kind or 'nothing'}"))
                async for chunk in stream:
                    growing.add(chunk)
                    changed.set()
            growing.end()
        except SERVER_ERRORS as exc:
            growing.fail(self._explain(exc, growing.last_received, growing.streaming))

    def _explain(self, exc: Exception, last_received: float, streaming: bool) -> str:
        """What went wrong and what to do; `last_received` is when the server last sent something."""
        match exc:
            case openai.APITimeoutError():
                silence = time.monotonic() - last_received
                return (
                    f"The server at {self._address} has sent nothing for {silence:.0f} s. "
                    "Look into its log, and try again when it answers."
                )
            case openai.APIConnectionError() if streaming:
                return "The stream ended early: the connection to the server broke. Try again."
            case openai.APIConnectionError():
                return (
                    f"No server answers at {self._address} ({exc.__cause__ or exc}). "
                    "Start one with `server`, then try again."
                )
            case openai.APIStatusError():
                return _refusal(exc, self._address)
            case openai.APIError():
                return f"The server ended with an error: {exc.message}. Try again."
            case ServerProblem():
                return exc.message
            case _:
                return _no_server(self._address, "its answer does not follow the OpenAI API")


class _Growing:
    """One answer while its chunks arrive, with the times for its figures."""

    def __init__(self, max_tokens: int) -> None:
        self.answer = Answer()
        self.last_received = self._started = time.monotonic()
        self.streaming = False
        self._max_tokens = max_tokens
        self._first = self._last = 0.0
        self._reason: str | None = None

    def add(self, chunk: ChatCompletionChunk) -> None:
        self.last_received = time.monotonic()
        self.streaming = True
        answer = replace(self.answer, version=chunk.model or self.answer.version)
        if chunk.usage:
            answer = replace(answer, tokens=chunk.usage.completion_tokens)
        if chunk.choices:
            self._last = self.last_received
            self._reason = chunk.choices[0].finish_reason or self._reason
            new = chunk.choices[0].delta.content or ""
            if new and not answer.text:
                self._first = self.last_received
                answer = replace(answer, state="writing", first_token_seconds=self._first - self._started)
            answer = replace(answer, text=answer.text + new)
        if answer.text and answer.tokens and self._last > self._first:
            answer = replace(answer, tokens_per_second=(answer.tokens - 1) / (self._last - self._first))
        self.answer = answer

    def end(self) -> None:
        # A stream that the server cut off cleanly differs from a complete one only by its missing finish reason.
        if self._reason is None:
            self.fail("The stream ended early: the server cut it off. Try again.")
        elif self._reason == "length":
            limit = f"The email reached the limit of {self._max_tokens} tokens. Allow more, or ask for a shorter one."
            self.answer = replace(self.answer, state="cut", problem=limit)
        else:
            empty = "" if self.answer.text else "The model wrote nothing. Say more in the task, or change the seed."
            self.answer = replace(self.answer, state="finished", problem=empty)

    def fail(self, problem: str) -> None:
        self.answer = replace(self.answer, state="failed", problem=problem)


def _refusal(error: openai.APIStatusError, address: str) -> str:
    # The server's own message: it explains what is wrong with the request and quotes no mail.
    message = error.body.get("message") if isinstance(error.body, dict) else None
    if error.status_code == 401:
        return f"The server at {address} does not accept the API key. {HINTS['invalid_api_key']}"
    if not isinstance(message, str):
        return _no_server(address, f"it answers with status {error.status_code}")
    end = "" if message.endswith((".", "?")) else "."
    return f"The server refused: {message}{end} {HINTS.get(error.code or '', '')}".rstrip()


def _no_server(address: str, why: str) -> str:
    return f"{address} is not a Mailwright server: {why}. Check --server, or MAILWRIGHT_SERVER."
