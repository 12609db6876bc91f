"""Several drafts of one answer, written by the engine at once, checked as they end; the first that holds is answered.

Each draft is a request of its own to vLLM's application, so that every path, field and check is vLLM's. The others are
hung up on as soon as one holds. If none holds, the best is answered, with what was found.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.emails.checker import Signals, Verdict
from adapters.emails.tasks import Task
from server.drafts.answers import Answer, Written, noted, read
from server.drafts.asked import draft_request, task_of
from server.drafts.likelihood import noting

# A stream says so often that it lives, in a comment, which clients skip: proxies cut silent connections.
ALIVE_SECONDS = 5.0
# vLLM ends a request between two steps; one may read a long prompt.
END_SECONDS = 30.0
REQUEST_ID = b"x-request-id"

Headers = list[tuple[bytes, bytes]]
# adapters/emails/checker.py
Check = Callable[[Task, str, bool, Signals], Verdict]
# Drafts written, whether the one that is answered holds, and the seconds that all took.
Count = Callable[[int, bool, float], None]


@dataclass(frozen=True)
class Draft:
    """One that vLLM wrote; `number` is its place among those that ended, from 1. Without a verdict it is an error."""

    number: int
    answer: Answer
    written: Written
    verdict: Verdict | None

    @property
    def holds(self) -> bool:
        return self.verdict is not None and self.verdict.holds

    @property
    def rank(self) -> float:
        return self.verdict.probability if self.verdict else -1.0


class Drafts:
    """`app` is vLLM's application, `check` judges a draft."""

    def __init__(self, app: ASGIApp, check: Check) -> None:
        self._app = app
        self._check = check

    async def answer(
        self, scope: Scope, request: dict[str, Any], count: int, receive: Receive, send: Send, done: Count
    ) -> None:
        """Write `count` drafts for `request` and answer the best of them; `done` is called before the answer leaves."""
        began = time.monotonic()
        round_ = _Round(self._app, self._check, scope, request)
        gone = asyncio.ensure_future(_gone(receive))
        stream = _Stream(send) if request.get("stream") else None
        try:
            drafts = await round_.written(count, gone, stream)
            if drafts:
                await self._give(scope["path"], drafts, round_.unfinished, count, began, send, stream, done)
        finally:
            gone.cancel()
            await round_.end()

    async def _give(
        self,
        path: str,
        drafts: list[Draft],
        unfinished: int,
        count: int,
        began: float,
        send: Send,
        stream: _Stream | None,
        done: Count,
    ) -> None:
        best = max(drafts, key=lambda draft: draft.rank)
        if best.verdict is None:
            # An error of vLLM's, as it came.
            return await _send(best.answer, best.answer.bodies, send, stream)
        tokens = sum(draft.written.tokens for draft in drafts) + unfinished * best.written.tokens
        done(len(drafts) + unfinished, best.holds, time.monotonic() - began)
        bodies = noted(path, best.answer, _note(drafts, best, count), tokens)
        await _send(best.answer, bodies, send, stream)


class _Round:
    """The drafts of one request while they are written."""

    def __init__(self, app: ASGIApp, check: Check, scope: Scope, request: dict[str, Any]) -> None:
        self._app, self._check = app, check
        self._scope, self._request = scope, request
        self._task = task_of(scope["path"], request)
        self._over = asyncio.Event()
        self._ended = 0
        self._waiting: set[asyncio.Future[Draft]] = set()

    async def written(self, count: int, gone: asyncio.Future[None], stream: _Stream | None) -> list[Draft]:
        """Those that ended until one held; empty if the client hung up."""
        self._waiting = {asyncio.ensure_future(self._draft(number)) for number in range(count)}
        drafts: list[Draft] = []
        while self._waiting and not any(draft.holds for draft in drafts):
            first = asyncio.FIRST_COMPLETED
            either: set[asyncio.Future[Any]] = {*self._waiting, gone}
            ended, _ = await asyncio.wait(either, timeout=ALIVE_SECONDS, return_when=first)
            if gone in ended:
                return []
            self._waiting -= ended
            drafts += [draft.result() for draft in ended]
            if stream and not any(draft.verdict is None for draft in drafts):
                await stream.alive(f"{len(drafts)} of {count} drafts written")
        # vLLM takes this for a client that is gone, and ends what it still writes.
        self._over.set()
        return drafts

    @property
    def unfinished(self) -> int:
        return len(self._waiting)

    async def end(self) -> None:
        """Wait until vLLM has ended what was not written to its end."""
        self._over.set()
        if self._waiting:
            _, late = await asyncio.wait(self._waiting, timeout=END_SECONDS)
            for draft in late:
                draft.cancel()

    async def _draft(self, number: int) -> Draft:
        with noting() as said:
            answer = await self._ask(draft_request(self._request, number), number)
        nothing = Written("", False, 0)
        try:
            written = read(self._scope["path"], answer) if answer.ok else nothing
        except ValueError:
            written = nothing
        self._ended += 1
        place = self._ended
        # After a hang-up the text is a part of one.
        whole = written is not nothing and not self._over.is_set()
        signals = Signals(said.likelihood)
        verdict = self._check(self._task, written.text, written.ended, signals) if whole else None
        return Draft(place, answer, written, verdict)

    async def _ask(self, request: dict[str, Any], number: int) -> Answer:
        """What vLLM answers to one request, all of it."""
        body = json.dumps(request).encode()
        status, headers, bodies = 500, [], []

        async def hung_up() -> Message:
            await self._over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            elif message.get("body"):
                bodies.append(message["body"])

        sent = [(name, _own(name, value, number)) for name, value in self._scope["headers"]]
        length = (b"content-length", str(len(body)).encode())
        await self._app({**self._scope, "headers": [*sent, length]}, replay(body, hung_up), send)
        return Answer(status, headers, bodies)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` once, and then the client's own messages: vLLM waits there for it to hang up."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


class _Stream:
    """A stream of server-sent events, which begins with its first comment."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def begin(self, headers: Headers) -> None:
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def alive(self, comment: str) -> None:
        await self.begin([(b"content-type", b"text/event-stream; charset=utf-8")])
        await self._send({"type": "http.response.body", "body": f": {comment}\n\n".encode(), "more_body": True})


def _own(name: bytes, value: bytes, number: int) -> bytes:
    """vLLM makes a request's name from this header, and refuses a second one of the same name."""
    return value + b"-%d" % number if name.lower() == REQUEST_ID else value


def _note(drafts: list[Draft], best: Draft, asked: int) -> dict[str, Any]:
    verdict = best.verdict
    assert verdict is not None
    return {
        "drafts": asked,
        "checked": len(drafts),
        "given": best.number,
        "holds": verdict.holds,
        "probability": round(verdict.probability, 3),
        "findings": [asdict(finding) for finding in verdict.findings],
    }


async def _send(answer: Answer, bodies: Sequence[bytes], send: Send, stream: _Stream | None) -> None:
    headers = [(name, value) for name, value in answer.headers if name.lower() not in (b"content-length", REQUEST_ID)]
    if stream and answer.ok:
        await stream.begin(headers)
    elif not (stream and stream.begun):
        length = [(b"content-length", str(sum(map(len, bodies))).encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers + length})
    for body in bodies:
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Returns when the client has hung up."""
    with suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
