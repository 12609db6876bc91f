"""The client against small servers on loopback, one for each way in which a server may behave."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from adapters.emails.prompts import task_messages
from adapters.errors import AdapterNotFound, AdapterUnusable, MailwrightError, Overloaded, ServerProblem, Unauthorised
from server.api.errors import body_of
from ui import client as client_module
from ui.client import Answer, Ask, Client
from ui.settings import Settings

ASK = Ask("formal", task_messages("Thank Ada for the 12 chairs."), 0.7, 7, 64)


class Request:
    """One request as the server sees it, and the means to answer it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.body: dict[str, Any] = {}

    async def read(self) -> None:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        self.line, self.head = head.split("\r\n", 1)
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        self.body = json.loads(await self.reader.readexactly(int(length[1]))) if length else {}

    async def answer(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
        self.writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        self.writer.write(body)
        await self.writer.drain()

    async def start(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self.chunk("")

    async def event(self, data: str) -> None:
        text = f"data: {data}\n\n".encode()
        self.writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        await self.writer.drain()

    async def chunk(self, text: str, reason: str | None = None, tokens: int | None = None) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
        usage = tokens is not None and {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        await self.event(json.dumps({"id": "x", "model": "formal@2", "choices": [choice], "usage": usage or None}))

    async def usage(self, tokens: int) -> None:
        usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        await self.event(json.dumps({"id": "x", "model": "formal@2", "choices": [], "usage": usage}))

    async def end(self, done: bool = True) -> None:
        if done:
            await self.event("[DONE]")
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def client_is_gone(self) -> None:
        assert await self.reader.read() == b""


Behaviour = Callable[[Request], Awaitable[None]]


@asynccontextmanager
async def talking_to(behaviour: Behaviour) -> AsyncIterator[Client]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = Request(reader, writer)
        try:
            await request.read()
            await behaviour(request)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(settings(f"http://127.0.0.1:{port}/v1"))
    try:
        async with asyncio.timeout(30):
            yield client
    finally:
        await client.close()
        server.close()


def settings(address: str) -> Settings:
    return Settings(server=address, api_key="sesame")


def answers(behaviour: Behaviour) -> list[Answer]:
    async def write() -> list[Answer]:
        async with talking_to(behaviour) as client:
            return [answer async for answer in client.write(ASK)]

    return asyncio.run(write())


def refusing(error: MailwrightError) -> Behaviour:
    return lambda request: request.answer(body_of(error), error.status)


async def writes_three_words(request: Request) -> None:
    await request.start()
    for word in ("Dear ", "Ada", ","):
        await request.chunk(word)
    await request.chunk("", "stop")
    await request.usage(4)
    await request.end()


def test_an_answer_grows_and_ends_with_text_version_and_figures():
    first, *_, last = answers(writes_three_words)
    assert first == Answer()
    assert (last.text, last.version, last.state, last.problem) == ("Dear Ada,", "formal@2", "finished", "")
    assert last.tokens == 4
    assert last.first_token_seconds is not None
    assert last.tokens_per_second is not None
    assert last.tokens_per_second > 0


def test_the_request_is_what_was_asked_with_the_key():
    seen: list[Request] = []

    async def behaviour(request: Request) -> None:
        seen.append(request)
        await writes_three_words(request)

    answers(behaviour)
    (request,) = seen
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert re.search(r"^authorization: Bearer sesame\r$", request.head, re.MULTILINE | re.IGNORECASE)
    assert request.body == {
        "model": "formal",
        "messages": [{"role": "user", "content": "Thank Ada for the 12 chairs."}],
        "temperature": 0.7,
        "seed": 7,
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_burst_of_chunks_is_few_snapshots_each_of_which_continues_the_one_before():
    async def behaviour(request: Request) -> None:
        await request.start()
        for number in range(300):
            await request.chunk(f"{number} ")
        await request.chunk("", "stop")
        await request.end()

    texts = [answer.text for answer in answers(behaviour)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1].split() == [str(number) for number in range(300)]
    assert len(texts) < 100


def test_what_has_come_is_shown_while_the_stream_stalls():
    async def write() -> None:
        go_on = asyncio.Event()

        async def behaviour(request: Request) -> None:
            await request.start()
            await request.chunk("Dear ")
            await request.chunk("Ada,")
            await go_on.wait()
            await request.chunk(" thanks", "stop")
            await request.end()

        async with talking_to(behaviour) as client:
            states = []
            async for answer in client.write(ASK):
                states.append((answer.text, answer.state))
                if answer.text == "Dear Ada,":
                    go_on.set()
        assert ("Dear Ada,", "writing") in states
        assert states[-1] == ("Dear Ada, thanks", "finished")

    asyncio.run(write())


def test_a_side_that_stalls_does_not_hold_the_other():
    async def write() -> None:
        other_has_ended = asyncio.Event()

        async def behaviour(request: Request) -> None:
            if request.body["model"] == "slow":
                await other_has_ended.wait()
            await writes_three_words(request)

        async def side(client: Client, model: str) -> Answer:
            ask = Ask(model, ASK.messages, 0, None, 64)
            return [answer async for answer in client.write(ask)][-1]

        async with talking_to(behaviour) as client:
            slow = asyncio.create_task(side(client, "slow"))
            assert (await side(client, "fast")).state == "finished"
            assert not slow.done()
            other_has_ended.set()
            assert (await slow).state == "finished"

    asyncio.run(write())


@pytest.mark.parametrize("when", ["before the answer has begun", "while it is written"])
@pytest.mark.parametrize("how", ["close", "cancel"])
def test_leaving_hangs_up_so_that_the_server_stops_writing(when: str, how: str):
    async def write() -> None:
        asked, hung_up = asyncio.Event(), asyncio.Event()

        async def behaviour(request: Request) -> None:
            if when == "while it is written":
                await request.start()
                await request.chunk("Dear ")
            asked.set()
            await request.client_is_gone()
            hung_up.set()

        async def read(growing: AsyncGenerator[Answer]) -> None:
            async for _ in growing:
                pass

        async with talking_to(behaviour) as client:
            growing = client.write(ASK)
            if how == "close":
                await anext(growing)
                await asked.wait()
                await growing.aclose()
            else:
                reading = asyncio.create_task(read(growing))
                await asked.wait()
                reading.cancel()
            await hung_up.wait()

    asyncio.run(write())


def test_usage_in_every_chunk_counts_while_it_is_written():
    async def write() -> None:
        go_on = asyncio.Event()

        async def behaviour(request: Request) -> None:
            await request.start()
            for tokens, word in enumerate(["Dear ", "Ada", ","], start=1):
                await request.chunk(word, tokens=tokens)
            await go_on.wait()
            await request.chunk("", "stop", tokens=4)
            await request.usage(4)
            await request.end()

        async with talking_to(behaviour) as client:
            counted = []
            async for answer in client.write(ASK):
                counted.append(answer.tokens)
                if answer.text == "Dear Ada,":
                    go_on.set()
        assert counted[0] is None
        assert 3 in counted
        assert counted[-1] == 4

    asyncio.run(write())


def test_without_usage_nothing_is_made_up():
    async def behaviour(request: Request) -> None:
        await request.start()
        await request.chunk("Dear ")
        await request.chunk("Ada", "stop")
        await request.end()

    last = answers(behaviour)[-1]
    assert (last.state, last.tokens, last.tokens_per_second) == ("finished", None, None)
    assert last.first_token_seconds is not None


def test_an_answer_at_the_limit_is_cut_and_says_so():
    async def behaviour(request: Request) -> None:
        await request.start()
        await request.chunk("Dear Ada, I", "length")
        await request.end()

    last = answers(behaviour)[-1]
    assert (last.state, last.text) == ("cut", "Dear Ada, I")
    assert "64 tokens" in last.problem


def test_an_empty_answer_says_what_to_do():
    async def behaviour(request: Request) -> None:
        await request.start()
        await request.chunk("", "stop")
        await request.end()

    last = answers(behaviour)[-1]
    assert (last.state, last.text, last.first_token_seconds) == ("finished", "", None)
    assert "wrote nothing" in last.problem


@pytest.mark.parametrize("done", [True, False], ids=["with [DONE]", "without"])
def test_a_stream_that_just_ends_has_failed_and_keeps_its_text(done: bool):
    async def behaviour(request: Request) -> None:
        await request.start()
        await request.chunk("Dear Ada")
        await request.end(done)

    last = answers(behaviour)[-1]
    assert (last.state, last.text) == ("failed", "Dear Ada")
    assert last.problem.startswith("The stream ended early")


def test_a_connection_that_breaks_has_failed_and_keeps_its_text():
    async def behaviour(request: Request) -> None:
        await request.start()
        await request.chunk("Dear Ada")

    last = answers(behaviour)[-1]
    assert (last.state, last.text) == ("failed", "Dear Ada")
    assert last.problem.startswith("The stream ended early: the connection to the server broke")


def test_an_error_in_the_stream_is_told_and_the_text_kept():
    async def behaviour(request: Request) -> None:
        await request.start()
        await request.chunk("Dear Ada")
        await request.event(body_of(MailwrightError("the engine stopped")).decode())
        await request.end(done=False)

    last = answers(behaviour)[-1]
    assert (last.state, last.text, last.version) == ("failed", "Dear Ada", "formal@2")
    assert "the engine stopped" in last.problem


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AdapterNotFound("the model 'formall' does not exist", "did you mean formal?"), "did you mean formal?"),
        (
            AdapterUnusable("formal@2", ["its rank is 128", "it holds no tensors"]),
            "its rank is 128; it holds no tensors",
        ),
        (Overloaded("8 adapters are being loaded already", 3), "try again in 3 s"),
        (Unauthorised("no valid API key came with the request"), "MAILWRIGHT_API_KEY"),
    ],
    ids=["404", "422", "503", "401"],
)
def test_a_refusal_is_told_in_the_servers_words(error: MailwrightError, told: str):
    last = answers(refusing(error))[-1]
    assert (last.state, last.text) == ("failed", "")
    assert told in last.problem


def test_a_prompt_that_is_too_long_gets_a_way_out():
    body = {"error": {"message": "It has 9000 tokens", "type": "x", "param": None, "code": "context_length_exceeded"}}
    last = answers(lambda request: request.answer(json.dumps(body).encode(), 400))[-1]
    assert "9000 tokens. Shorten the task" in last.problem


@pytest.mark.parametrize("status", [200, 404, 502])
def test_an_html_page_is_no_mailwright_server(status: int):
    last = answers(lambda request: request.answer(b"<h1>Hello</h1>", status, "text/html"))[-1]
    assert last.state == "failed"
    assert "is not a Mailwright server" in last.problem
    assert "--server" in last.problem


@pytest.mark.parametrize("event", ["no JSON", "[1, 2]", '{"choices": [{"delta": null}]}', '{"choices": ["a"]}', "{}"])
def test_a_stream_of_nonsense_fails_in_words(event: str):
    async def behaviour(request: Request) -> None:
        await request.start()
        await request.event(event)
        await request.end()

    last = answers(behaviour)[-1]
    assert last.state == "failed"
    assert last.problem


def test_a_server_that_is_silent_for_too_long_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.2)

    async def behaviour(request: Request) -> None:
        await request.start()
        await request.chunk("Dear Ada")
        await request.client_is_gone()

    last = answers(behaviour)[-1]
    assert (last.state, last.text) == ("failed", "Dear Ada")
    assert "has sent nothing for" in last.problem


