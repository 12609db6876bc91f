"""Writes many answers at once on few cores: no padding, a batch that shrinks as texts end, and a cache without copies.

`generate` of transformers 5.19 continues every text to the end of the longest and copies all keys and values at each
step. Both are greedy in the same way; sums in another order decide near ties.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from trainer.compute.attention import Layout, beginning, in_one_row

# A shared beginning is worth reading once: longer than a chat template's own, shorter than an email.
MIN_SHARED_TOKENS = 64
# A text that repeats itself three times, over at least 48 tokens, does not stop.
LOOPS, MAX_LOOP_TOKENS, MIN_LOOPING_TOKENS = 3, 100, 48


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    limit: int,
    temperature: float | None = None,
    generator: torch.Generator | None = None,
    step: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """Up to `limit` new tokens after each prompt, to one of `ends` (included) or into a loop; greedy by default.

    `step(n)` is called when n more tokens are written.
    """
    texts: list[list[int]] = [[] for _ in prompts]
    writing = list(range(len(prompts)))
    begin = _without_padding if all(type(layer) is DynamicLayer for layer in _cache(model).layers) else _padded
    logits_BV, cache, mask_BT = begin(model, prompts, limit)
    positions_B1 = mask_BT.sum(1, keepdim=True)
    for count in range(1, limit + 1):
        chosen_B = _chosen(logits_BV, temperature, generator)
        step(len(writing))
        for number, token in zip(writing, chosen_B.tolist(), strict=True):
            texts[number].append(token)
        going = [at for at, n in enumerate(writing) if texts[n][-1] not in ends and not loops(texts[n])]
        if not going or count == limit:
            break
        if len(going) < len(writing):
            kept = torch.tensor(going, device=model.device)
            cache.batch_select_indices(kept)
            chosen_B, mask_BT, positions_B1 = chosen_B[kept], mask_BT[kept], positions_B1[kept]
            writing = [writing[at] for at in going]
        mask_BT = torch.cat([mask_BT, torch.ones_like(positions_B1)], 1)
        logits_BV = model(
            input_ids=chosen_B[:, None],
            attention_mask=mask_BT,
            position_ids=positions_B1,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        positions_B1 = positions_B1 + 1
    return texts


# The logits of each text's first token, the cache, and the mask of its rows, padded on the left.
Begun = tuple[torch.Tensor, DynamicCache, torch.Tensor]


def _cache(model: Any) -> DynamicCache:
    return DynamicCache(config=model.config)


def _without_padding(model: Any, prompts: Sequence[Sequence[int]], limit: int) -> Begun:
    """Read prompts that begin alike as one row, with their beginning once."""
    groups = alike(prompts)
    read = [_read(model, [prompts[number] for number in numbers]) for numbers in groups]
    back = torch.tensor(list(chain.from_iterable(groups)), device=model.device).argsort()
    width = max(map(len, prompts))
    places = [
        torch.tensor([(width - len(row)) * [0] + row for row in layout.rows], device=model.device)
        for _, _, layout in read
    ]
    cache = _cache(model)
    cache.layers = [RoomyLayer(width + limit) for _ in cache.layers]
    for number, layer in enumerate(cache.layers):
        of_groups = [(each.layers[number].keys[0], each.layers[number].values[0]) for _, each, _ in read]
        keys_and_values = zip(*of_groups, strict=True)
        layer.update(*(_rows(states, places)[back] for states in keys_and_values))
    logits_BV = torch.cat([logits for logits, _, _ in read])[back]
    return logits_BV, cache, _mask(prompts, width).to(model.device)


def _rows(states: Iterable[torch.Tensor], places: Iterable[torch.Tensor]) -> torch.Tensor:
    """From each group's [heads, N, head size] its texts' states, [texts, heads, tokens, head size]."""
    return torch.cat([each[:, places_BT].transpose(0, 1) for each, places_BT in zip(states, places, strict=True)])


def _read(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, DynamicCache, Layout]:
    """The logits of each text's first token, [texts, vocabulary], the cache of one row, and its layout."""
    ids, layout = in_one_row(prompts)
    cache = _cache(model)
    logits_BV = model(
        input_ids=ids.to(model.device),
        position_ids=layout.positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=torch.tensor([row[-1] for row in layout.rows], device=model.device),
        layout=layout,
    ).logits[0]
    layout.check_read(model)
    return logits_BV, cache, layout


def alike(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The prompts' numbers, grouped by the same MIN_SHARED_TOKENS first tokens; all others are one group."""
    groups: list[list[int]] = []
    for number in sorted(range(len(prompts)), key=lambda number: list(prompts[number])):
        if groups and beginning([prompts[groups[-1][-1]], prompts[number]]) >= MIN_SHARED_TOKENS:
            groups[-1].append(number)
        else:
            groups.append([number])
    alone = [numbers[0] for numbers in groups if len(numbers) == 1]
    together = [numbers for numbers in groups if len(numbers) > 1]
    return [*together, alone] if alone else together


def _padded(model: Any, prompts: Sequence[Sequence[int]], limit: int) -> Begun:
    """For models with a sliding window, whose cache keeps only that."""
    width = max(map(len, prompts))
    ids_BT = torch.tensor([(width - len(prompt)) * [0] + list(prompt) for prompt in prompts], device=model.device)
    mask_BT = _mask(prompts, width).to(model.device)
    cache = _cache(model)
    cache.layers = [RoomyLayer(width + limit) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    logits_BV = model(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits_BV, cache, mask_BT


def _mask(prompts: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    return torch.tensor([(width - len(prompt)) * [0] + len(prompt) * [1] for prompt in prompts])


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """Keys and values of one layer with room for more: DynamicLayer copies all of them for each new token."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            batch, heads, _, width = key_states.shape
            self.buffers = [key_states.new_empty(batch, heads, self.room, width) for _ in range(2)]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        length = self.get_seq_length()
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)


def ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text, by the model's and the tokenizer's settings."""
    named = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}


def loops(tokens: Sequence[int]) -> bool:
    """Whether the text ends in repetitions of one piece."""
    for period in range(1, min(MAX_LOOP_TOKENS, len(tokens) // LOOPS) + 1):
        length = max(period * LOOPS, MIN_LOOPING_TOKENS)
        if length <= len(tokens) and tokens[-length + period :] == tokens[-length:-period]:
            return True
    return False


def _chosen(logits: torch.Tensor, temperature: float | None, generator: torch.Generator | None) -> torch.Tensor:
    if temperature is None:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits.float() / temperature, -1), 1, generator=generator)[:, 0]
