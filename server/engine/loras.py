"""vLLM's engine as the place where versions are loaded: each is known by its exact name, a number and its directory.

vLLM's own resolvers are not used: they keep a lock for every name that a client makes up, and number every attempt, so
that the remains of a failed one could not be removed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from adapters.store.version import Version
from server.engine.residency import Reasons


class Loras:
    """`state` is that of vLLM's application; `changed` is called after each change to what the engine holds."""

    def __init__(self, state: Any, changed: Callable[[], None]) -> None:
        self._state = state
        self._changed = changed
        self._numbers = itertools.count(1)

    async def load(self, version: Version) -> Reasons:
        from vllm.lora.request import LoRARequest

        # Never load_inplace: it reads the files again at every step.
        request = LoRARequest(version.id, next(self._numbers), str(version.path))
        engine = self._state.engine_client
        try:
            await engine.add_lora(request)
        except Exception as exc:  # whatever vLLM raises for a bad adapter, its slot must be free again
            if engine.errored:
                raise
            await engine.remove_lora(request.lora_int_id)
            return [f"vLLM could not load it ({type(exc).__name__}); the server's log says why"]
        finally:
            self._changed()
        self._state.openai_serving_models.lora_requests[version.id] = request
        return []

    async def unload(self, version: Version) -> None:
        request = self._state.openai_serving_models.lora_requests.pop(version.id)
        await self._state.engine_client.remove_lora(request.lora_int_id)
        self._changed()
