"""The base model with 8-bit weights, for a CPU, which then reads half as much for every token.

Every linear layer that adapters may change is rounded to 8 bits, with one scale for each output (symmetric, nearest).
vLLM rounds the inputs of a layer at run time, with a scale for each token (the scheme W8A8 of compressed-tensors).
Embedding and head are rounded in the same way, one scale a word, and server/cpu/words.py computes with them. The copy
lies in the user's cache. It replaces the base model only in serving: adapters are trained on the model itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.console import byte_bar
from adapters.errors import BaseModelError
from adapters.models.base_models import COMPLETE, BaseModel, made_once
from adapters.models.tensors import Tensor as Stored
from adapters.models.tensors import header_of, new_header, parameters
from adapters.settings import cache_directory

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 127  # of each sign: without -128 the range is symmetric
PIECE_ELEMENTS = 2**22  # rounded at once, in 80 MB of memory; a quarter of it takes three times as long
LARGE_PARAMETERS = 1_000_000_000
"""From this size on a CPU reads 8-bit weights by default: docs/decisions/cpu-serving.md has speed and quality."""
INDEX = "model.safetensors.index.json"
WORDS = ["embed_tokens", "lm_head"]
# vLLM hands only in these models what it needs to round embedding and head; others keep theirs.
WITH_ROUNDED_WORDS = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
WITH_WORDS = "mailwright-int8"
"""The `quant_method` of a copy with rounded words, which server/cpu/words.py registers."""
ROUNDED = {"num_bits": 8, "type": "int", "symmetric": True}
# The field `quantization_config` of config.json, as compressed-tensors 0.17 reads it.
SCHEME = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": ROUNDED | {"strategy": "channel", "dynamic": False},
            "input_activations": ROUNDED | {"strategy": "token", "dynamic": True},
        }
    },
}


def install() -> None:
    """Patch vLLM in this process, if it computes on a CPU; a second call changes nothing."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.kernels.linear.scaled_mm import cpu

    # Patch: where a CPU has AMX, vLLM 0.32 chooses a kernel for 8-bit weights that refuses inputs in float32, and the
    # engine ends at the first request. Remove when tests/server/cpu/test_int8.py passes without it on such a CPU.
    cpu.check_cpu_sgl_kernel = with_16_bits


def with_16_bits(outputs: int, inputs: int, dtype: Any) -> bool:
    """Whether vLLM's kernel for AMX can be used; while a model is loaded, its type is torch's default one."""
    import torch
    from vllm.model_executor.layers.utils import check_cpu_sgl_kernel

    return torch.get_default_dtype() != torch.float32 and bool(check_cpu_sgl_kernel(outputs, inputs, dtype))


def chosen(setting: bool | None, cuda: bool, base: BaseModel) -> tuple[bool, str]:
    """Whether the server computes with 8-bit weights, and the reason; `setting` is --int8, --no-int8 or neither."""
    if setting is not None:
        return setting, "--int8" if setting else "--no-int8"
    if cuda:
        return False, "on a GPU"
    if "quantization_config" in _config(base.path):
        return False, "its weights are quantised already"
    count = parameters(base.path)
    if count < LARGE_PARAMETERS:
        return False, f"{count / 1e6:.0f} million parameters; --int8 is the default from {LARGE_PARAMETERS:.0e} on"
    return True, f"{count / 1e9:.1f} billion parameters, which a CPU reads for every token; --no-int8 keeps 16"


def directory(base: BaseModel) -> Path:
    """Where the copy of `base` lies; may not exist yet."""
    return cache_directory() / "int8-words" / base.fingerprint.removeprefix("sha256:")[:16]


