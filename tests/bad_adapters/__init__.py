"""Adapters that no server may load: each spoils a good published version in its own way.

A kind is a function that spoils the directory, and what its one reason says. What is spoilt is signed again, so that
its digest is right: somebody else's program published it like that.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from adapters.store.store import content_digest
from adapters.store.version import CONFIG, MANIFEST, WEIGHTS

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q_PROJ}.lora_A.weight", f"{Q_PROJ}.lora_B.weight"
Tensors = dict[str, np.ndarray]
MAX_RANK = 16
"""Of the server that is to refuse them."""


@dataclass(frozen=True)
class Kind:
    spoil: Callable[[Path], object]
    reason: str
    """A part of it."""
    signed: bool = True
    only_published: bool = False
    """Nothing is wrong with its configuration and weights, so that they could be imported."""


def config(**fields: Any) -> Callable[[Path], object]:
    def spoil(directory: Path) -> None:
        file = directory / CONFIG
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return spoil


def config_text(text: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / CONFIG).write_bytes(text)


def manifest(**fields: Any) -> Callable[[Path], object]:
    """A field that is None goes."""

    def spoil(directory: Path) -> None:
        file = directory / MANIFEST
        changed = json.loads(file.read_text()) | fields
        file.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))

    return spoil


def tensors(change: Callable[[Tensors], object]) -> Callable[[Path], object]:
    def spoil(directory: Path) -> None:
        found = load_file(directory / WEIGHTS)
        change(found)
        save_file(found, directory / WEIGHTS)

    return spoil


def every(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    return tensors(lambda found: found.update({name: change(name, tensor) for name, tensor in found.items()}))


def one_value(name: str, value: float, kind: type = np.float32) -> Callable[[Path], object]:
    def change(found: Tensors) -> None:
        found[name] = found[name].astype(kind)
        found[name][3, 2] = value

    return tensors(change)


def bfloat16_nan(directory: Path) -> None:
    """By hand: numpy writes no bfloat16."""
    found = load_file(directory / WEIGHTS)
    header, data = {}, b""
    for name, tensor in found.items():
        bits = (tensor.view(np.uint32) >> 16).astype(np.uint16)
        if name == A:
            bits[0, 0] = 0x7FC0
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + bits.nbytes],
        }
        data += bits.tobytes()
    text = json.dumps(header).encode()
    (directory / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data)


def truncated(directory: Path) -> None:
    os.truncate(directory / WEIGHTS, (directory / WEIGHTS).stat().st_size - 1)


def header_that_lies(directory: Path) -> None:
    whole = (directory / WEIGHTS).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header[A]["data_offsets"] = header[B]["data_offsets"]
    text = json.dumps(header).encode()
    (directory / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])


def pickled_instead(directory: Path) -> None:
    (directory / WEIGHTS).rename(directory / "adapter_model.bin")


def link(name: str) -> Callable[[Path], object]:
    def spoil(directory: Path) -> None:
        outside = directory.parent / f"outside-{directory.name}-{name}"
        (directory / name).rename(outside)
        (directory / name).symlink_to(outside)

    return spoil


def pipe(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    os.mkfifo(directory / WEIGHTS)


def folder(directory: Path) -> None:
    (directory / CONFIG).unlink()
    (directory / CONFIG).mkdir()


KINDS = {
    "of another base model": Kind(
        manifest(base_fingerprint=f"sha256:{'0' * 64}"), "it was trained on tiny-llama (sha256:0", only_published=True
    ),
    "no manifest": Kind(lambda directory: (directory / MANIFEST).unlink(), "manifest.json is missing", signed=False),
    "no base fingerprint": Kind(manifest(base_fingerprint=None), "(base_fingerprint)", only_published=True),
    "broken manifest": Kind(
        lambda directory: (directory / MANIFEST).write_text("{"), "manifest.json is not valid JSON", signed=False
    ),
    "changed after its publish": Kind(
        config(lora_alpha=17), "not the ones that were published", signed=False, only_published=True
    ),
    "rank above the server's": Kind(
        config(r=32, rank_pattern={"x": 1}), "its rank is 32, and the server takes 1 to 16"
    ),
    "rank as a text": Kind(config(r="8"), "its rank is '8'"),
    "rank as a truth": Kind(config(r=True), "its rank is True"),
    "rank beyond counting": Kind(config(r=10**12, rank_pattern={"x": 1}), "its rank is 1000000000000"),
    "rank of 0": Kind(config(r=0), "its rank is 0"),
    "one tensor of a larger rank": Kind(
        lambda directory: (
            config(rank_pattern={"q_proj": 32})(directory),
            tensors(lambda t: t.update({A: np.ones((32, 64), np.float32), B: np.ones((128, 32), np.float32)}))(
                directory
            ),
        ),
        "has rank 32, and the server takes 1 to 16",
    ),
    "of a narrower model": Kind(
        tensors(lambda t: t.update({A: np.ones((8, 32), np.float32)})),
        "has shape (8, 32), the base model needs (8, 64)",
    ),
    "of a deeper model": Kind(
        tensors(lambda t: t.update({A.replace("layers.0", "layers.2"): t[A]})), "has no place for tensor"
    ),
    "with a head": Kind(
        tensors(lambda t: t.update({"base_model.model.lm_head.lora_A.weight": t[A]})), "has no place for tensor"
    ),
    "half a product": Kind(tensors(lambda t: t.pop(B)), "has no lora_B beside it"),
    "no tensors": Kind(lambda directory: save_file({}, directory / WEIGHTS), "it holds no tensors"),
    "DoRA": Kind(config(use_dora=True), "DoRA"),
    "LoRA biases": Kind(config(lora_bias=True), "LoRA biases"),
    "fully trained modules": Kind(config(modules_to_save=["lm_head"]), "fully trained modules"),
    "activated LoRA": Kind(config(alora_invocation_tokens=[1, 2]), "activated LoRA"),
    "layer replication": Kind(config(layer_replication=[[0, 1]]), "layer replication"),
    "block-diagonal LoRA": Kind(config(use_bdlora={"x": 1}), "block-diagonal LoRA"),
    "QALoRA": Kind(config(use_qalora=True), "QALoRA"),
    "trained tokens": Kind(config(trainable_token_indices=[1]), "trained tokens"),
    "transposed weights": Kind(config(fan_in_fan_out=True), "transposed weights"),
    "PiSSA": Kind(config(init_lora_weights="pissa_niter_4"), "init_lora_weights='pissa_niter_4'"),
    "trained biases": Kind(config(bias="all"), "it trains biases"),
    "another method": Kind(config(peft_type="IA3"), "its type is 'IA3'"),
    "a classifier": Kind(config(task_type="SEQ_CLS"), "its task is 'SEQ_CLS'"),
    "odd targets": Kind(config(target_modules=[["q_proj"]]), "target_modules"),
    "a pickle instead of weights": Kind(pickled_instead, "'adapter_model.bin' may run code", signed=False),
    "a pickle beside the weights": Kind(
        lambda directory: (directory / "optimizer.pt").write_bytes(b"x"),
        "'optimizer.pt' may run code",
        only_published=True,
    ),
    "a file too many": Kind(
        lambda directory: (directory / "notes.txt").write_text("x"), "'notes.txt' does not belong", only_published=True
    ),
    "linked weights": Kind(link(WEIGHTS), "adapter_model.safetensors is a symbolic link", signed=False),
    "linked configuration": Kind(link(CONFIG), "adapter_config.json is a symbolic link", signed=False),
    "a pipe": Kind(pipe, "adapter_model.safetensors is not a plain file", signed=False),
    "a folder": Kind(folder, "adapter_config.json is not a plain file", signed=False),
    "truncated": Kind(truncated, "adapter_model.safetensors is damaged"),
    "a header larger than the file may be": Kind(
        lambda directory: (directory / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + b"{}"),
        "its header would have 1099511627776 bytes",
    ),
    "a header that lies": Kind(header_that_lies, "adapter_model.safetensors is damaged"),
    "larger than it could need": Kind(
        lambda directory: os.truncate(directory / WEIGHTS, 2**27), "bytes, and could need", signed=False
    ),
    "NaN": Kind(one_value(A, np.nan), "holds NaN or infinity"),
    "infinity in float16": Kind(one_value(B, np.inf, np.float16), "holds NaN or infinity"),
    "NaN in bfloat16": Kind(bfloat16_nan, "holds NaN or infinity"),
    "zero outputs": Kind(every(lambda name, t: t * ("lora_A" in name)), "it changes nothing"),
    "zero inputs": Kind(every(lambda name, t: t * ("lora_B" in name)), "it changes nothing"),
    "no strength": Kind(config(lora_alpha=0), "its lora_alpha is 0"),
    "negative strength": Kind(config(lora_alpha=-1), "its lora_alpha is -1"),
    "strength that is no number": Kind(config(lora_alpha=float("nan")), "NaN is not JSON"),
    "whole numbers": Kind(tensors(lambda t: t.update({A: np.ones((8, 64), np.int8)})), "is I8, and vLLM wants"),
    "float64": Kind(tensors(lambda t: t.update({A: np.ones((8, 64), np.float64)})), "is F64, and vLLM wants"),
    "nested too deeply": Kind(config_text(b"[" * 100_000), "nested too deeply"),
    "a huge configuration": Kind(config_text(b" " * (2**20 + 1)), "adapter_config.json is larger than"),
    "a key that comes twice": Kind(config_text(b'{"r": 8, "r": 9}'), "a key comes twice"),
    "no text": Kind(config_text(b"\xff\xfe\xfd"), "adapter_config.json is not valid JSON"),
    "a list": Kind(config_text(b"[]"), "adapter_config.json is not a PEFT LoRA configuration"),
}


def spoil(kind: str, directory: Path) -> None:
    """Make the good published version in `directory` one of that kind."""
    KINDS[kind].spoil(directory)
    if KINDS[kind].signed:
        manifest(adapter_sha256=content_digest(directory))(directory)
