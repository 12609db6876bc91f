"""Embedding and head with 8-bit weights: the logits that they give, compiled and by torch, and in a model of vLLM's."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from server.cpu import build, int8


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    assert build.build(print) is None
    assert build.load()


@pytest.fixture(params=["compiled", "torch"])
def logits_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    from server.cpu import words

    if request.param == "torch":
        monkeypatch.setattr(words.build, "load", lambda: False)
    return words.logits_of


def random_words(outputs: int, inputs: int, rows: int, seed: int) -> tuple[Any, Any, Any]:
    """x, and the weights and scales of a head whose exact weights are what they stand for."""
    random = torch.Generator().manual_seed(seed)
    weights = torch.randint(-127, 128, (outputs, inputs), generator=random, dtype=torch.int8)
    return torch.randn(rows, inputs, generator=random), weights, torch.rand(outputs, 1, generator=random)


@given(st.integers(1, 9), st.integers(1, 90), st.integers(1, 1100), st.integers(0, 2**31))
def test_compiled_logits_are_those_of_the_weights(rows: int, outputs: int, inputs: int, seed: int):
    x, weights, scale = random_words(outputs, inputs, rows, seed)
    expected = x.double() @ (weights.double() * scale).t()
    given = torch.ops.mailwright.logits(x, weights, scale)
    assert given.dtype == torch.float32
    # Inputs of 16 bits: half a step each.
    step = x.abs().amax(1, keepdim=True) / 32767
    assert ((given - expected).abs() <= step * inputs * 127 * scale.t() / 2 + 1e-3).all()


def test_the_largest_sums_do_not_overflow():
    weights = torch.full((5, 20000), -127, dtype=torch.int8)
    given = torch.ops.mailwright.logits(torch.full((3, 20000), 2.0), weights, torch.ones(5, 1))
    assert torch.allclose(given, torch.tensor(-127 * 2.0 * 20000))


def test_a_row_of_zeros_gives_zeros():
    _, weights, scale = random_words(7, 64, 1, 0)
    assert not torch.ops.mailwright.logits(torch.zeros(2, 64), weights, scale).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_a_head_keeps_the_likeliest_word(logits_of: Any, dtype: Any):
    random = torch.Generator().manual_seed(1)
    head, x = torch.randn(4096, 256, generator=random) / 4, torch.randn(64, 256, generator=random).to(dtype)
    whole, scale = int8.rounded(head)
    exact, given = x.float() @ head.t(), logits_of(x, whole, scale.float())
    apart = (torch.log_softmax(exact, -1) - torch.log_softmax(given, -1)).abs()
    assert apart.mean() < 0.05
    # Two words whose logits are within the error may change places.
    best, by_given = exact.amax(1), exact.gather(1, given.argmax(1, keepdim=True)).squeeze(1)
    assert (best - by_given).max() < 0.2
    assert (exact.argmax(1) == given.argmax(1)).float().mean() > 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_word_is_looked_up_in_the_models_own_type(dtype: Any):
    from server.cpu.words import RoundedWords

    method, layer = RoundedWords(), torch.nn.Module()
    method.create_weights(layer, 16, [8], 16, 8, dtype, weight_loader=None)
    head = torch.randn(8, 16, generator=torch.Generator().manual_seed(2))
    whole, scale = int8.rounded(head)
    layer.weight.copy_(whole)
    layer.weight_scale.copy_(scale)
    found = method.embedding(layer, torch.tensor([[3, 0], [7, 7]]))
    assert (found.dtype, found.shape) == (dtype, (2, 2, 16))
    assert torch.allclose(found[0, 0].float(), head[3], atol=0.03)
    tied = method.tie_weights(torch.nn.Module(), SimpleNamespace(weight=layer.weight, weight_scale=layer.weight_scale))
    assert tied.weight is layer.weight