def prepare(base: BaseModel, modules: list[str], log: Callable[[str], None]) -> Path:
    """The directory of the copy, made if it does not exist; `modules` are the names of the linear layers to round.

    Raises:
        BaseModelError: the model is quantised already, or has none of these layers.
    """

    def make(new: Path) -> None:
        config = _config(base.path)
        if "quantization_config" in config:
            raise BaseModelError(f"{base.path} has quantised weights already", "leave --int8 out")
        has_words = not WITH_ROUNDED_WORDS.isdisjoint(config.get("architectures") or [])
        scheme = SCHEME | ({"quant_method": WITH_WORDS} if has_words else {})
        files = sorted(base.path.glob("*.safetensors"))
        log(f"rounding the base model's weights to 8 bits, once, into {directory(base)}")
        left_out = shutil.ignore_patterns("*.safetensors", INDEX, COMPLETE)
        shutil.copytree(base.path, new, ignore=left_out)
        (new / "config.json").write_text(json.dumps(config | {"quantization_config": scheme}, indent=2))
        endings = tuple(f"{module}.weight" for module in modules + (WORDS if has_words else []))
        names: dict[str, str] = {}
        with byte_bar("rounding", sum(file.stat().st_size for file in files)) as advance:
            for file in files:
                names |= dict.fromkeys(_round(file, new / file.name, endings, advance), file.name)
        if not any(name.endswith(tuple(f"{module}.weight_scale" for module in modules)) for name in names):
            raise BaseModelError(f"{base.path} has none of the layers {', '.join(modules)}", "leave --int8 out")
        (new / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return made_once(directory(base), make)


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    return config


def _round(source: Path, target: Path, endings: tuple[str, ...], advance: Callable[[int], object]) -> list[str]:
    """Round one file of tensors, piece by piece, so that no tensor is in memory as a whole; the names in `target`."""
    stored = header_of(source).tensors
    entries = [entry for tensor in stored for entry in _entries(tensor, endings)]
    with target.open("wb") as file:
        file.write(new_header(entries))
        for tensor in stored:
            for part in _parts(source, tensor, endings):
                file.write(part)
            advance(tensor.end - tensor.start)
    return [name for name, *_ in entries]


def _entries(tensor: Stored, endings: tuple[str, ...]) -> list[tuple[str, str, list[int], int]]:
    """(name, type, shape, bytes) of what `tensor` becomes in the copy."""
    shape, size = list(tensor.shape), tensor.end - tensor.start
    if not tensor.name.endswith(endings):
        return [(tensor.name, tensor.dtype, shape, size)]
    outputs, inputs = shape
    return [
        (tensor.name, "I8", shape, outputs * inputs),
        (f"{tensor.name}_scale", tensor.dtype, [outputs, 1], size // inputs),
    ]


def _parts(source: Path, tensor: Stored, endings: tuple[str, ...]) -> Iterator[memoryview]:
    """The bytes of `_entries`, in their order."""
    import torch
    from safetensors import safe_open

    def raw(values: Tensor) -> memoryview:
        return memoryview(values.contiguous().flatten().view(torch.uint8).numpy())

    with safe_open(source, framework="pt") as opened:
        if not tensor.name.endswith(endings):
            yield raw(opened.get_tensor(tensor.name))
            return
        outputs, inputs = tensor.shape
        rows, scales = max(1, PIECE_ELEMENTS // inputs), []
        for first in range(0, outputs, rows):
            whole, scale = rounded(opened.get_slice(tensor.name)[first : first + rows])
            scales.append(scale)
            yield raw(whole)
        yield raw(torch.cat(scales))


def rounded(weights: Tensor) -> tuple[Tensor, Tensor]:
    """`weights` (outputs, inputs) as int8, and their scales (outputs, 1) in the type of `weights`."""
    import torch

    largest = weights.float().abs().amax(1, keepdim=True)
    # A row of zeros may have any scale but 0, which would divide.
    scale = torch.where(largest > 0, largest / LEVELS, 1.0).to(weights.dtype)
    whole = (weights.float() / scale.float()).round().clamp(-LEVELS, LEVELS)
    return whole.to(torch.int8), scale
