"""Seeds on a CPU: vLLM's engine dies of a request with a seed whose prompt it reads in several steps.

In a step that reads only a part of a prompt, vLLM 0.32 draws a token all the same, throws it away and turns the
request's generator back by its offset, which only generators of a GPU have (`CPU Generator does not use offset`, and
the engine ends). Prompts are read in parts as soon as several come at once. Here such a request's generator is put
aside for the step, so that nothing is drawn from it. This file knows neither HTTP nor adapters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_model_runner import CPUModelRunner


def install() -> None:
    """Make this process's CPU worker keep those generators as they are; again is harmless."""
    if not current_platform.is_cpu() or "sample_tokens" in vars(CPUModelRunner):
        return
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
