"""Which tokens of an email are copied from its task: few of all, and those that decide whether a fact is kept.

A voice is learnt from every token alike, most of which a small model soon guesses; names, numbers and dates are rare
and hard. With a weight, a step follows their gradient more. This file knows tokens, neither models nor recipes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

COMMON = 150
"""Tokens so common in the emails trained on that standing in the task too says nothing, commas and `the` among them:
two thirds of all that is written in the shipped voices."""


class Copied:
    """Built from the completions of a training file, each a sequence of tokens."""

    def __init__(self, completions: Iterable[Sequence[int]], vocabulary: int) -> None:
        counts = Counter(token for completion in completions for token in completion)
        self.common_V = torch.zeros(vocabulary, dtype=torch.bool)
        self.common_V[[token for token, _ in counts.most_common(COMMON)]] = True

    def among(self, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """Which of the tokens, [batch, tokens], are scored, stand in their row's prompt and are not common.

        Scored are those whose label is not -100; what stands before the first one is the prompt.
        """
        before_BT = (labels_BT == -100).long().cumprod(1).bool()
        # What is no prompt counts as token 0 of it, and that is taken back.
        prompt_BT = ids_BT.where(before_BT, 0)
        told_BV = torch.zeros(len(ids_BT), len(self.common_V), dtype=torch.bool, device=ids_BT.device)
        told_BV.scatter_(1, prompt_BT, True)
        told_BV[:, 0] = (before_BT & (ids_BT == 0)).any(1)
        return told_BV.gather(1, ids_BT) & ~self.common_V.to(ids_BT.device)[ids_BT] & (labels_BT != -100)


def summed(nats_S: Tensor, copied_S: Tensor, weight: float) -> Tensor:
    """The sum of the losses of single tokens, whose gradient counts those that are copied `weight` times.

    The value is the plain sum, so that it stays comparable with a held-out loss; the gradient is as large as without
    weights, since they are divided by their mean.
    """
    weights_S = torch.where(copied_S, weight, 1.0)
    weighted = (nats_S * weights_S).sum() / weights_S.mean()
    return nats_S.sum().detach() + weighted - weighted.detach()