def test_a_cold_load_of_20_seconds_is_not_silence_for_too_long():
    assert client_module.SILENCE_SECONDS >= 60


def test_no_server_is_told_with_its_address_and_what_to_start(unused_tcp_port: int):
    address = f"http://127.0.0.1:{unused_tcp_port}/v1"

    async def write() -> list[Answer]:
        return [answer async for answer in Client(settings(address)).write(ASK)]

    last = asyncio.run(write())[-1]
    assert last.state == "failed"
    assert last.problem.startswith(f"No server answers at {address} (")
    assert "Start one with `server`" in last.problem


def test_mail_for_this_machine_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_tcp_port}")
    assert answers(writes_three_words)[-1].state == "finished"


def test_no_problem_quotes_the_task():
    async def broken(request: Request) -> None:
        await request.event("nonsense")

    for behaviour in (broken, refusing(MailwrightError("it failed")), lambda request: request.answer(b"x", 500)):
        assert "12 chairs" not in answers(behaviour)[-1].problem


def models(behaviour: Behaviour) -> list[str]:
    async def ask() -> list[str]:
        async with talking_to(behaviour) as client:
            return await client.models()

    return asyncio.run(ask())


def test_labels_and_exact_versions_are_asked_for_too():
    lines: list[str] = []

    async def behaviour(request: Request) -> None:
        lines.append(request.line)
        await request.answer(b'{"object": "list", "data": []}')

    assert models(behaviour) == []
    assert lines == ["GET /v1/models?versions=all HTTP/1.1"]


