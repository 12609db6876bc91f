"""Answers with a seed on a CPU, whose prompts the engine reads in several steps: what vLLM alone dies of."""

import asyncio

import pytest

pytest.importorskip("vllm")

from tests.serving import RunningServer

PROMPTS = [f"{number} chairs came. " + "so " * 600 for number in range(6)]
"""More tokens together than the engine reads in a step."""


@pytest.mark.vllm
def test_a_seed_gives_the_same_answer_alone_and_where_the_prompt_is_read_in_parts(server: RunningServer):
    async def together() -> list[str]:
        async with server.async_client() as client:
            answers = await asyncio.gather(
                *[
                    client.completions.create(model="formal", prompt=prompt, max_tokens=16, seed=7, temperature=1)
                    for prompt in PROMPTS
                ]
            )
        return [answer.choices[0].text for answer in answers]

    told = asyncio.run(together())
    alone = [server.ask("formal", prompt=prompt, max_tokens=16, seed=7, temperature=1) for prompt in PROMPTS]
    assert told == [answer.json()["choices"][0]["text"] for answer in alone]
