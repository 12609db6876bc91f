"""The tensors of a safetensors file: their header, their values, and the shapes that a base model needs of a LoRA."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

TENSOR = re.compile(r"base_model\.model\.model\.layers\.(\d{1,6})\.(self_attn|mlp)\.(\w+)\.lora_(A|B)\.weight")
# Files of Python's pickle, which may run code when they are read.
CODE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# A 70B model's adapter on all seven modules needs 0.2 MB.
MAX_HEADER_BYTES = 2**22
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
        """The LoRA rank of its shape; None if it is not a LoRA matrix."""
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
    """The header of `file`, checked against the file's length.

    Raises:
        ValueError: it is not a whole safetensors file.
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


def parameters(model: Path) -> int:
    """How many numbers the tensors of the model in a directory have, by the headers of its files."""
    return sum(prod(tensor.shape) for file in model.glob("*.safetensors") for tensor in header_of(file).tensors)


def new_header(tensors: Iterable[tuple[str, str, Sequence[int], int]]) -> bytes:
    """What a file begins with that holds the data of `tensors` behind one another: (name, type, shape, bytes) each."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape, size in tensors:
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(entries).encode()
    # The format wants the data to begin at a multiple of eight bytes.
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def values_of(tensor: Tensor, data: bytes) -> Values | None:
    """None for other types than floats of 16 or 32 bits."""
    if tensor.dtype == "BF16":
        # numpy has no bfloat16: sign, 8 bits of exponent, 7 of fraction. An exponent of all ones is NaN or infinity.
        largest = int((np.frombuffer(data, "<u2") & 0x7FFF).max(initial=0))
        return Values(finite=largest < 0x7F80, some=largest > 0)
    if tensor.dtype not in FLOATS:
        return None
    values = np.frombuffer(data, FLOATS[tensor.dtype])
    return Values(finite=bool(np.isfinite(values).all()), some=bool(values.any()))


def partner(name: str) -> str | None:
    """The lora_B of a lora_A and the lora_A of a lora_B; None for any other tensor."""
    match = TENSOR.fullmatch(name)
    if not match:
        return None
    return name.replace(f".lora_{match[4]}.", f".lora_{'B' if match[4] == 'A' else 'A'}.")


def expected_shape(name: str, rank: int, shape: dict[str, Any]) -> tuple[int, int] | None:
    """The shape for the tensor `name` on a base model of Llama's layout; None for a module that it does not have.

    `shape` is its `base_models.shaping_config`.
    """
    match = TENSOR.fullmatch(name)
    if not match or int(match[1]) >= shape["num_hidden_layers"]:
        return None
    inputs_outputs = _sizes(shape).get((match[2], match[3]))
    if inputs_outputs is None:
        return None
    return (rank, inputs_outputs[0]) if match[4] == "A" else (inputs_outputs[1], rank)


def largest_file(rank: int, shape: dict[str, Any]) -> int:
    """The bytes of an adapter on every module of the base model, in 32 bits."""
    return 4 * weights(rank, shape) + MAX_HEADER_BYTES


def weights(rank: int, shape: dict[str, Any]) -> int:
    """How many numbers an adapter on every module of the base model has."""
    layer = sum(sum(inputs_outputs) for inputs_outputs in _sizes(shape).values())
    return int(shape["num_hidden_layers"]) * layer * rank


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
