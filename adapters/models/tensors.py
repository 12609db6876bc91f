"""The tensors of a LoRA adapter in safetensors: which there are, what shapes the base model needs, what is in them.

The header is read first and settles what the file claims to be; then the tensors are read once, in the file's order.
This file does not know which adapters may be served; adapters/models/validate.py does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

TENSOR = re.compile(r"base_model\.model\.model\.layers\.(\d{1,6})\.(self_attn|mlp)\.(\w+)\.lora_(A|B)\.weight")
CODE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Files of Python's pickle, which runs whatever it is told when it is read."""
MAX_HEADER_BYTES = 2**22
"""A 70B model's adapter on all seven modules needs 0.2 MB."""
FLOATS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}


class Tensor(NamedTuple):
    """`start` and `end` are bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def rank(self) -> int | None:
        """The LoRA rank that its shape says; None if it has none."""
        match = TENSOR.fullmatch(self.name)
        if not match or len(self.shape) != 2:
            return None
        return self.shape[0] if match[4] == "A" else self.shape[1]


@dataclass(frozen=True)
class Header:
    """`raw` is the file up to its first tensor; `tensors` are in the order of the file."""

    raw: bytes
    tensors: tuple[Tensor, ...]
    names: frozenset[str]

    def read(self, file: Path) -> Iterator[tuple[Tensor, bytes]]:
        with file.open("rb") as opened:
            for tensor in self.tensors:
                opened.seek(tensor.start)
                yield tensor, opened.read(tensor.end - tensor.start)


class Values(NamedTuple):
    """Whether all values are `finite`, and whether `some` are not zero."""

    finite: bool
    some: bool


def header_of(file: Path) -> Header:
    """What `file` says of itself.

    Raises:
        ValueError: it is no safetensors file, or its header says more than is there.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        prefix = opened.read(8)
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header would have {length} bytes, more than {MAX_HEADER_BYTES}")
        raw = prefix + opened.read(length)
    try:
        with safe_open(file, framework="np"):
            entries: dict[str, Any] = json.loads(raw[8:])
    except (SafetensorError, ValueError, RecursionError) as exc:
        raise ValueError(str(exc)[:200]) from exc
    tensors = [
        Tensor(name, entry["dtype"], tuple(entry["shape"]), *(len(raw) + offset for offset in entry["data_offsets"]))
        for name, entry in entries.items()
        if name != "__metadata__"
    ]
    return Header(raw, tuple(sorted(tensors, key=lambda tensor: tensor.start)), frozenset(t.name for t in tensors))


def values_of(tensor: Tensor, data: bytes) -> Values | None:
    """None for what is no float of 16 or 32 bits."""
    if tensor.dtype == "BF16":
        # numpy has no bfloat16: sign, 8 bits of exponent, 7 of fraction. All ones as the exponent is no number.
        largest = int((np.frombuffer(data, "<u2") & 0x7FFF).max(initial=0))
        return Values(finite=largest < 0x7F80, some=largest > 0)
    if tensor.dtype not in FLOATS:
        return None
    values = np.frombuffer(data, FLOATS[tensor.dtype])
    return Values(finite=bool(np.isfinite(values).all()), some=bool(values.any()))


def partner(name: str) -> str | None:
    """The other half of the product that `name` is a half of; None if it is no half of any."""
    match = TENSOR.fullmatch(name)
    if not match:
        return None
    return name.replace(f".lora_{match[4]}.", f".lora_{'B' if match[4] == 'A' else 'A'}.")


def expected_shape(name: str, rank: int, shape: dict[str, Any]) -> tuple[int, int] | None:
    """What a base model of Llama's layout needs there; None for a module that it does not have.

    `shape` is its `base_model.shaping_config`.
    """
    match = TENSOR.fullmatch(name)
    if not match or int(match[1]) >= shape["num_hidden_layers"]:
        return None
    inputs_outputs = _sizes(shape).get((match[2], match[3]))
    if inputs_outputs is None:
        return None
    return (rank, inputs_outputs[0]) if match[4] == "A" else (inputs_outputs[1], rank)


def largest_file(rank: int, shape: dict[str, Any]) -> int:
    """The bytes of an adapter on every module of that base model, in 32 bits."""
    return 4 * weights(rank, shape) + MAX_HEADER_BYTES


def weights(rank: int, shape: dict[str, Any]) -> int:
    """How many numbers an adapter on every module of that base model has."""
    layer = sum(sum(inputs_outputs) for inputs_outputs in _sizes(shape).values())
    return prod([int(shape["num_hidden_layers"]), layer, rank])


def _sizes(shape: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    """(inputs, outputs) of the linear modules of a layer."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    head = shape.get("head_dim") or hidden // shape["num_attention_heads"]
    queries, keys = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    return {
        ("self_attn", "q_proj"): (hidden, queries),
        ("self_attn", "k_proj"): (hidden, keys),
        ("self_attn", "v_proj"): (hidden, keys),
        ("self_attn", "o_proj"): (queries, hidden),
        ("mlp", "gate_proj"): (hidden, inner),
        ("mlp", "up_proj"): (hidden, inner),
        ("mlp", "down_proj"): (inner, hidden),
    }
