"""Sampling on a CPU: vLLM alone dies of a seed whose prompt it reads in parts, and guesses random words."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("vllm")

import torch
from hypothesis import given
from hypothesis import strategies as st

from server.cpu.sampling import repeated, truncated
from tests.serving import RunningServer, running_server

REPEATED = "Twelve chairs came. Ada has twelve chairs. " * 8
"""So much of it comes again that there is always something to guess."""


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.7, 1.5]), st.integers(0, 4)), min_size=1, max_size=6))
def test_each_request_has_its_own_value_for_each_of_its_tokens(requests: list[tuple[float, int]]):
    values, counts = (torch.tensor(column) for column in zip(*requests, strict=True))
    said = repeated(values, counts.cumsum(0), int(counts.sum()), replace_from=0, replace_to=1)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    assert said.tolist() == [value or 1 for value, count in pairs for _ in range(count)]


@given(
    st.lists(st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]), min_size=1, max_size=4),
    st.sampled_from([0.01, 1.0, 4.0]),
    st.integers(0, 2**31),
)
def test_top_p_keeps_the_words_that_a_sort_keeps(shares: list[float], spread: float, seed: int):
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    p = torch.tensor(shares)
    logits = spread * torch.randn(len(shares), 5000, generator=torch.Generator().manual_seed(seed))
    by_sort = apply_top_k_top_p_pytorch(logits.clone(), None, p)
    ours = truncated(logits.clone(), None, p, apply_top_k_top_p_pytorch)
    kept = ours.isfinite()
    assert torch.equal(ours[kept], logits[kept])
    # Sums in another order may place one word on the other side.
    assert ((kept != by_sort.isfinite()).sum(1) <= 1).all()


def test_top_k_is_left_to_vllm():
    seen = []
    logits, k = torch.zeros(1, 5000), torch.tensor([3])
    truncated(logits, k, None, lambda *given: seen.append(given) or logits)
    truncated(logits, k, torch.tensor([0.9]), lambda *given: seen.append(given) or logits)
    assert [given[1] for given in seen] == [k, k]


@pytest.mark.vllm
def test_an_answer_is_the_same_with_and_without_guesses_greedy_or_nearly(server: RunningServer, tmp_path: Path):
    def told(of: RunningServer, **how: float) -> list[str]:
        answers = [of.ask(model, prompt=REPEATED, max_tokens=48, **how) for model in ("base", "formal")]
        return [answer.json()["choices"][0]["text"] for answer in answers]

    with running_server(server.base, server.store, 4, tmp_path / "log", arguments=["--speculate", "3"]) as guessing:
        greedy = told(server, temperature=0)
        assert told(guessing, temperature=0) == greedy
        # Drawn, but of the likeliest token alone.
        assert told(guessing, temperature=0.7, top_p=1e-6) == greedy
        assert guessing.metric("vllm:spec_decode_num_accepted_tokens_total") > 0


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
