"""LoRA arithmetic for vLLM on a CPU: the rows of a step grouped by adapter, two small products for each linear layer.

vLLM's own CPU code (`lora/ops/torch_ops/lora_ops.py`) gathers a copy of an adapter's weights for every token. That is
slow, and it is wrong: a row of the base model carries the slot index -1, which selects the *last* slot, so that in a
mixed batch the base model answers with somebody's adapter (vllm-project/vllm#48421, #49656, open in 0.32). Here the
rows are grouped once a step, and rows without an adapter belong to no group: nothing touches them.

Where server/cpu/build.py could compile server/cpu/lora.cpp, that computes, and vLLM's compiler stays on, which vLLM
itself turns off with LoRA on a CPU. Elsewhere torch computes, product by product. DECISIONS.md has what each is worth.
This file knows neither HTTP nor the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from vllm.lora.layers import BaseLayerWithLoRA, base_linear
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

from server.cpu import build, loading

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Group:
    """The rows of a step that one adapter slot computes; a slice where they are neighbours, which needs no copy."""

    slot: int
    rows: slice | Tensor


def group_rows(slots: Tensor) -> list[Group]:
    """`slots` holds the adapter slot of each row, or -1 for a row of the base model, which is in no group."""
    groups = []
    for slot in torch.unique(slots).tolist():
        if slot < 0:
            continue
        rows = (slots == slot).nonzero().squeeze(1)
        first, end = int(rows[0]), int(rows[-1]) + 1
        groups.append(Group(slot, slice(first, end) if end - first == len(rows) else rows))
    return groups


def shrink(x: Tensor, weights_a: Tensor, group: Group, scale: float) -> Tensor:
    """The group's rows of `x`, times its slot of `weights_a` (slots, 1, rank, inputs)."""
    a = weights_a[group.slot, 0]
    product = torch.mm(x[group.rows].to(a.dtype), a.t())
    return product if scale == 1.0 else product * scale


def expand(y: Tensor, columns: slice, inner: Tensor, weights_b: Tensor, group: Group, add: bool = True) -> None:
    """Add (or write) `inner` times the group's slot of `weights_b` (slots, 1, outputs, rank) to its rows of `y`."""
    product = inner.to(y.dtype), weights_b[group.slot, 0].to(y.dtype).t()
    if not add:
        y[group.rows, columns] = torch.mm(*product)
    elif isinstance(group.rows, slice):
        y[group.rows, columns].addmm_(*product)
    else:
        y[:, columns].index_add_(0, group.rows, torch.mm(*product))


class GroupedLora(PunicaWrapperCPU):
    """Every operation that vLLM asks of a LoRA wrapper on a CPU, by group.

    The argument names are vLLM's. `apply_lora_full_linear` (classifier heads) stays vLLM's: it masks base rows itself.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._compiled = build.load()
        self._token_groups: list[Group] = []
        self._sampler_groups: list[Group] = []

    def update_metadata(self, *args: Any, **options: Any) -> None:
        """Called before a step that has other rows, or other adapters, than the one before."""
        super().update_metadata(*args, **options)
        self._token_groups = group_rows(self.token_lora_indices)
        self._sampler_groups = group_rows(self.sampler_indices)
        if self._compiled:
            torch.ops.mailwright.set_rows(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Tensors,
        lora_b_stacked: Tensors,
        scale: float,
        output_slices: tuple[int, ...],
        *,
        add_inputs: bool = True,
        **_: Any,
    ) -> None:
        y, x = _rows(y), _rows(x)
        if self._compiled:
            torch.ops.mailwright.add_lora(y, x, lora_a_stacked[0], lora_b_stacked[0], output_slices)
            return
        for group in self._token_groups:
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                expand(y, slice(start, start + width), shrink(x, a, group, scale), b, group, add_inputs)
                start += width

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **_: Any
    ) -> None:
        # The model and the adapter may pad the vocabulary differently.
        width = min(y.shape[-1], lora_b_stacked.shape[-2])
        for group in self._sampler_groups:
            inner = shrink(_rows(x), lora_a_stacked, group, scale)
            expand(_rows(y), slice(0, width), inner, lora_b_stacked[:, :, :width], group)

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **_: Any
    ) -> None:
        for group in self._token_groups:
            expand(y, slice(None), x[group.rows], lora_b_stacked, group, add_inputs)

    def add_shrink(self, y: Tensors | Tensor, x: Tensor, lora_a_stacked: Tensors, scale: float, **_: Any) -> None:
        for target, a in zip(y, lora_a_stacked, strict=True):
            for group in self._token_groups:
                _rows(target)[group.rows, : a.shape[-2]] = shrink(_rows(x), a, group, scale).to(target.dtype)

    def add_expand(
        self,
        y: Tensor,
        x: Tensors | Tensor,
        lora_b_stacked: Tensors,
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **_: Any,
    ) -> None:
        for group in self._token_groups:
            start = offset_start
            for inner, b, width in zip(x, lora_b_stacked, output_slices, strict=True):
                expand(_rows(y), slice(start, start + width), _rows(inner)[group.rows], b, group, add_inputs)
                start += width


class WorkerProbe:
    """Mixed into vLLM's worker (`--worker-extension-cls`), so that the server can ask which arithmetic it uses."""

    def lora_wrapper(self) -> str:
        return str(current_platform.get_punica_wrapper())


