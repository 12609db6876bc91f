"""Two repairs of how vLLM samples on a CPU: requests with a seed, and guesses of `--speculate`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from vllm.platforms import current_platform
from vllm.v1.sample import rejection_sampler
from vllm.v1.worker.cpu_model_runner import CPUModelRunner


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


def repeated(x: Tensor, ends: Tensor, tokens: int, replace_from: int = 0, replace_to: int = 0) -> Tensor:
    """Each value of `x` (requests) once for each token of its request, with `replace_from` replaced by `replace_to`.

    `ends` (requests) counts the tokens up to the request's last one; `tokens` is their sum.
    """
    counts = ends.diff(prepend=ends.new_zeros(1))
    result = x.repeat_interleave(counts, output_size=tokens)
    return result.masked_fill(result == replace_from, replace_to)
