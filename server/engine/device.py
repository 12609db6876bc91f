"""Which device vLLM computes with here, and what follows from it.

vLLM's own build decides: the CPU build never uses a GPU, the CUDA build needs one. This file reports that choice and
refuses what is neither; it does not import vLLM, whose platform object is handed in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from adapters.errors import ConfigError
from adapters.models import gpu

CPU_KV_CACHE_GIB = 1.0


@dataclass(frozen=True)
class Device:
    """`why` is one line for the user: the hardware, the number format and whose LoRA arithmetic is used."""

    cuda: bool
    kv_cache_gib: float | None
    """What the attention cache gets where nobody said; None: what vLLM finds free in 92 % of the GPU's memory."""
    why: str

    def __str__(self) -> str:
        return self.why


def choose(platform: Any, dtype: str) -> Device:
    """What `vllm.platforms.current_platform` means for this server; `dtype` is what the user asked for, or `auto`.

    Raises:
        ConfigError: it is neither a CPU nor CUDA, or cannot compute LoRA in `dtype`.
    """
    if platform.is_cuda():
        if dtype == "float32":
            raise ConfigError("--dtype float32: vLLM's LoRA kernels for GPUs have none", "leave --dtype out")
        if dtype == "auto":
            dtype = "bf16" if platform.has_device_capability(80) else "float16 (it has no bf16)"
        return Device(True, None, f"CUDA, {platform.get_device_name()}, {dtype}; vLLM's own LoRA kernels")
    if platform.is_cpu():
        # Always a size: vLLM's default on a CPU takes 92 % of the memory, and refuses to start where that is not free.
        cores = len(os.sched_getaffinity(0))
        return Device(
            False, CPU_KV_CACHE_GIB, f"CPU, {cores} cores; Mailwright's own LoRA arithmetic; {gpu.why_unused()}"
        )
    raise ConfigError(
        f"vLLM finds no CUDA GPU, and this build of it ({type(platform).__name__}) is not the one for CPUs",
        "see nvidia-smi and CUDA_VISIBLE_DEVICES, or install deploy/requirements-cpu.txt in a new environment",
    )
