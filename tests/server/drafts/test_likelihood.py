"""The probabilities of a draft's tokens are noted, and of no other request's."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from server.drafts.likelihood import install, noting


@dataclass
class Sampling:
    logprobs: int | None = None

    def clone(self) -> "Sampling":
        return Sampling(self.logprobs)


@dataclass
class Engine:
    """Writes two tokens in a stream, of log probability -1 and -3."""

    asked: list[Sampling] = field(default_factory=list)

    async def generate(self, prompt: Any, sampling_params: Sampling, request_id: str) -> AsyncIterator[Any]:
        self.asked.append(sampling_params)
        for total in (-1.0, -4.0):
            await asyncio.sleep(0)
            wanted = sampling_params.logprobs is not None
            yield SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        token_ids=[7], logprobs=[{}] if wanted else None, cumulative_logprob=total if wanted else None
                    )
                ]
            )


async def written(engine: Engine, sampling: Sampling) -> list[Any]:
    return [output.outputs[0] async for output in engine.generate("Dear Ada", sampling, "r1")]


def test_a_drafts_likelihood_is_noted_and_its_answer_is_as_without():
    engine = Engine()
    install(engine)

    async def draft() -> tuple[float, list[Any]]:
        with noting() as said:
            outputs = await asyncio.create_task(written(engine, Sampling()))
        return said.likelihood, outputs

    likelihood, outputs = asyncio.run(draft())
    assert likelihood == -2.0
    assert [(output.logprobs, output.cumulative_logprob) for output in outputs] == [(None, None)] * 2


def test_other_requests_are_asked_for_nothing_more():
    engine = Engine()
    install(engine)
    asyncio.run(written(engine, Sampling()))
    assert engine.asked == [Sampling(None)]


def test_drafts_at_the_same_time_are_told_apart():
    engine = Engine()
    install(engine)

    async def one() -> float:
        with noting() as said:
            await written(engine, Sampling())
        return said.likelihood

    async def three() -> list[float]:
        return list(await asyncio.gather(one(), one(), one()))

    assert asyncio.run(three()) == [-2.0] * 3


def test_without_a_token_the_likelihood_is_zero():
    with noting() as said:
        pass
    assert said.likelihood == 0
