"""The base model with 8-bit weights, for a CPU that reads half as much for every token: `server --int8`.

Every linear layer that adapters may change is rounded to 8 bits, one scale for each output (symmetric, nearest); the
embedding and the head, which are the same tensor in many models, stay as they are. vLLM rounds what goes into a layer
at run time, a scale for each token (the scheme W8A8 of compressed-tensors), so that oneDNN multiplies whole numbers.
The copy lies in the user's cache and is made once. It stands for the base model only while serving: adapters are
trained on, and belong to, the model itself. This file does not know vLLM.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.errors import BaseModelError
from adapters.models.base_models import COMPLETE, BaseModel, made_once
from adapters.settings import cache_directory

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 127
"""Of each sign: -128 is left out, so that the range is symmetric."""
INDEX = "model.safetensors.index.json"
SCHEME = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}
"""What config.json says of it; the fields are those of compressed-tensors 0.17."""


def directory(base: BaseModel) -> Path:
    """Where the copy of `base` is; it may not be there."""
    return cache_directory() / "int8" / base.fingerprint.removeprefix("sha256:")[:16]


def prepare(base: BaseModel, modules: list[str], say: Callable[[str], None]) -> Path:
    """The directory of the copy, made if it is not there; `modules` are the names of the layers to round.

    Raises:
        BaseModelError: the model is quantised already, or has none of these layers.
    """

    def make(new: Path) -> None:
        config = json.loads((base.path / "config.json").read_text())
        if "quantization_config" in config:
            raise BaseModelError(f"{base.path} has quantised weights already", "leave --int8 out")
        say(f"rounding the base model's weights to 8 bits, once, into {directory(base)}")
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
    """One file of tensors; returns which names `target` has."""
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
    """`weights` (outputs, inputs) as whole numbers in int8, and their scales (outputs, 1) in the type of `weights`."""
    import torch

    largest = weights.float().abs().amax(1, keepdim=True)
    # Of a row of zeros any scale is right, but 0 would divide.
    scale = torch.where(largest > 0, largest / LEVELS, 1.0).to(weights.dtype)
    whole = (weights.float() / scale.float()).round().clamp(-LEVELS, LEVELS)
    return whole.to(torch.int8), scale
