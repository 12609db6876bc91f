"""The loss of a batch on a CPU without wasted work: one row of tokens, no padding, a shared beginning computed once.

Loss and gradients are those of padded rows, as tests/trainer/compute/test_cpu_loss.py shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn.functional import linear

from trainer.compute.attention import Layout
from trainer.compute.head_loss import losses_at
from trainer.compute.packed import Packed


def completion_losses(model: Any, inputs: dict[str, Tensor], autocast: bool) -> Tensor:
    """The cross entropy of each completion token, row after row, in nats; [S].

    `model` is loaded with ATTENTION; `inputs` are TRL's, each [batch, tokens]: `input_ids`, `labels` (-100 where
    nothing is scored) and, where rows are padded on the right, `attention_mask`.

    Raises:
        RuntimeError: the model does not pass the layout to its attention, and its loss would be wrong.
    """
    ids_BT, labels_BT = inputs["input_ids"], inputs["labels"]
    mask_BT = inputs.get("attention_mask")
    lengths = [ids_BT.shape[1]] * len(ids_BT) if mask_BT is None else mask_BT.sum(1).tolist()
    shared = _shared(ids_BT, labels_BT, lengths)
    layout = Layout(shared, [length - shared for length in lengths])
    rows = [slice(shared, length) for length in lengths]
    ids_N = torch.cat([ids_BT[0, :shared], *(ids_BT[row, part] for row, part in enumerate(rows))])
    # The label of the next token; the last one of a row has none.
    next_BT = labels_BT.roll(-1, 1)
    next_BT[:, -1] = -100
    next_N = torch.cat([ids_BT.new_full([shared], -100), *(next_BT[row, part] for row, part in enumerate(rows))])
    scored_N = next_N != -100
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        nats_S = losses_at(model, ids_N[None], layout, scored_N.nonzero()[:, 0], next_N[scored_N])
    layout.check_read(model)
    return nats_S


def _shared(ids_BT: Tensor, labels_BT: Tensor, lengths: list[int]) -> int:
    """How many tokens all rows begin with; the one that predicts a completion's first token is not shared."""
    if len(lengths) == 1:
        return 0
    same_T = (ids_BT == ids_BT[0]).all(0) & (labels_BT.roll(-1, 1) == -100).all(0)
    return int(same_T[: min(lengths) - 1].long().cumprod(0).sum())


class _LoraLinear(torch.autograd.Function):  # type: ignore[misc]  # torch gives it no type
    """x W' + scale x A' B', added in place; W is frozen and has no gradient."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, base: nn.Linear, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
        xa_NR = x_NI @ a_RI.T
        packed: Packed | None = getattr(base, "packed", None)
        y_NO = packed.forward(x_NI) if packed else linear(x_NI, base.weight, base.bias)
        ctx.save_for_backward(x_NI, a_RI, b_OR, xa_NR)
        ctx.base, ctx.packed, ctx.scale = base, packed, scale
        return y_NO.addmm_(xa_NR, b_OR.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, dy_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, a_RI, b_OR, xa_NR = ctx.saved_tensors
        dxa_NR = (dy_NO @ b_OR).mul_(ctx.scale)
        da_RI = dxa_NR.T @ x_NI
        db_OR = (dy_NO.T @ xa_NR).mul_(ctx.scale)
        if not ctx.needs_input_grad[0]:
            return None, None, da_RI, db_OR, None
        dx_NI = ctx.packed.backward(dy_NO) if ctx.packed else dy_NO @ ctx.base.weight
        return dx_NI.addmm_(dxa_NR, a_RI), None, da_RI, db_OR, None


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[None]:
    """Within it, plain LoRA layers without dropout add into the base layer's result, in fewer passes."""
    fused = [module for module in model.modules() if isinstance(module, Linear) and _fusible(module)]
    for module in fused:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in fused:
            del module.forward


def _fusible(layer: Linear) -> bool:
    plain = type(layer) is Linear and type(layer.base_layer) is nn.Linear and not layer.lora_variant
    return plain and len(layer.active_adapters) == 1 and isinstance(layer.lora_dropout[_active(layer)], nn.Identity)


def _forward(layer: Linear, x: Tensor) -> Tensor:
    name, base = _active(layer), layer.base_layer
    a_RI, b_OR = layer.lora_A[name].weight.to(x.dtype), layer.lora_B[name].weight.to(x.dtype)
    y_NO = _LoraLinear.apply(x.flatten(0, -2), base, a_RI, b_OR, layer.scaling[name])
    return y_NO.view(*x.shape[:-1], -1)


def _active(layer: Linear) -> str:
    return str(layer.active_adapters[0])
