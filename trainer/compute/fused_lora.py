"""LoRA layers whose results are added in place, and MLPs that keep half as much for the backward pass.

Results and gradients are PEFT's, as tests/trainer/compute/test_cpu_loss.py shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from trainer.compute.packed import Packed

SWIGLU = ("gate_proj", "up_proj", "down_proj")


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[None]:
    """Within it, plain LoRA layers without dropout, and MLPs of three of them, compute in fewer passes."""
    forwards = {module: forward for module in model.modules() if (forward := _faster(module))}
    for module, forward in forwards.items():
        module.forward = partial(forward, module)
    try:
        yield
    finally:
        for module in forwards:
            del module.forward


def _faster(module: nn.Module) -> Any:
    if _fusible(module):
        return _linear_forward
    parts = dict(module.named_children())
    swiglu = parts.keys() == {*SWIGLU, "act_fn"} and type(parts["act_fn"]).__name__ in ("SiLU", "SiLUActivation")
    return _mlp_forward if swiglu and all(_fusible(parts[name]) for name in SWIGLU) else None


def _fusible(layer: nn.Module) -> bool:
    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear or layer.lora_variant:
        return False
    return len(layer.active_adapters) == 1 and isinstance(layer.lora_dropout[_active(layer)], nn.Identity)


def _active(layer: Linear) -> str:
    return str(layer.active_adapters[0])


class Frozen(NamedTuple):
    """What of a LoRA layer has no gradient."""

    base: nn.Linear
    scale: float

    def forward(self, x_NI: Tensor, a_RI: Tensor, b_OR: Tensor) -> tuple[Tensor, Tensor]:
        """x W' + scale x A' B', and x A'."""
        xa_NR = x_NI @ a_RI.T
        packed = self._packed()
        y_NO = packed.forward(x_NI) if packed else linear(x_NI, self.base.weight, self.base.bias)
        return y_NO.addmm_(xa_NR, b_OR.T, alpha=self.scale), xa_NR

    def backward(
        self, dy_NO: Tensor, x_NI: Tensor, xa_NR: Tensor, a_RI: Tensor, b_OR: Tensor, wanted: bool = True
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients of x, if `wanted`, of A and of B."""
        dxa_NR = (dy_NO @ b_OR).mul_(self.scale)
        da_RI = dxa_NR.T @ x_NI
        db_OR = (dy_NO.T @ xa_NR).mul_(self.scale)
        if not wanted:
            return None, da_RI, db_OR
        packed = self._packed()
        dx_NI = packed.backward(dy_NO) if packed else dy_NO @ self.base.weight
        return dx_NI.addmm_(dxa_NR, a_RI), da_RI, db_OR

    def _packed(self) -> Packed | None:
        return getattr(self.base, "packed", None)


class _Linear(torch.autograd.Function):  # type: ignore[misc]  # torch gives it no type
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, frozen: Frozen, a_RI: Tensor, b_OR: Tensor) -> Tensor:
        y_NO, xa_NR = frozen.forward(x_NI, a_RI, b_OR)
        ctx.frozen = frozen
        ctx.save_for_backward(x_NI, xa_NR, a_RI, b_OR)
        return y_NO

    @staticmethod
    def backward(ctx: Any, dy_NO: Tensor) -> tuple[Tensor | None, ...]:
        dx_NI, da_RI, db_OR = ctx.frozen.backward(dy_NO, *ctx.saved_tensors, wanted=ctx.needs_input_grad[0])
        return dx_NI, None, da_RI, db_OR


class _Mlp(torch.autograd.Function):  # type: ignore[misc]  # torch gives it no type
    """down(silu(gate(x)) * up(x)). Keeps gate(x) and up(x) of four tensors of their size, and computes two again."""

    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, frozen: tuple[Frozen, ...], *weights: Tensor) -> Tensor:
        gate, up, down = frozen
        gate_NI, xa_NR = gate.forward(x_NH, *weights[:2])
        up_NI, xb_NR = up.forward(x_NH, *weights[2:4])
        y_NH, xc_NR = down.forward(silu(gate_NI).mul_(up_NI), *weights[4:])
        ctx.frozen = frozen
        ctx.save_for_backward(x_NH, gate_NI, up_NI, xa_NR, xb_NR, xc_NR, *weights)
        return y_NH

    @staticmethod
    def backward(ctx: Any, dy_NH: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, down = ctx.frozen
        x_NH, gate_NI, up_NI, xa_NR, xb_NR, xc_NR, *weights = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        activated_NI = silu(gate_NI)
        dproduct_NI, *of_down = down.backward(dy_NH, activated_NI * up_NI, xc_NR, *weights[4:])
        dx_NH, *of_up = up.backward(activated_NI.mul_(dproduct_NI), x_NH, xb_NR, *weights[2:4], wanted=wanted)
        dgate_NI = torch.ops.aten.silu_backward(dproduct_NI.mul_(up_NI), gate_NI)
        more_NH, *of_gate = gate.backward(dgate_NI, x_NH, xa_NR, *weights[:2], wanted=wanted)
        return (dx_NH.add_(more_NH) if wanted else None), None, *of_gate, *of_up, *of_down


def _linear_forward(layer: Linear, x: Tensor) -> Tensor:
    frozen, *weights = _split(layer, x.dtype)
    return _Linear.apply(x.flatten(0, -2), frozen, *weights).view(*x.shape[:-1], -1)


def _mlp_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    layers = [_split(getattr(mlp, name), x.dtype) for name in SWIGLU]
    weights = [weight for _, *both in layers for weight in both]
    frozen = tuple(each for each, *_ in layers)
    return _Mlp.apply(x.flatten(0, -2), frozen, *weights).view(x.shape)


def _split(layer: Linear, dtype: torch.dtype) -> tuple[Frozen, Tensor, Tensor]:
    name = _active(layer)
    a_RI, b_OR = layer.lora_A[name].weight.to(dtype), layer.lora_B[name].weight.to(dtype)
    return Frozen(layer.base_layer, layer.scaling[name]), a_RI, b_OR
