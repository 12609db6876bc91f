"""The base model with 8-bit weights: `server --int8`, for a CPU, which then reads half as much for every token.

Every linear layer that adapters may change is rounded to 8 bits, with one scale for each output (symmetric, nearest);
embedding and head stay as they are. vLLM rounds the inputs of a layer at run time, with a scale for each token (the
scheme W8A8 of compressed-tensors). The copy lies in the user's cache. It replaces the base model only in serving:
adapters are trained on the model itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import BaseModelError
from adapters.models.base_models import COMPLETE, BaseModel, made_once
from adapters.settings import cache_directory

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 127  # of each sign: without -128 the range is symmetric
INDEX = "model.safetensors.index.json"
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


def directory(base: BaseModel) -> Path:
    """Where the copy of `base` lies; may not exist yet."""
    return cache_directory() / "int8" / base.fingerprint.removeprefix("sha256:")[:16]


def prepare(base: BaseModel, modules: list[str], log: Callable[[str], None]) -> Path:
    """The directory of the copy, made if it does not exist; `modules` are the names of the layers to round.

    Raises:
        BaseModelError: the model is quantised already, or has none of these layers.
    """

    def make(new: Path) -> None:
        config = json.loads((base.path / "config.json").read_text())
        if "quantization_config" in config:
            raise BaseModelError(f"{base.path} has quantised weights already", "leave --int8 out")
        log(f"rounding the base model's weights to 8 bits, once, into {directory(base)}")
        left_out = shutil.ignore_patterns("*.safetensors", INDEX, COMPLETE)
        shutil.copytree(base.path, new, ignore=left_out)
        (new / "config.json").write_text(json.dumps(config | {"quantization_config": SCHEME}, indent=2))
        files = [_round(file, new / file.name, modules) for file in sorted(base.path.glob("*.safetensors"))]
        names = {name: file for named in files for name, file in named.items()}
        if not any(name.endswith("weight_scale") for name in names):
            raise BaseModelError(f"{base.path} has none of the layers {', '.join(modules)}", "leave --int8 out")
        (new / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return made_once(directory(base), make)


def _round(source: Path, target: Path, modules: list[str]) -> dict[str, str]:
    """Round one file of tensors; returns the file of each name in `target`."""
    from safetensors.torch import load_file, save_file

    endings = tuple(f"{module}.weight" for module in modules)
    tensors = {}
    for name, tensor in load_file(source).items():
        tensors[name] = tensor
        if name.endswith(endings):
            tensors[name], tensors[f"{name}_scale"] = rounded(tensor)
    save_file(tensors, target, metadata={"format": "pt"})
    return dict.fromkeys(tensors, target.name)


def rounded(weights: Tensor) -> tuple[Tensor, Tensor]:
    """`weights` (outputs, inputs) as int8, and their scales (outputs, 1) in the type of `weights`."""
    import torch

    largest = weights.float().abs().amax(1, keepdim=True)
    # A row of zeros may have any scale but 0, which would divide.
    scale = torch.where(largest > 0, largest / LEVELS, 1.0).to(weights.dtype)
    whole = (weights.float() / scale.float()).round().clamp(-LEVELS, LEVELS)
    return whole.to(torch.int8), scale
