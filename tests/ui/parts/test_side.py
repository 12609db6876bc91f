"""One side's answer while it is written: what a silent server, Stop and the end do to it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from ui.client import Answer
from ui.parts import side
from ui.parts.side import watched

pytestmark = pytest.mark.asyncio


class Stream:
    """Two snapshots, then silence if it `hangs`; `closed` once nobody can read on."""

    def __init__(self, hangs: bool) -> None:
        self.hangs = hangs
        self.closed = False

    async def answers(self) -> AsyncGenerator[Answer]:
        try:
            yield Answer("Dear")
            yield Answer("Dear Ada")
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def test_every_snapshot_arrives_and_the_end_closes_the_stream():
    stream = Stream(hangs=False)
    seen = [answer async for answer in watched(stream.answers(), asyncio.Event())]
    assert [answer and answer.text for answer in seen] == ["Dear", "Dear Ada"]
    assert stream.closed


async def test_a_silent_server_yields_nothing_new_until_stop_closes_the_stream(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(side, "LOOK_SECONDS", 0.01)
    stream, ended = Stream(hangs=True), asyncio.Event()
    seen = []
    async for answer in watched(stream.answers(), ended):
        seen.append(answer and answer.text)
        if answer is None:
            ended.set()
    assert seen[:3] == ["Dear", "Dear Ada", None]
    assert stream.closed
