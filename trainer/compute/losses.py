"""The loss of a causal language model on texts, without padding and with a shared beginning read once.

Logits are only computed where they are scored: with a vocabulary of 49,152 they are most of what a loss costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from trainer.compute.attention import in_one_row

# Texts at once; logits of 8 x 128 tokens of a vocabulary of 49,152 are 201 MB in float32.
BATCH = 8
# Tokens, and how many of the first ones are not scored: at least one.
Row = tuple[list[int], int]


@dataclass(frozen=True)
class Loss:
    """Of one text: the sum in nats over its scored tokens."""

    nats: float
    tokens: int


def losses(model: Any, rows: Sequence[Row], done: Callable[[int], None] = lambda _: None) -> list[Loss]:
    """The loss of each row, in order; `done(n)` is called when n more rows are read.

    Raises:
        RuntimeError: the model was not loaded with ATTENTION, or does not pass the layout on to it.
    """
    found: list[Loss] = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        with torch.inference_mode():
            found += _batch(model, batch)
        done(len(batch))
    return found


def _batch(model: Any, rows: Sequence[Row]) -> list[Loss]:
    # The token before a scored one predicts it, and must not be shared.
    ids, layout = in_one_row([row for row, _ in rows], most=min(skipped for _, skipped in rows) - 1)
    wanted = [torch.tensor(row[skipped:], device=model.device) for row, skipped in rows]
    guessed = [places[skipped - 1 : -1] for (_, skipped), places in zip(rows, layout.rows, strict=True)]
    logits_SV = model(
        input_ids=ids.to(model.device),
        position_ids=layout.positions.to(model.device),
        logits_to_keep=torch.tensor(list(chain.from_iterable(guessed)), device=model.device),
        use_cache=False,
        layout=layout,
    ).logits[0]
    layout.check_read(model)
    nats_S = cross_entropy(logits_SV.float(), torch.cat(wanted), reduction="none")
    return [Loss(float(each.sum()), len(each)) for each in nats_S.split([len(each) for each in wanted])]
