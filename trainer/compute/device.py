"""Which device and number format this machine trains and evaluates with, and why."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapters.errors import ConfigError
from adapters.models import gpu

# Before torch counts them: one run trains on one GPU, and TRL refuses to see several without a launcher.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")

import torch


@dataclass(frozen=True)
class Device:
    """`why` is one line for the user: the hardware, the number format and the reasons."""

    kind: Literal["cpu", "cuda"]
    # Of the frozen base model; PEFT keeps the adapter's weights in float32.
    dtype: Literal["bfloat16", "float16", "float32"]
    # It keeps the emails of a batch apart by itself, so that they need no padding.
    flash_attention: bool
    why: str

    def __str__(self) -> str:
        return self.why

    @property
    def value_bytes(self) -> int:
        """Of a number in `dtype`."""
        return 4 if self.dtype == "float32" else 2


def choose() -> Device:
    """The device of this process; raises ConfigError if several GPUs are visible."""
    return _cuda() if torch.cuda.is_available() else _cpu()


def _cuda() -> Device:
    if torch.cuda.device_count() > 1:
        visible = os.environ["CUDA_VISIBLE_DEVICES"]
        raise ConfigError(
            f"a run uses one GPU, and CUDA_VISIBLE_DEVICES={visible} shows {torch.cuda.device_count()}",
            f"choose one: CUDA_VISIBLE_DEVICES={visible.partition(',')[0]}",
        )
    from transformers.utils import is_flash_attn_2_available

    name = torch.cuda.get_device_name()
    # By default torch also counts bf16 that it emulates, on a T4 for one.
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return Device("cuda", "float16", False, f"CUDA, {name}, float16 (it has no bf16) and PyTorch's attention")
    if is_flash_attn_2_available(kernels_fallback_ok=True):
        return Device("cuda", "bfloat16", True, f"CUDA, {name}, bf16, flash attention on batches without padding")
    return Device(
        "cuda", "bfloat16", False, f"CUDA, {name}, bf16, PyTorch's attention (`pip install kernels` adds a faster one)"
    )


def _cpu() -> Device:
    _keep_freed_memory()
    cores = len(os.sched_getaffinity(0))
    reason = gpu.why_unused()
    if torch.version.cuda:
        reason = f"torch for CUDA {torch.version.cuda} finds no GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES"
    for feature, supported in {
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported,
        "amx_tile": torch.cpu._is_amx_tile_supported,
    }.items():
        if supported():
            return Device("cpu", "bfloat16", False, f"CPU, {cores} cores, bf16 ({feature} in hardware); {reason}")
    # Without it in hardware, bf16 is over twice as slow as float32.
    return Device("cpu", "float32", False, f"CPU, {cores} cores, float32 (no bf16 in hardware); {reason}")


def _keep_freed_memory() -> None:
    # glibc gives one step's memory to the next, not back to the system: 20,000 to 170,000 page faults a training step
    # instead of 700,000, 14 % more tokens a second (SmolLM2-135M, batch 8, 2 cores, medians of 8 steps each).
    c = ctypes.CDLL(None)
    if hasattr(c, "mallopt"):
        # M_MMAP_MAX: no block of its own for a large tensor; M_TRIM_THRESHOLD: never smaller again (mallopt(3)).
        c.mallopt(-4, 0)
        c.mallopt(-1, -1)


def processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
