"""Attention for rows of different lengths that begin alike, without padding and without copies.

Many rows stand in one: the tokens that all begin with, computed once, then the rest of each, which sees the beginning
and itself. Without such a layout it is PyTorch's attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

# A model is loaded with it, as `attn_implementation`.
ATTENTION = "mailwright_rows"


@dataclass
class Layout:
    """Tokens of the shared beginning, and of the rest of each row; an attention layer sets `read`."""

    shared: int
    rests: list[int]
    read: bool = False

    @property
    def rows(self) -> list[list[int]]:
        """The indices of each row's tokens."""
        starts = [self.shared + sum(self.rests[:number]) for number in range(len(self.rests))]
        spans = zip(starts, self.rests, strict=True)
        return [[*range(self.shared), *range(start, start + rest)] for start, rest in spans]

    @property
    def positions(self) -> Tensor:
        """The position of each token in its own row; [1, N]."""
        counts = [torch.arange(self.shared), *(torch.arange(self.shared, self.shared + rest) for rest in self.rests)]
        return torch.cat(counts)[None]

    def check_read(self, model: object) -> None:
        """Raise RuntimeError if no attention layer has read the layout, so that rows saw one another."""
        if not self.read:
            raise RuntimeError(f"{type(model).__name__} passes nothing to its attention, or was not loaded with ours")


def in_one_row(rows: Sequence[Sequence[int]], most: int | None = None) -> tuple[Tensor, Layout]:
    """The tokens of all rows, [1, N], and their layout: at most `most` of a beginning are shared."""
    shared = beginning(rows)
    shared = shared if most is None else min(shared, most)
    ids = [*rows[0][:shared], *chain.from_iterable(row[shared:] for row in rows)]
    return torch.tensor([ids]), Layout(shared, [len(row) - shared for row in rows])


def beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, not counting the last of each."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    return len(list(takewhile(lambda column: len(set(column)) == 1, columns)))


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Causal attention over the rows of `layout`, [1, heads, N, head size] to [1, N, heads, head size]."""
    if layout is None:
        if query.shape[2] == 1 and attention_mask is not None:
            return _one_token(query, key, value, attention_mask, scaling), None
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
        return attended, None
    layout.read = True
    states = (each.split([layout.shared, *layout.rests], dim=2) for each in (query, key, value))
    beginning, *rows = zip(*states, strict=True)
    query, key, value = beginning
    parts = [_attend(query, key, value, scaling, sliding_window)]
    for query, *new in rows:
        key, value = (torch.cat(pair, dim=2) for pair in zip(beginning[1:], new, strict=True))
        parts.append(_attend(query, key, value, scaling, sliding_window))
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """The attention of the last tokens of a row to the whole row."""
    length, known = query.shape[2], key.shape[2]
    if not length:
        return query
    # Several query heads share a key head; repeated keys and values would be kept for the backward pass.
    attend = partial(scaled_dot_product_attention, query, key, value, scale=scaling, enable_gqa=True)
    if length == known and (window is None or length <= window):
        return attend(is_causal=True)
    seen_QT = torch.ones(length, known, dtype=torch.bool, device=query.device).tril(known - length)
    if window is not None:
        seen_QT = seen_QT.triu(known - length + 1 - window)
    return attend(attn_mask=seen_QT)


def _one_token(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    # Query heads that share a key head stand in for positions, so that no key is repeated.
    batch, heads, _, width = query.shape
    shared = query.reshape(batch, key.shape[1], heads // key.shape[1], width)
    found = scaled_dot_product_attention(shared, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(batch, heads, 1, width).transpose(1, 2).contiguous()


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
