"""The real transformers on a tiny random Llama, compared with its own `generate`."""

from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from trainer.compute import decoding
from trainer.compute.attention import ATTENTION
from trainer.compute.decoding import decode, loops

PROMPTS = [[5, 9, 30, 31], [7], [40, 41, 42, 43, 44, 45, 46, 47, 48], [12, 13]]


def generated(stock: Any, prompt: list[int], limit: int) -> list[int]:
    with torch.inference_mode():
        written = stock.generate(torch.tensor([prompt]), max_new_tokens=limit, do_sample=False, eos_token_id=-1)
    return written[0, len(prompt) :].tolist()


def written(model: Any, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    with torch.inference_mode():
        return decode(model, prompts, **{"ends": (), "limit": 20, **options})


def test_greedy_texts_are_those_of_transformers_whatever_shares_their_batch(ours: Any, stock: Any):
    expected = [generated(stock, prompt, 20) for prompt in PROMPTS]
    assert written(ours, PROMPTS) == expected
    assert [written(ours, [prompt])[0] for prompt in PROMPTS] == expected


def test_prompts_that_begin_alike_are_read_together_and_written_as_alone(ours: Any, stock: Any):
    first, second = [*range(1, 81)], [*range(80, 0, -1)]
    prompts = [[*first, 5], [*second, 7, 9], [4], [*first, 6, 8, 3], [*second, 2], [3, 2, 1]]
    assert decoding.alike(prompts) == [[0, 3], [4, 1], [5, 2]]
    assert written(ours, prompts) == [generated(stock, prompt, 20) for prompt in prompts]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=8))
def test_every_prompt_is_read_once(endings: list[list[int]]):
    prompts = [[ending[0]] * 70 + ending if len(ending) > 2 else ending for ending in endings]
    assert sorted(chain.from_iterable(decoding.alike(prompts))) == [*range(len(prompts))]


def test_a_text_that_ends_leaves_the_others_as_they_are(ours: Any):
    full = written(ours, PROMPTS)
    end = full[0][6]
    cut = [text[: text.index(end) + 1] if end in text else text for text in full]
    assert written(ours, PROMPTS, ends={end}) == cut
    assert len(cut[0]) <= 7


def test_every_token_of_every_text_is_counted(ours: Any):
    steps: list[int] = []
    texts = written(ours, PROMPTS, ends={written(ours, PROMPTS)[0][3]}, step=steps.append)
    assert sum(steps) == sum(map(len, texts))
    assert steps == sorted(steps, reverse=True)


def test_a_seed_gives_the_same_texts_again_and_another_seed_others(ours: Any):
    def sampled(seed: int) -> list[list[int]]:
        return written(ours, PROMPTS, temperature=1.0, generator=torch.Generator().manual_seed(seed))

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_a_text_in_a_loop_leaves_the_others_as_they_are(ours: Any, monkeypatch: pytest.MonkeyPatch):
    full = written(ours, PROMPTS)
    monkeypatch.setattr(decoding, "loops", lambda text: text[:3] == full[1][:3])
    assert written(ours, PROMPTS) == [full[0], full[1][:3], full[2], full[3]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.lists(st.integers(0, 9), max_size=20))
def test_a_piece_that_came_three_times_in_a_row_is_a_loop(piece: list[int], before: list[int]):
    times = max(3, -(-48 // len(piece)))
    assert loops(before + times * piece)


@given(st.lists(st.integers(), unique=True, max_size=400))
def test_different_tokens_are_no_loop(tokens: list[int]):
    assert not loops(tokens)


@pytest.mark.parametrize(
    "tokens", [[], [1] * 47, [*range(40), *range(40)], [*range(30), 99, *range(30), 99, *range(30)]]
)
def test_a_few_repeats_are_no_loop(tokens: list[int]):
    assert not loops(tokens)


def test_a_model_that_keeps_a_window_of_what_it_reads_writes_what_transformers_writes():
    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
    )
    stock = MistralForCausalLM(config).eval()
    expected = [generated(stock, prompt, 20) for prompt in PROMPTS]
    stock.set_attn_implementation(ATTENTION)
    assert written(stock, PROMPTS) == expected
