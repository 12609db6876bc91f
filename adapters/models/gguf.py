"""A GGUF file -> a directory with bf16 safetensors, config and tokenizer, tensor by tensor.

Transformers can do this too, but holds the model in float32 and takes minutes for 1.5 billion parameters. The `gguf`
package dequantises here as it does there; its reader takes 12 s for 150,000 words, so the header is read here
(format: ggml's docs/gguf.md).
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.errors import BaseModelError
from adapters.models.tensors import new_header
from adapters.settings import silence_telemetry

MAGIC = b"GGUF"
# The format's numbers of value types.
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Values that one thread computes at a time: 16 MB in float32, of which two or three copies live.
CHUNK_VALUES = 4 * 2**20
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
Words = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Tensor:
    """`shape` is torch's, outputs first; `start` counts from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class Header:
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]

    def value(self, name: str) -> Any:
        """The value of the architecture's own field, such as `block_count`; raises KeyError."""
        return self.metadata[f"{self.metadata['general.architecture']}.{name}"]


def convert(
    file: Path,
    target: Path,
    tied: bool = False,
    generation: Mapping[str, object] | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the model in `file` to the new directory `target`.

    `tied`: output and embedding are one matrix, and where the file holds both, the output, which is quantised more
    finely, counts. `generation` is added to generation_config.json. `advance` gets the parameters done since its last
    call, from several threads.

    Raises:
        BaseModelError: the file is damaged, or of an architecture that is not llama, qwen2 or qwen3.
    """
    try:
        header = read_header(file)
        config = config_of(header, tied)
        sources = _sources(header, config)
    except (ValueError, KeyError, IndexError, struct.error, UnicodeDecodeError) as exc:
        raise BaseModelError(f"{file} cannot be converted: {type(exc).__name__}: {exc}", "fetch it again") from exc
    target.mkdir(parents=True)
    _write_tensors(file, target / "model.safetensors", sources, config, advance)
    _write_json(target / "config.json", config)
    special = {name: config[name] for name in config if name.endswith("_token_id")}
    _write_json(target / "generation_config.json", special | dict(generation or {}))
    _write_tokenizer(file, target, config["model_type"])


def read_header(file: Path) -> Header:
    """Raises ValueError, IndexError or struct.error for a file that is not GGUF or ends too early."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != MAGIC:
            raise ValueError("it is not a GGUF file")
        reader = _Reader(content, 4)
        _, tensor_count, field_count = reader.numbers("IQQ")
        metadata = {reader.text(): reader.value() for _ in range(field_count)}
        infos = []
        for _ in range(tensor_count):
            name = reader.text()
            (dimensions,) = reader.numbers("I")
            shape = tuple(reversed(reader.numbers(f"{dimensions}Q")))
            infos.append((name, shape, *reader.numbers("IQ")))
        alignment = metadata.get("general.alignment", 32)
        start = -(-reader.position // alignment) * alignment
        for name, shape, kind, offset in infos:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            if start + offset + int(np.prod(shape)) // block * size > len(content):
                raise ValueError(f"it ends before tensor {name!r} does")
    return Header(metadata, tuple(Tensor(name, shape, kind, start + offset) for name, shape, kind, offset in infos))


class _Reader:
    """Reads a header from `position` on."""

    def __init__(self, content: mmap.mmap, position: int) -> None:
        self.content, self.position = content, position

    def numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.content, self.position)
        self.position += struct.calcsize(f"<{form}")
        return values

    def text(self) -> str:
        (length,) = self.numbers("Q")
        self.position += length
        return self.content[self.position - length : self.position].decode("utf-8")

    def value(self, kind: int | None = None) -> Any:
        kind = self.numbers("I")[0] if kind is None else kind
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            element, count = self.numbers("IQ")
            if element in SCALARS:
                return list(self.numbers(f"{count}{SCALARS[element]}"))
            return [self.value(element) for _ in range(count)]
        return self.numbers(SCALARS[kind])[0]


def config_of(header: Header, tied: bool = False) -> dict[str, Any]:
    """config.json; raises ValueError for another architecture, KeyError for a missing field."""
    architecture = header.metadata["general.architecture"]
    if architecture not in CLASSES:
        raise ValueError(f"its architecture is {architecture!r}, and not one of {', '.join(CLASSES)}")
    has_output = any(tensor.name == "output.weight" for tensor in header.tensors)
    config = {
        "architectures": [CLASSES[architecture]],
        "model_type": architecture,
        "dtype": "bfloat16",
        "hidden_size": header.value("embedding_length"),
        "intermediate_size": header.value("feed_forward_length"),
        "num_hidden_layers": header.value("block_count"),
        "num_attention_heads": header.value("attention.head_count"),
        "num_key_value_heads": header.value("attention.head_count_kv"),
        "max_position_embeddings": header.value("context_length"),
        "vocab_size": len(header.metadata["tokenizer.ggml.tokens"]),
        "hidden_act": "silu",
        "rms_norm_eps": header.value("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": header.value("rope.freq_base")},
        "tie_word_embeddings": tied or not has_output,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        # Without it transformers takes the tokenizer for one of Mistral's with a wrong expression, and warns.
        "transformers_version": version("transformers"),
    }
    if architecture != "qwen2":
        config |= {"head_dim": _head_dim(header), "attention_bias": False}
    if architecture == "llama":
        config["mlp_bias"] = False
    for name, field in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        if (token := header.metadata.get(f"tokenizer.ggml.{field}_token_id")) is not None:
            config[f"{name}_token_id"] = token
    return config


def _head_dim(header: Header) -> int:
    own = f"{header.metadata['general.architecture']}.attention.key_length"
    hidden, heads = header.value("embedding_length"), header.value("attention.head_count")
    return int(header.metadata.get(own, hidden // heads))


def _sources(header: Header, config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensor of each name in safetensors."""
    sources = {_name(tensor.name): tensor for tensor in header.tensors}
    if config["tie_word_embeddings"] and "lm_head.weight" in sources:
        sources["model.embed_tokens.weight"] = sources.pop("lm_head.weight")
    return sources


def _name(name: str) -> str:
    """Raises ValueError for a tensor that these architectures do not have."""
    module, _, kind = name.rpartition(".")
    if module in TOP:
        return f"{TOP[module]}.{kind}"
    block, _, rest = module.partition(".")
    number, _, part = rest.partition(".")
    if block != "blk" or part not in IN_LAYER:
        raise ValueError(f"its tensor {name!r} has no place in the model")
    return f"model.layers.{number}.{IN_LAYER[part]}.{kind}"


def _write_tensors(
    file: Path, target: Path, sources: dict[str, Tensor], config: dict[str, Any], advance: Callable[[int], object]
) -> None:
    """The header first; then several threads dequantise chunks, each straight to its place in the file."""
    sizes = {name: 2 * int(np.prod(tensor.shape)) for name, tensor in sources.items()}
    head = new_header((name, "BF16", tensor.shape, sizes[name]) for name, tensor in sources.items())
    *starts, end = accumulate(sizes.values(), initial=len(head))
    start_of = dict(zip(sizes, starts, strict=True))
    content = np.memmap(file, dtype=np.uint8, mode="r")
    with target.open("wb") as opened, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        opened.write(head)
        opened.flush()
        os.truncate(opened.fileno(), end)

        def write(name: str, first: int, rows: int) -> None:
            tensor = sources[name]
            words = bf16(_rows(content, tensor, first, rows, _heads(tensor, config)))
            width = tensor.shape[-1] if len(tensor.shape) > 1 else 1
            os.pwrite(opened.fileno(), words.tobytes(), start_of[name] + 2 * first * width)
            advance(words.size)

        # list: an error of a thread is raised here.
        list(pool.map(lambda chunk: write(*chunk), _chunks(sources, config)))


def _chunks(sources: dict[str, Tensor], config: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Name, first row and number of rows; a tensor whose rows are permuted is a single chunk."""
    for name, tensor in sources.items():
        rows = tensor.shape[0]
        step = rows if _heads(tensor, config) else max(1, CHUNK_VALUES // max(1, int(np.prod(tensor.shape[1:]))))
        for first in range(0, rows, step):
            yield name, first, min(step, rows - first)


def _heads(tensor: Tensor, config: dict[str, Any]) -> int:
    """How many heads' rows are permuted: llama.cpp turns Llama's queries and keys for its own rotary embedding."""
    if config["model_type"] != "llama":
        return 0
    if tensor.name.endswith("attn_q.weight"):
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if tensor.name.endswith("attn_k.weight") else 0


def _rows(content: npt.NDArray[np.uint8], tensor: Tensor, first: int, rows: int, heads: int) -> npt.NDArray[np.float32]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(tensor.kind)
    block, size = GGML_QUANT_SIZES[kind]
    width = int(np.prod(tensor.shape[1:])) // block * size
    start = tensor.start + first * width
    data = content[start : start + rows * width].reshape(rows, width)
    values: npt.NDArray[np.float32] = dequantize(_plain(data, kind.name), kind)
    if heads:
        values = values.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows, -1)
    return values


def _plain(data: npt.NDArray[np.uint8], kind: str) -> npt.NDArray[Any]:
    """Bytes of a format that is not quantised as its numbers, which is what `dequantize` wants then."""
    formats = {"F32": np.float32, "F16": np.float16}
    return data.view(formats[kind]) if kind in formats else data


def bf16(values: npt.NDArray[np.float32]) -> Words:
    """The upper half of each float32, rounded to nearest even as torch does; NaN is not handled."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def _write_tokenizer(file: Path, target: Path, model_type: str) -> None:
    silence_telemetry()
    # AutoTokenizer makes the same tokenizer.json, and first reads the header with the slow reader.
    from tokenizers.normalizers import NFC
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
    if model_type.startswith("qwen"):
        # Qwen's own has it and a GGUF file cannot say so. vLLM's Qwen2Tokenizer adds it; training reads the file alone.
        tokenizer.backend_tokenizer.normalizer = NFC()
    tokenizer.save_pretrained(target)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