WRAPPER = f"{GroupedLora.__module__}.{GroupedLora.__qualname__}"


def lay_out(layer: BaseLinearLayerWithLoRA) -> None:
    """Put the weights of all slots where server/cpu/lora.cpp looks for them; vLLM writes into them as before.

    A layer that is several in one, as q, k and v, has a tensor for each in vLLM: A (slots, 1, rank, inputs) and B
    (slots, 1, outputs, rank). Here those of A are parts of one (slots, slices * rank, inputs), and those of B of one
    (slots, rank, all outputs).
    """
    slots, _, rank, inputs = layer.lora_a_stacked[0].shape
    dtype, slices = layer.lora_a_stacked[0].dtype, len(layer.lora_a_stacked)
    widths = [b.shape[2] for b in layer.lora_b_stacked]
    all_a = torch.zeros(slots, slices * rank, inputs, dtype=dtype)
    all_b = torch.zeros(slots, rank, sum(widths), dtype=dtype)
    layer.lora_a_stacked = tuple(part.unsqueeze(1) for part in all_a.split(rank, 1))
    layer.lora_b_stacked = tuple(part.transpose(1, 2).unsqueeze(1) for part in all_b.split(widths, 2))
    parts = list(zip(layer.lora_a_stacked, layer.lora_b_stacked, strict=True))
    layer.set_lora = partial(loading.fill, [[(a[slot, 0], b[slot, 0]) for a, b in parts] for slot in range(slots)])


def install() -> None:
    """Make this process's CPU platform name our arithmetic; again is harmless. Elsewhere vLLM's kernels stay."""
    if not current_platform.is_cpu():
        return
    Cpu = type(current_platform)
    if Cpu.get_punica_wrapper() == WRAPPER:
        return
    Cpu.get_punica_wrapper = classmethod(lambda cls: WRAPPER)
    # vLLM asks the weights, and has given away those of 8 bits by then.
    base_linear._get_lora_device = lambda layer: torch.device("cpu")
    if build.load():
        _lay_out_layers()
        loading.install()
        if build.compiles_models():
            _keep_compiler(Cpu)
            _load_what_was_compiled()


def _lay_out_layers() -> None:
    before = BaseLayerWithLoRA.set_mapping

    def set_mapping(self: BaseLayerWithLoRA, punica_wrapper: Any) -> None:
        before(self, punica_wrapper)
        if isinstance(self, BaseLinearLayerWithLoRA):
            lay_out(self)

    BaseLayerWithLoRA.set_mapping = set_mapping


def _keep_compiler(Cpu: Any) -> None:
    """With LoRA, vLLM's platform turns its compiler off, which its own CPU code for LoRA would break; ours does not."""
    before = Cpu.check_and_update_config.__func__

    def check_and_update_config(cls: Any, config: Any) -> None:
        lora, config.lora_config = config.lora_config, None
        try:
            before(cls, config)
        finally:
            config.lora_config = lora

    Cpu.check_and_update_config = classmethod(check_and_update_config)


def _load_what_was_compiled() -> None:
    """vLLM 0.32 keeps on disk what it compiled, but on a CPU cannot load it: what is a plain function there lacks a
    method. Without this every start compiles again, which takes half a minute."""
    before = torch.compiler.load_compiled_function

    def load_compiled_function(*args: Any, **options: Any) -> Any:
        loaded = before(*args, **options)
        compiled = loaded._artifacts.compiled_fn
        if not hasattr(compiled, "finalize_loading"):
            compiled.finalize_loading = lambda config: None
        return loaded

    torch.compiler.load_compiled_function = load_compiled_function


def missing_from(wrappers: list[str]) -> bool:
    """Whether one of the workers would compute with vLLM's own CPU code; `wrappers` is what their probes said."""
    return bool(current_platform.is_cpu()) and any(wrapper != WRAPPER for wrapper in wrappers)


def _rows(tensor: Tensor) -> Tensor:
    return tensor.view(-1, tensor.shape[-1])