def test_the_models_come_in_the_servers_order():
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in ("base", "formal", "formal@1")]}
    assert models(lambda request: request.answer(json.dumps(listed).encode())) == ["base", "formal", "formal@1"]


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (refusing(Unauthorised("no valid API key came with the request")), "MAILWRIGHT_API_KEY"),
        (lambda request: request.answer(b"<h1>Hello</h1>", 200, "text/html"), "is not a Mailwright server"),
        (lambda request: request.answer(b'{"data": [7]}'), "is not a Mailwright server"),
        (lambda request: request.answer(b'{"detail": "Not Found"}', 404), "status 404"),
        (lambda request: asyncio.sleep(0), "No server answers"),
    ],
    ids=["wrong key", "HTML", "other JSON", "other server", "hangs up"],
)
def test_no_list_of_models_is_a_problem_in_words(behaviour: Behaviour, told: str):
    with pytest.raises(ServerProblem, match=re.escape(told)):
        models(behaviour)


@pytest.mark.parametrize(("model", "roles"), [("base", ["system", "user"]), ("formal", ["user"])])
def test_the_base_model_is_asked_with_the_instruction_that_a_voice_gets_from_its_server(model: str, roles: list[str]):
    cards = [{"id": "base", "parent": None}, {"id": "formal", "parent": "base"}]
    asked: list[dict[str, Any]] = []

    async def behaviour(request: Request) -> None:
        if "chat" not in request.line:
            return await request.answer(json.dumps({"object": "list", "data": cards}).encode())
        asked.append(request.body)
        await writes_three_words(request)

    async def write() -> None:
        async with talking_to(behaviour) as client:
            await client.models()
            assert [answer async for answer in client.write(replace(ASK, model=model))]

    asyncio.run(write())
    assert [message["role"] for message in asked[0]["messages"]] == roles
