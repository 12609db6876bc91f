"""Which device and number format this machine computes with: the same answer for training and for evaluation.

This file does not know models.
"""

from __future__ import annotations

import torch


def on_gpu() -> bool:
    return bool(torch.cuda.is_available())


def has_bf16() -> bool:
    """Whether bf16 arithmetic is in hardware; on a CPU without it, bf16 is over twice as slow as float32."""
    if on_gpu():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
