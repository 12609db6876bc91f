"""Products with frozen float32 weights on a CPU by oneDNN, which packs each weight once.

PyTorch's own products use MKL, which packs the weights in every product. torch.compile uses the same two operators.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# Up to FEW rows are padded to a multiple of FINE, more to one of COARSE: oneDNN keeps one or two megabytes for each
# number of rows that it has met with a weight's shape, and a training meets another one in every step.
FEW, FINE, COARSE = 64, 8, 64
# Of weights that are packed: each takes as much memory again, and once more where gradients flow.
MAX_BYTES = 2**30


class Packed:
    """A frozen weight, [out, in]."""

    def __init__(self, weight_OI: Tensor) -> None:
        self._weight_OI = weight_OI.detach()
        self._forward = _pack(self._weight_OI)
        self._backward: Tensor | None = None

    def forward(self, x_NI: Tensor) -> Tensor:
        """x W'; without a gradient."""
        return _multiply(x_NI, self._forward)

    def backward(self, dy_NO: Tensor) -> Tensor:
        """dy W: the gradient of x."""
        if self._backward is None:
            self._backward = _pack(self._weight_OI.T)
        return _multiply(dy_NO, self._backward)


class _Product(torch.autograd.Function):  # type: ignore[misc]  # torch gives it no type
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight: Packed) -> Tensor:
        ctx.weight = weight
        return weight.forward(x_NI)

    @staticmethod
    def backward(ctx: Any, dy_NO: Tensor) -> tuple[Tensor, None]:
        return ctx.weight.backward(dy_NO), None


def pack(model: nn.Module) -> None:
    """Make frozen float32 linear layers without bias multiply by `layer.packed`, unless they exceed MAX_BYTES."""
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and _packable(layer)]
    if sum(layer.weight.nbytes for layer in layers) > MAX_BYTES or not torch.backends.mkldnn.is_available():
        return
    for layer in layers:
        layer.packed = Packed(layer.weight)
        layer.forward = partial(_forward, layer.packed)


def _packable(layer: nn.Linear) -> bool:
    weight = layer.weight
    frozen = not weight.requires_grad and layer.bias is None
    return frozen and weight.dtype == torch.float32 and weight.device.type == "cpu"


def _forward(weight: Packed, x: Tensor) -> Tensor:
    return _Product.apply(x.flatten(0, -2), weight).view(*x.shape[:-1], -1)


def _pack(weight_OI: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous())


def _multiply(x_NI: Tensor, packed: Tensor) -> Tensor:
    rows = len(x_NI)
    step = FINE if rows <= FEW else COARSE
    x_MI = pad(x_NI, (0, 0, 0, -rows % step)).contiguous()
    return torch.ops.mkldnn._linear_pointwise(x_MI, packed, None, "none", [], "")[:rows]
