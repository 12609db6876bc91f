"""Packed weights give what torch gives, forwards and backwards, and only where nothing trains them."""

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from trainer.compute import packed
from trainer.compute.packed import pack

SIZES = st.integers(1, 130)


def frozen(inputs: int, outputs: int, **kind: object) -> nn.Linear:
    return nn.Linear(inputs, outputs, **{"bias": False, **kind}).requires_grad_(False)


@settings(deadline=None, max_examples=60)
@given(rows=SIZES, inputs=SIZES, outputs=SIZES, seed=st.integers(0, 1000))
def test_products_and_gradients_are_those_of_a_linear_layer(rows: int, inputs: int, outputs: int, seed: int):
    torch.manual_seed(seed)
    layer, x_BTI = frozen(inputs, outputs), torch.randn(2, rows, inputs)
    weighed = torch.randn(2, rows, outputs)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        x = x_BTI.clone().requires_grad_()
        y = layer(x)
        (y * weighed).sum().backward()
        return y.detach(), x.grad

    plain = both()
    pack(layer)
    assert_close(both(), plain, atol=1e-4, rtol=1e-4)


def test_rows_that_lie_apart_in_memory():
    layer, x_IN = frozen(24, 8), torch.randn(24, 5)
    expected = layer(x_IN.T)
    pack(layer)
    assert_close(layer(x_IN.T), expected)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(8, 8, bias=False), frozen(8, 8, bias=True), frozen(8, 8, dtype=torch.bfloat16)],
    ids=["trained", "with a bias", "bfloat16"],
)
def test_other_layers_stay_as_they_are(layer: nn.Linear):
    pack(layer)
    assert not hasattr(layer, "packed")


def test_a_large_model_is_not_held_in_memory_three_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed, "MAX_BYTES", 2 * 8 * 8 * 4 - 1)
    model = nn.Sequential(frozen(8, 8), frozen(8, 8))
    pack(model)
    assert not any(hasattr(layer, "packed") for layer in model)


def test_memory_does_not_grow_with_every_number_of_rows():
    layer, x_NI = frozen(576, 1536), torch.randn(900, 576)
    pack(layer)

    def resident_after(rows: range) -> float:
        for count in rows:
            layer(x_NI[:count])
        return psutil.Process().memory_info().rss / 2**20

    resident_after(range(500, 900, 64))
    before = resident_after(range(500, 510))
    assert resident_after(range(510, 900)) - before < 100, "MiB; each number of rows would keep one or two"
