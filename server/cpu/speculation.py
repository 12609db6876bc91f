"""Guessing ahead on a CPU: vLLM's rejection sampler divides by a temperature that it never wrote.

To check guesses, vLLM 0.32 repeats each request's temperature, top_k and top_p for every guessed token. On a CPU its
`expand_kernel` writes into a copy of the result unless that holds 64-bit whole numbers, so that sampled answers (greedy
ones have no temperature) came out as random words. Here torch repeats them. This file knows neither HTTP nor adapters.
"""

from __future__ import annotations

from torch import Tensor
from vllm.platforms import current_platform
from vllm.v1.sample import rejection_sampler


def install() -> None:
    """Have this process's rejection sampler use `repeated` on a CPU; again is harmless."""
    if current_platform.is_cpu():
        rejection_sampler.expand_batch_to_tokens = repeated


def repeated(x: Tensor, ends: Tensor, tokens: int, replace_from: int = 0, replace_to: int = 0) -> Tensor:
    """Each of `x` (requests) as often as its request has tokens; `ends` (requests) counts the `tokens` up to its last.

    Where `x` is `replace_from`, the result (tokens) has `replace_to`.
    """
    counts = ends.diff(prepend=ends.new_zeros(1))
    result = x.repeat_interleave(counts, output_size=tokens)
    return result.masked_fill(result == replace_from, replace_to)
