"""LoRA arithmetic for vLLM on a CPU: the rows of a step grouped by adapter, two small products for each linear layer.

server/cpu/lora.cpp computes where server/cpu/build.py could compile it; elsewhere torch does, product by product.
docs/decisions/cpu-serving.md has the speed of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from vllm.lora.layers import BaseLayerWithLoRA, base_linear
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

from server.cpu import build, loading, memory

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Group:
    """The rows of a step that belong to one adapter slot; a slice where they are neighbours, which needs no copy."""

    slot: int
    rows: slice | Tensor


def group_rows(slots: Tensor) -> list[Group]:
    """`slots` holds the adapter slot of each row; -1 is a row of the base model, which is in no group."""
    groups = []
    for slot in torch.unique(slots).tolist():
        if slot < 0:
            continue
        rows = (slots == slot).nonzero().squeeze(1)
        first, end = int(rows[0]), int(rows[-1]) + 1
        groups.append(Group(slot, slice(first, end) if end - first == len(rows) else rows))
    return groups


class GroupedLora(PunicaWrapperCPU):
    """vLLM's LoRA operations on a CPU, by group; the argument names are vLLM's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._compiled = build.load()
        self._groups: list[Group] = []

    def update_metadata(self, *args: Any, **options: Any) -> None:
        """vLLM calls this before each step whose rows or adapters differ from those of the step before."""
        super().update_metadata(*args, **options)
        self._groups = group_rows(self.token_lora_indices)
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
        **_: Any,
    ) -> None:
        """Add A and B to `y`. vLLM's `scale` is always 1: the adapter's own is already in B."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        if self._compiled:
            torch.ops.mailwright.add_lora(y, x, lora_a_stacked[0], lora_b_stacked[0], output_slices)
            return
        for group in self._groups:
            rows, start = x[group.rows], 0
            for all_a, all_b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                a, b = all_a[group.slot, 0], all_b[group.slot, 0]
                inner, b = torch.mm(rows.to(a.dtype), a.t()).to(y.dtype), b.to(y.dtype)
                columns = y[:, start : start + width]
                if isinstance(group.rows, slice):
                    columns[group.rows].addmm_(inner, b.t())
                else:
                    columns.index_add_(0, group.rows, torch.mm(inner, b.t()))
                start += width

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("on a CPU only whole linear layers may have LoRA")

    # vLLM's own versions would mix up adapters too. Embedding and logits have no LoRA here (LORA_MODULES), and layers
    # are not sharded on a CPU, so nothing calls these.
    add_lora_logits = add_lora_embedding = add_shrink = add_expand = _refuse


class WorkerProbe:
    """Mixed into vLLM's worker (`--worker-extension-cls`); the server asks it which arithmetic the worker uses."""

    def lora_wrapper(self) -> str:
        return str(current_platform.get_punica_wrapper())


WRAPPER = f"{GroupedLora.__module__}.{GroupedLora.__qualname__}"


def lay_out(layer: BaseLinearLayerWithLoRA) -> None:
    """Put the weights of all slots of a layer into one tensor for A and one for B, as server/cpu/lora.cpp reads them.

    vLLM has a pair for each slice of a packed layer (q, k and v): A (slots, 1, rank, inputs), B (slots, 1, outputs,
    rank). Here they become views into A (slots, slices * rank, inputs) and B (slots, rank, all outputs).
    """
    slots, _, rank, inputs = layer.lora_a_stacked[0].shape
    dtype, slices = layer.lora_a_stacked[0].dtype, len(layer.lora_a_stacked)
    widths = [b.shape[2] for b in layer.lora_b_stacked]
    all_a = memory.given_back(torch.zeros(slots, slices * rank, inputs, dtype=dtype))
    all_b = memory.given_back(torch.zeros(slots, rank, sum(widths), dtype=dtype))
    layer.lora_a_stacked = tuple(part.unsqueeze(1) for part in all_a.split(rank, 1))
    layer.lora_b_stacked = tuple(part.transpose(1, 2).unsqueeze(1) for part in all_b.split(widths, 2))
    parts = list(zip(layer.lora_a_stacked, layer.lora_b_stacked, strict=True))
    layer.set_lora = partial(loading.fill, [[(a[slot, 0], b[slot, 0]) for a, b in parts] for slot in range(slots)])


def install() -> None:
    """Patch vLLM in this process, if it computes on a CPU; a second call changes nothing."""
    if not current_platform.is_cpu():
        return
    Cpu = type(current_platform)
    if Cpu.get_punica_wrapper() == WRAPPER:
        return
    # Patch: our arithmetic instead of vLLM's (lora/ops/torch_ops/lora_ops.py). vLLM's gathers a copy of an adapter's
    # weights for every token, which is slow (vllm-project/vllm#11100). It is also wrong: a row of the base model has
    # slot -1, which selects the last slot, so that in a mixed batch the base model answers with an adapter (#48421,
    # #49656, open in 0.32). Remove when both are closed and vLLM is as fast (test_vllm_still_needs_us).
    Cpu.get_punica_wrapper = classmethod(lambda cls: WRAPPER)
    # Patch: vLLM asks the weights of a layer for their device, and with --int8 has deleted them by then. Remove when
    # `server --int8` starts without it.
    base_linear._get_lora_device = lambda layer: torch.device("cpu")
    memory.install()
    if build.load():
        _lay_out_layers()
        loading.install()
        if build.compiles_models():
            _keep_compiler(Cpu)
            _load_compiled_models()


def _lay_out_layers() -> None:
    """Patch: the weights of the slots lie where server/cpu/lora.cpp reads them. Remove together with lora.cpp."""
    before = BaseLayerWithLoRA.set_mapping

    def set_mapping(self: BaseLayerWithLoRA, punica_wrapper: Any) -> None:
        before(self, punica_wrapper)
        if isinstance(self, BaseLinearLayerWithLoRA):
            lay_out(self)

    BaseLayerWithLoRA.set_mapping = set_mapping


def _keep_compiler(Cpu: Any) -> None:
    """Patch: vLLM's platform turns its compiler off with LoRA, because its own arithmetic cannot be compiled.

    Ours can. Remove when vLLM leaves the compiler on.
    """
    before = Cpu.check_and_update_config.__func__

    def check_and_update_config(cls: Any, config: Any) -> None:
        lora, config.lora_config = config.lora_config, None
        try:
            before(cls, config)
        finally:
            config.lora_config = lora

    Cpu.check_and_update_config = classmethod(check_and_update_config)


def _load_compiled_models() -> None:
    """Patch: on a CPU vLLM 0.32 cannot load what it compiled and kept, because a plain function lacks a method.

    Every start would compile again for half a minute. Remove when a second start loads torch_compile_cache without it.
    """
    before = torch.compiler.load_compiled_function

    def load_compiled_function(*args: Any, **options: Any) -> Any:
        loaded = before(*args, **options)
        compiled = loaded._artifacts.compiled_fn
        if not hasattr(compiled, "finalize_loading"):
            compiled.finalize_loading = lambda config: None
        return loaded

    torch.compiler.load_compiled_function = load_compiled_function


def missing_from(wrappers: list[str]) -> bool:
    """Whether a worker would compute with vLLM's own CPU code; `wrappers` is what each `WorkerProbe` answered."""
    return bool(current_platform.is_cpu()) and any(wrapper != WRAPPER for wrapper in wrappers)
