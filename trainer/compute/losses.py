"""The loss of a causal language model on texts, without padding and with a shared beginning read once.

Logits are only computed where they are scored: with a large vocabulary they are most of what a loss costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from peft import PeftModel

from trainer.compute.attention import in_one_row
from trainer.compute.head_loss import losses_at

# Texts at once.
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
    places_S = torch.tensor(list(chain.from_iterable(guessed)), device=model.device)
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    nats_S = losses_at(causal, ids.to(model.device), layout, places_S, torch.cat(wanted))
    layout.check_read(model)
    return [Loss(float(each.sum()), len(each)) for each in nats_S.split([len(each) for each in wanted])]
