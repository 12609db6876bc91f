"""A run beside other programs: it yields to them, and computes with as many threads as they leave cores free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adapters import free_cores

# Of the priorities from 0 (usual) to 19 (lowest); docs/decisions/cpu-serving.md has what others cost.
NICENESS = 10


def yield_to_others() -> str:
    """Lower the priority of this thread, and so of all that it starts, before torch is imported.

    Returns a line for the user.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", free_cores.SPINS)
    if not hasattr(os, "setpriority"):
        return "as every program"
    lowered = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, lowered)
    return f"{lowered} of 19, so that other programs come first; fewer threads while they need a core"


@contextmanager
def following_free_cores(model: Any) -> Iterator[None]:
    """Within it, each layer of `model` computes, forward and backward, with as many threads as there are free cores.

    A run of one thread stays as it is. Afterwards there are as many threads as before.
    """
    import torch
    from transformers.modeling_layers import GradientCheckpointingLayer

    most = torch.get_num_threads()
    if most == 1 or model.device.type != "cpu" or not free_cores.readable():
        yield
        return
    free = free_cores.FreeCores(most)

    def follow(*_: Any) -> None:
        if free.changed():
            torch.set_num_threads(free.threads)

    def forward(layer: Any, inputs: Any, output: Any) -> None:
        follow()
        states = output[0] if isinstance(output, tuple) else output
        if states.requires_grad:
            states.register_hook(follow)

    # A step takes seconds, a layer milliseconds; transformers has this class for the layers of every model.
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    hooks = [layer.register_forward_hook(forward) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        torch.set_num_threads(most)
