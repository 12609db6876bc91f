"""Which device vLLM computes with, and what follows from it.

vLLM's own build decides: the CPU build never uses a GPU, the CUDA build needs one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from adapters.errors import ConfigError
from adapters.models import gpu

# vLLM's own default on a CPU takes 92 % of the memory, and refuses to start where that is not free.
CPU_KV_CACHE_GIB = 1.0


@dataclass(frozen=True)
class Device:
    """`description` is one line for the user: the hardware, the number format and whose LoRA arithmetic is used."""

    cuda: bool
    # The size of the attention cache without --kv-cache; None: what vLLM finds free in 92 % of the GPU's memory.
    kv_cache_gib: float | None
    description: str

    def __str__(self) -> str:
        return self.description


def choose(platform: Any, dtype: str, int8: bool = False) -> Device:
    """The device of `vllm.platforms.current_platform`; `dtype` and `int8` are the user's settings.

    Raises:
        ConfigError: it is neither a CPU nor CUDA, or cannot compute LoRA with these settings.
    """
    if platform.is_cuda():
        if dtype == "float32":
            raise ConfigError("--dtype float32: vLLM's LoRA kernels for GPUs do not have it", "leave --dtype out")
        if int8:
            raise ConfigError("--int8 is for CPUs, and vLLM here computes with CUDA", "leave --int8 out")
        if dtype == "auto":
            dtype = "bf16" if platform.has_device_capability(80) else "float16 (it has no bf16)"
        return Device(True, None, f"CUDA, {platform.get_device_name()}, {dtype}; vLLM's own LoRA kernels")
    if platform.is_cpu():
        cores = len(os.sched_getaffinity(0))
        about = f"CPU, {cores} cores; Mailwright's own LoRA arithmetic; {gpu.why_unused()}"
        return Device(False, CPU_KV_CACHE_GIB, about)
    raise ConfigError(
        f"vLLM finds no CUDA GPU, and this build of it ({type(platform).__name__}) is not the one for CPUs",
        "see nvidia-smi and CUDA_VISIBLE_DEVICES, or install deploy/requirements-cpu.txt in a new environment",
    )
