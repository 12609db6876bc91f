"""Which tokens of an email are copied from its task, and a loss that gives them more weight.

Names, numbers and dates are few of all tokens, and hard for a small model; they decide whether a fact is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# Tokens so common in emails (commas, `the`) that their presence in the task says nothing: two thirds of all that is
# written in the shipped voices.
COMMON_TOKENS = 150


class CopiedTokens:
    """Built from the completions of a training file, each a sequence of tokens."""

    def __init__(self, completions: Iterable[Sequence[int]], vocabulary: int) -> None:
        counts = Counter(token for completion in completions for token in completion)
        self.common_V = torch.zeros(vocabulary, dtype=torch.bool)
        self.common_V[[token for token, _ in counts.most_common(COMMON_TOKENS)]] = True

    def among(self, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """Which of the tokens, [batch, tokens], are scored (label not -100), in their row's prompt and not common."""
        before_BT = (labels_BT == -100).long().cumprod(1).bool()
        # Tokens after the prompt count as token 0, which is corrected below.
        prompt_BT = ids_BT.where(before_BT, 0)
        prompt_BV = torch.zeros(len(ids_BT), len(self.common_V), dtype=torch.bool, device=ids_BT.device)
        prompt_BV.scatter_(1, prompt_BT, True)
        prompt_BV[:, 0] = (before_BT & (ids_BT == 0)).any(1)
        return prompt_BV.gather(1, ids_BT) & ~self.common_V.to(ids_BT.device)[ids_BT] & (labels_BT != -100)


def summed(nats_S: Tensor, copied_S: Tensor, weight: float) -> Tensor:
    """The sum of the losses of single tokens, whose gradient counts those that are copied `weight` times."""
    # The value stays comparable with a held-out loss; the weights' mean is 1, so that the gradient is as large as ever.
    weights_S = torch.where(copied_S, weight, 1.0)
    weighted = (nats_S * weights_S).sum() / weights_S.mean()
    return nats_S.sum().detach() + weighted - weighted.detach()
