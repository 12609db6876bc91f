"""What a training on a CPU takes of memory, and how many tokens it reads at once to keep to that.

Figures were measured with LoRA on all linear layers; docs/decisions/training.md has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

from adapters.errors import ConfigError
from adapters.models import catalog, tensors
from adapters.models.base_models import shaping_config

if TYPE_CHECKING:
    from torch import Tensor

# Of what a step keeps for its backward pass. More tokens at once are not faster: 800 rows fill a matrix unit.
KEPT_BYTES = 1_700_000_000
# Python, torch and what they load; logits of a piece, gradients and copies that live for a moment.
FIXED_BYTES = 1_300_000_000
# Of a weight that is trained: itself, its gradient and AdamW's two moments in float32.
TRAINED_WEIGHT_BYTES = 16


@dataclass(frozen=True)
class Size:
    """Of a base model and its adapter."""

    parameters: int
    adapter_parameters: int
    layers: int
    hidden: int


def size_of(base: Path, rank: int) -> Size:
    """From the headers of the files, without the weights. The adapter is on every linear layer but the output's."""
    shape = shaping_config(base)
    adapter = tensors.weights(rank, shape)
    return Size(tensors.parameters(base), adapter, shape["num_hidden_layers"], shape["hidden_size"])


def training_bytes(base: Path, rank: int, value_bytes: int, most_tokens: int, from_scratch: bool = False) -> int:
    """The peak of a training on a CPU in steps of up to `most_tokens`, with `value_bytes` for each number."""
    size = size_of(base, rank)
    kept = min(KEPT_BYTES, most_tokens * _kept_bytes_a_token(base, value_bytes))
    trained = size.parameters if from_scratch else size.adapter_parameters
    frozen = 0 if from_scratch else value_bytes * size.parameters
    return frozen + TRAINED_WEIGHT_BYTES * trained + kept + FIXED_BYTES


def check_free(needed: int, model: str) -> None:
    """Raises:
    ConfigError: less memory is free than `needed` bytes; the system would end the process without a word.
    """
    # What this process holds already is in `needed`, or free for it: glibc gives nothing back to the system.
    own = psutil.Process().memory_info().rss
    free = own + catalog.free_memory() + psutil.swap_memory().free
    if free < needed:
        raise ConfigError(
            f"training {model} here takes about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free",
            "close other programs, or give a smaller --base",
        )


def tokens_at_once(base: Path, value_bytes: int) -> int:
    """How many tokens a step reads before it goes backward, so that it keeps KEPT_BYTES."""
    return max(1, KEPT_BYTES // _kept_bytes_a_token(base, value_bytes))


def _kept_bytes_a_token(base: Path, value_bytes: int) -> int:
    shape = shaping_config(base)
    inner, hidden = shape["intermediate_size"], shape["hidden_size"]
    # Gate and up; queries, keys, values and their attention; the inputs of both norms, in float32, and their outputs.
    of_layer = value_bytes * (2 * inner + 6 * hidden) + 4 * 2 * hidden
    return int(shape["num_hidden_layers"] * of_layer)


def in_parts(inputs: dict[str, Tensor], most_tokens: int) -> list[dict[str, Tensor]]:
    """The rows of a padded batch in order: each part has at most `most_tokens`, or one row, and its own padding."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    parts: list[list[int]] = [[]]
    for row, length in enumerate(lengths):
        if parts[-1] and length + sum(lengths[before] for before in parts[-1]) > most_tokens:
            parts.append([])
        parts[-1].append(row)
    widths = [max(lengths[row] for row in rows) for rows in parts]
    return [
        {name: values[rows, :width] for name, values in inputs.items()}
        for rows, width in zip(parts, widths, strict=True)
    ]
