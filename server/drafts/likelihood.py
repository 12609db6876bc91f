"""How likely a writer found each draft: the engine's own probabilities of its tokens, noted while they are written.

vLLM's handlers answer these only to a request that asks for log probabilities, and a draft's client did not. So the
engine is asked for them where a draft is being written, and what it says goes to the draft's `Noted` alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Noted:
    """Of one draft; `tokens` are those that the engine wrote."""

    def __init__(self) -> None:
        self.tokens = 0
        self.nats = 0.0

    @property
    def likelihood(self) -> float:
        """The mean log probability of a token; 0 before there is one."""
        return self.nats / max(1, self.tokens)


_noting: ContextVar[Noted | None] = ContextVar("noting", default=None)


@contextmanager
def noting() -> Iterator[Noted]:
    """What the engine writes for this task, and for those that it starts, is noted."""
    noted = Noted()
    token = _noting.set(noted)
    try:
        yield noted
    finally:
        _noting.reset(token)


def install(engine: Any) -> None:
    """Patch: `engine.generate` notes what it writes for a draft. vLLM has no hook for an answer's probabilities."""
    before = engine.generate

    def generate(prompt: Any, sampling_params: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
        noted = _noting.get()
        if noted is None or sampling_params.logprobs is not None:
            return before(prompt, sampling_params, *args, **options)  # type: ignore[no-any-return]
        # 0 others beside the token that was drawn.
        sampling_params = sampling_params.clone()
        sampling_params.logprobs = 0
        return _noted(before(prompt, sampling_params, *args, **options), noted)

    engine.generate = generate


async def _noted(outputs: AsyncIterator[Any], noted: Noted) -> AsyncIterator[Any]:
    async for output in outputs:
        for written in output.outputs:
            noted.tokens += len(written.token_ids)
            noted.nats = written.cumulative_logprob or noted.nats
            # As a request that did not ask for them has it.
            written.logprobs = written.cumulative_logprob = None
        yield output
