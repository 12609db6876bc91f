"""The real transformers on a tiny random Llama: each row read alone, against all of them in one."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.compute.decoding import decode
from trainer.compute.losses import BATCH, Row, losses

TOKENS = st.lists(st.integers(1, 60), min_size=2, max_size=9)


def alone(stock: Any, row: Row) -> float:
    ids, skipped = row
    labels = [-100] * skipped + ids[skipped:]
    with torch.inference_mode():
        return float(stock(torch.tensor([ids]), labels=torch.tensor([labels])).loss) * (len(ids) - skipped)


@settings(max_examples=40, deadline=None)
@given(
    beginning=st.lists(st.integers(1, 60), max_size=6),
    endings=st.lists(TOKENS, min_size=1, max_size=2 * BATCH),
    data=st.data(),
)
def test_a_loss_is_that_of_transformers_whatever_the_rows_share(
    ours: Any, stock: Any, beginning: list[int], endings: list[list[int]], data: st.DataObject
):
    rows = [(ids, data.draw(st.integers(1, len(ids) - 1))) for ids in ([*beginning, *ending] for ending in endings)]
    done: list[int] = []
    found = losses(ours, rows, done.append)
    assert [loss.tokens for loss in found] == [len(ids) - skipped for ids, skipped in rows]
    assert [loss.nats for loss in found] == pytest.approx([alone(stock, row) for row in rows], rel=1e-4)
    assert sum(done) == len(rows)


def test_a_model_with_another_attention_is_refused_and_not_read_wrongly(stock: Any):
    rows = [([5, 6, 7], 1), ([5, 8, 9], 1)]
    with pytest.raises(RuntimeError, match="LlamaForCausalLM"):
        losses(stock, rows)
    with pytest.raises(RuntimeError, match="LlamaForCausalLM"), torch.inference_mode():
        decode(stock, [ids for ids, _ in rows], (), 3)
