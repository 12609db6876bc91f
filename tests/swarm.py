"""Clients that write with a server while its versions change, and what they may have met.

Every answer is checked: its version was one that the name meant at some moment between sending and the first byte, and
its text is what those weights write (greedy). Nothing here knows how versions change; it is told, before and after.
"""

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

TOKENS = 24
PROMPTS = ["Thank Ada for the chairs.", "Invite Ben to the fair on 3 May.", "Ask Cem for the keys of room 9."]


@dataclass
class Reign:
    """A time in which a name may have meant `version`: from before the command that made it so until after the next."""

    version: str
    since: float
    until: float = math.inf


class Reigns:
    """What each name may have meant, and when."""

    def __init__(self) -> None:
        self._reigns: dict[str, list[Reign]] = {}

    @contextmanager
    def change(self, name: str, to: set[str]) -> Iterator[None]:
        """Around a command after which `name` means the versions `to`: one, and a second while one is on trial."""
        open_now = {reign.version for reign in self._open(name)}
        reigns = self._reigns.setdefault(name, [])
        reigns += [Reign(version, time.monotonic()) for version in to - open_now]
        yield
        now = time.monotonic()
        for reign in self._open(name):
            if reign.version not in to:
                reign.until = now

    def possible(self, name: str, sent: float, first_byte: float) -> set[str]:
        return {r.version for r in self._reigns.get(name, []) if r.since <= first_byte and r.until >= sent}

    def _open(self, name: str) -> list[Reign]:
        return [reign for reign in self._reigns.get(name, []) if reign.until == math.inf]


@dataclass
class Answer:
    asked: str
    prompt: str
    sent: float
    first_byte: float = math.inf
    ended: float = math.inf
    version: str = ""
    text: str = ""
    problem: str = ""
    """Why there was none: a status, an error event, or what broke."""
    cut: bool = False
    """It began and ended neither as it should nor with an error event."""


@dataclass
class Absence:
    """When the server was being ended and started again; `asked`: not killed, so that it ends what it has begun."""

    since: float
    asked: bool
    until: float = math.inf

    def excuses(self, answer: Answer) -> bool:
        if self.since > answer.ended or self.until < answer.sent:
            return False
        # A server that is asked to end may refuse, and end an answer with an error event, but not just cut it.
        return not (self.asked and answer.cut)


@dataclass
class Swarm:
    """`expected(version, prompt)` is what that version writes, None if nobody knows."""

    url: str
    reigns: Reigns
    expected: Callable[[str, str], str | None]
    asked: list[str]
    base_names: tuple[str, ...] = ("base",)
    counts: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    away: list[Absence] = field(default_factory=list)
    tokens: int = 0

    async def run(self, clients: int, work: Awaitable[None]) -> None:
        """Have that many clients write one answer after the other until `work` is done."""
        done = asyncio.Event()
        tasks = [asyncio.create_task(self._client(number, done)) for number in range(clients)]
        try:
            await work
        finally:
            done.set()
            await asyncio.gather(*tasks)

    async def _client(self, number: int, done: asyncio.Event) -> None:
        choose = random.Random(number)
        async with httpx.AsyncClient(timeout=120) as client:
            while not done.is_set():
                answer = await self._ask(client, choose.choice(self.asked), choose.choice(PROMPTS), f"user {number}")
                self._judge(answer)
                if answer.problem:
                    await asyncio.sleep(0.1)  # not a condition to wait for: a client that was refused comes back later

    async def _ask(self, client: httpx.AsyncClient, model: str, prompt: str, user: str) -> Answer:
        answer = Answer(model, prompt, time.monotonic())
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": TOKENS,
            "temperature": 0,
            "user": user,
            "stream": True,
            "ignore_eos": True,
        }
        ended = False
        try:
            async with client.stream("POST", f"{self.url}/v1/completions", json=body) as response:
                answer.first_byte = time.monotonic()
                if response.status_code != 200:
                    answer.problem = f"{response.status_code} {(await response.aread()).decode()[:300]}"
                async for line in response.aiter_lines():
                    ended = ended or line == "data: [DONE]"
                    if line.startswith("data: {"):
                        self._read(json.loads(line.removeprefix("data: ")), answer)
        except httpx.HTTPError as exc:
            answer.cut = not answer.problem and answer.first_byte < math.inf
            answer.problem = answer.problem or f"{type(exc).__name__}"
        answer.ended = time.monotonic()
        if not ended and not answer.problem:
            answer.cut, answer.problem = True, "the stream just stopped"
        return answer

    def _read(self, event: dict, answer: Answer) -> None:
        if "error" in event:
            answer.problem = f"error event: {event['error']['message'][:200]}"
            return
        answer.version = event["model"]
        for choice in event["choices"]:
            answer.text += choice["text"]
        self.tokens = self.tokens + 1

    def _judge(self, answer: Answer) -> None:
        if answer.problem:
            if any(absence.excuses(answer) for absence in self.away):
                self.counts["refused while the server was away"] += 1
            else:
                self._fail(answer, answer.problem)
            return
        self.counts["answered"] += 1
        if answer.asked not in self.base_names:
            possible = self.reigns.possible(answer.asked, answer.sent, answer.first_byte)
            if answer.version not in possible:
                self._fail(answer, f"{answer.version} answered, possible were {sorted(possible)}")
        expected = self.expected(answer.version, answer.prompt)
        if expected is None:
            self.counts["text not compared"] += 1
        elif answer.text != expected:
            self._fail(answer, f"{answer.version} wrote something else than its weights do")

    def _fail(self, answer: Answer, why: str) -> None:
        self.counts["failed"] += 1
        self.failures.append(f"{answer.asked}: {why}")


def greedy(url: str, model: str, prompt: str) -> str:
    """What `model` writes to `prompt`."""
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=120)
    return str(answer.raise_for_status().json()["choices"][0]["text"])
