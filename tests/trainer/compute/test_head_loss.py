"""Losses and gradients from some rows of logits at a time, against cross entropy on all of them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from trainer.compute import head_loss
from trainer.compute.attention import Layout
from trainer.compute.head_loss import losses_at
from trainer.compute.packed import pack

HIDDEN, WORDS = 16, 40


class Causal(nn.Module):  # type: ignore[misc]  # torch gives it no type
    """A head on hidden states that are given as they are."""

    def __init__(self, hidden_NH: Tensor, head: nn.Linear) -> None:
        super().__init__()
        self.lm_head = head
        self.config = SimpleNamespace()
        self.base_model = lambda **_: SimpleNamespace(last_hidden_state=hidden_NH[None])

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def forward(self, logits_to_keep: Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.lm_head(self.base_model().last_hidden_state[:, logits_to_keep]))


def losses(hidden_NH: Tensor, head: nn.Linear, places_S: Tensor, labels_S: Tensor) -> Tensor:
    ids = torch.zeros(1, len(hidden_NH), dtype=torch.long)
    return losses_at(Causal(hidden_NH, head), ids, Layout(0, [len(hidden_NH)]), places_S, labels_S)


def frozen(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(HIDDEN, WORDS, bias=False, dtype=dtype).requires_grad_(False)


@settings(deadline=None, max_examples=30)
@given(
    places=st.lists(st.integers(0, 19), min_size=1, max_size=30),
    rows=st.integers(1, 9),
    packs=st.booleans(),
    seed=st.integers(0, 99),
)
def test_losses_and_gradients_are_those_of_cross_entropy(places: list[int], rows: int, packs: bool, seed: int):
    head, places_S = frozen(), torch.tensor(places)
    if packs:
        pack(head)
    torch.manual_seed(seed)
    labels_S, weights_S = torch.randint(0, WORDS, (len(places),)), torch.rand(len(places))
    hidden_NH = torch.randn(20, HIDDEN)

    def both(in_pieces: bool) -> tuple[Tensor, Tensor]:
        given_NH = hidden_NH.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(head_loss, "ROWS", rows)
            nats_S = (
                losses(given_NH, head, places_S, labels_S)
                if in_pieces
                else cross_entropy(head(given_NH[places_S]), labels_S, reduction="none")
            )
        (nats_S * weights_S).sum().backward()
        return nats_S.detach(), given_NH.grad

    assert_close(both(in_pieces=True), both(in_pieces=False), rtol=1e-4, atol=1e-5)


def test_logits_are_never_computed_for_more_rows_than_one_piece(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head_loss, "ROWS", 4)
    head, seen = frozen(), []
    head.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    losses(torch.randn(20, HIDDEN), head, torch.arange(10), torch.zeros(10, dtype=torch.long))
    assert seen == [4, 4, 2]


def test_in_bf16_the_loss_is_float32_and_the_gradient_as_precise_as_cross_entropys():
    head, places_S, labels_S = frozen(torch.bfloat16), torch.arange(20), torch.arange(20)
    torch.manual_seed(0)
    hidden_NH = torch.randn(20, HIDDEN, dtype=torch.bfloat16)
    given_NH, stock_NH = (hidden_NH.clone().requires_grad_() for _ in range(2))
    nats_S = losses(given_NH, head, places_S, labels_S)
    expected_S = cross_entropy(head(stock_NH).float(), labels_S, reduction="none")
    assert nats_S.dtype == torch.float32
    nats_S.sum().backward()
    expected_S.sum().backward()
    assert_close(nats_S, expected_S)
    assert_close(given_NH.grad, stock_NH.grad, rtol=1e-2, atol=1e-2)


def test_a_head_that_is_trained_gets_its_gradient():
    head = frozen().requires_grad_()
    losses(torch.randn(20, HIDDEN), head, torch.arange(5), torch.arange(5)).sum().backward()
    assert head.weight.grad.abs().sum() > 0


def test_nothing_is_scored():
    none = torch.tensor([], dtype=torch.long)
    assert losses(torch.randn(20, HIDDEN), frozen(), none, none).tolist() == []
