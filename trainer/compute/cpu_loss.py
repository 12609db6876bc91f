"""The loss of a batch on a CPU without wasted work: one row of tokens, no padding, a shared beginning computed once.

Loss and gradients are those of padded rows, as tests/trainer/compute/test_cpu_loss.py shows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.compute.attention import Layout
from trainer.compute.head_loss import losses_at


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
