"""How an adapter gets into vLLM's memory on a CPU: its file is mapped, and each tensor is copied once, into a slot.

vLLM reads every tensor by itself, copies each B to apply the adapter's scale, and zeroes a slot before it fills it:
more than twice the time, in which no token is written. adapters/models/validate.py has checked the file before.
"""

from __future__ import annotations

import mmap
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.lora.lora_model import LoRAModel
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.utils import parse_fine_tuned_lora_name

from adapters.models.tensors import header_of
from adapters.store.version import WEIGHTS

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class Scaled(NamedTuple):
    """B (outputs, rank) as the file has it, and the factor that `fill` applies."""

    weights: Tensor
    scale: float


def read(
    directory: str,
    expected_modules: set[str],
    peft_helper: PEFTHelper,
    *,
    lora_model_id: int,
    dtype: torch.dtype,
    weights_mapper: Any = None,
    **_: Any,
) -> LoRAModel:
    """vLLM's `LoRAModel.from_local_checkpoint`, with its argument names; every B is `Scaled`.

    Raises:
        ValueError: the file is damaged, or has tensors of other modules than `expected_modules`.
    """
    file = Path(directory) / WEIGHTS
    header = header_of(file)
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    layers: dict[str, LoRALayerWeights] = {}
    for tensor in header.tensors:
        name, is_a = parse_fine_tuned_lora_name(tensor.name, weights_mapper)
        if name.rpartition(".")[2] not in expected_modules:
            raise ValueError(f"tensor {tensor.name!r} belongs to none of {', '.join(sorted(expected_modules))}")
        layer = layers.get(name)
        if layer is None:
            # PEFT's config names a module with its own rank or scale as it was before the mapping.
            own = parse_fine_tuned_lora_name(tensor.name)[0] if weights_mapper else name
            rank, scale = peft_helper.get_rank_and_scaling(own)
            # vLLM gets the scale 1.0, because it would otherwise multiply in memory.
            layer = layers[name] = LoRALayerWeights(name, rank, peft_helper.lora_alpha, None, Scaled(None, scale), 1.0)
        stored, count = DTYPES[tensor.dtype], prod(tensor.shape)
        weights = torch.frombuffer(mapped, dtype=stored, count=count, offset=tensor.start).view(tensor.shape).to(dtype)
        if is_a:
            layer.lora_a = weights
        else:
            layer.lora_b = layer.lora_b._replace(weights=weights)
    return LoRAModel(lora_model_id, peft_helper.r, layers)


def fill(slots: list[list[tuple[Tensor, Tensor]]], slot: int, lora_a: Any, lora_b: Any) -> None:
    """vLLM's `set_lora`: copy an adapter's A and B into a slot; `slots` has their places for every slot and slice.

    A packed layer gives lists, with None for a slice without LoRA.
    """
    if not isinstance(lora_a, list):
        lora_a, lora_b = [lora_a], [lora_b]
    for (slot_a, slot_b), a, b in zip(slots[slot], lora_a, lora_b, strict=True):
        # vLLM warms up with adapters of zeros in slots of zeros: what is not written takes no memory.
        if isinstance(b, Tensor):
            continue
        rank = 0 if a is None else len(a)
        if rank < len(slot_a):
            slot_a.zero_()
            slot_b.zero_()
            slot_a, slot_b = slot_a[:rank], slot_b[:, :rank]
        if rank:
            slot_a.copy_(a)
            slot_b.copy_(b.weights)
            if b.scale != 1.0:
                slot_b.mul_(b.scale)


def install() -> None:
    """Patch: vLLM loads adapters with `read`. Remove when vLLM maps the file; server/cpu/lora.py puts `fill` to use."""
    LoRAModel.from_local_checkpoint = staticmethod(read)
