"""How vLLM samples on a CPU: repairs for requests with a seed and for guesses, and `top_p` without a sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.platforms import current_platform
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.ops import topk_topp_sampler
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

LIKELIEST = 1024
"""So many words hold nearly always the share that `top_p` asks for, of the 152,000 that a sort would put in order."""
Truncation = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def install() -> None:
    """Patch vLLM in this process, if it computes on a CPU; a second call changes nothing."""
    if not current_platform.is_cpu() or "sample_tokens" in vars(CPUModelRunner):
        return
    # Patch: to check guesses, vLLM repeats a request's temperature, top_k and top_p for every guessed token. Its
    # `expand_kernel` for CPUs (0.32) writes into a copy unless the values are 64-bit whole numbers, so that sampled
    # answers are random words. Remove when tests/server/cpu/test_sampling.py passes without it.
    rejection_sampler.expand_batch_to_tokens = repeated
    # Patch: in a step that reads only a part of a prompt, vLLM 0.32 draws a token, throws it away and sets the
    # request's generator back by its offset. Only generators of a GPU have one: a CPU's raises, and the engine ends.
    # Here nothing is drawn from such a generator. Remove when tests/server/cpu/test_sampling.py passes without it.
    before = CPUModelRunner.sample_tokens

    def sample_tokens(self: Any, grammar_output: Any) -> Any:
        generators = self.input_batch.generators
        unfinished = np.nonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])[0].tolist()
        aside = {place: generators.pop(place) for place in unfinished if place in generators}
        try:
            return before(self, grammar_output)
        finally:
            generators.update(aside)

    CPUModelRunner.sample_tokens = sample_tokens
    # Patch: vLLM sorts the whole vocabulary for `top_p`. Remove when it does not.
    sorts = topk_topp_sampler.apply_top_k_top_p
    topk_topp_sampler.apply_top_k_top_p = lambda logits, k, p: truncated(logits, k, p, sorts)


def repeated(x: Tensor, ends: Tensor, tokens: int, replace_from: int = 0, replace_to: int = 0) -> Tensor:
    """Each value of `x` (requests) once for each token of its request, with `replace_from` replaced by `replace_to`.

    `ends` (requests) counts the tokens up to the request's last one; `tokens` is their sum.
    """
    counts = ends.diff(prepend=ends.new_zeros(1))
    result = x.repeat_interleave(counts, output_size=tokens)
    return result.masked_fill(result == replace_from, replace_to)


def truncated(logits: Tensor, k: Tensor | None, p: Tensor | None, sorts: Truncation) -> Tensor:
    """`logits` (requests, words) with -inf for words beyond top_k and top_p; `sorts` is vLLM's own way to that.

    A word stays if those that are likelier hold less than p together.
    """
    if p is None or k is not None or logits.shape[1] <= LIKELIEST:
        return sorts(logits, k, p)
    rows = (p < 1).nonzero().squeeze(1)
    own, share = logits[rows], p[rows].unsqueeze(1)
    values, words = own.topk(LIKELIEST, dim=1)
    chances = (values - own.logsumexp(1, keepdim=True)).exp()
    sums = chances.cumsum(1)
    cut = torch.full_like(own, -torch.inf).scatter_(1, words, values.masked_fill(sums - chances >= share, -torch.inf))
    # Where a text may go on in very many ways, more words belong to the share.
    wide = (sums[:, -1:] < share).squeeze(1)
    if wide.any():
        cut[wide] = sorts(own[wide], None, share[wide].squeeze(1))
    logits[rows] = cut
    return logits
