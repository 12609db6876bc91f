"""May vLLM serve this adapter on this base model? Every reason against it at once, before it costs anything.

vLLM copies a smaller adapter silently into its slots, never compares the base model, and leaves a broken adapter half
loaded; so all of that is settled here, from the config and the tensors alone. This file knows neither store nor server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from adapters.base_model import BaseModel, shaping_config
from adapters.store import CONFIG, WEIGHTS

MAX_RANK = 64
TENSOR = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(self_attn|mlp)\.(\w+)\.lora_(A|B)\.weight")
REFUSED_FEATURES = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA biases",
    "modules_to_save": "fully trained modules",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "use_qalora": "QALoRA",
    "trainable_token_indices": "trained tokens",
}


def reasons_against(
    directory: Path, base: BaseModel | None, max_rank: int = MAX_RANK, published: bool = True
) -> list[str]:
    """Why vLLM may not serve the adapter in `directory` on the base model in `base`; empty if it may.

    Without `base`: what speaks against it on any base model.
    """
    try:
        config = json.loads((directory / CONFIG).read_bytes())
        rank = int(config["r"])
    except FileNotFoundError:
        return [f"{CONFIG} is missing"]
    except (ValueError, KeyError, TypeError):
        return [f"{CONFIG} is no PEFT LoRA configuration"]
    reasons = _config_reasons(config, rank, max_rank)
    if not (directory / WEIGHTS).is_file():
        return [*reasons, f"{WEIGHTS} is missing"]
    try:
        return reasons + _tensor_reasons(directory / WEIGHTS, rank, shaping_config(base.path) if base else None)
    except SafetensorError as exc:
        return [*reasons, f"{WEIGHTS} is damaged ({exc})"]


def _config_reasons(config: dict[str, Any], rank: int, max_rank: int) -> list[str]:
    reasons = [f"vLLM cannot serve {what} ({key})" for key, what in REFUSED_FEATURES.items() if config.get(key)]
    if config.get("peft_type") != "LORA":
        reasons.append(f"its type is {config.get('peft_type')!r}, not LORA")
    if config.get("bias", "none") != "none":
        reasons.append(f"it trains biases (bias={config['bias']!r})")
    if not 1 <= rank <= max_rank:
        reasons.append(f"its rank is {rank}, and the server takes 1 to {max_rank}")
    return reasons


def _tensor_reasons(file: Path, rank: int, shape: dict[str, Any] | None) -> list[str]:
    reasons = []
    changes_something = False
    with safe_open(file, framework="np") as tensors:
        names = list(tensors.keys())
        for name in names:
            found = tuple(tensors.get_slice(name).get_shape())
            expected = _expected_shape(name, rank, shape) if shape else found
            if expected is None:
                reasons.append(f"the base model has no place for tensor {name!r}")
            elif found != expected:
                reasons.append(f"tensor {name!r} has shape {found}, the base model needs {expected}")
            else:
                values = tensors.get_tensor(name)
                if not np.isfinite(values).all():
                    reasons.append(f"tensor {name!r} holds NaN or infinity")
                changes_something |= name.endswith("lora_B.weight") and bool(values.any())
    if not names:
        reasons.append("it holds no tensors")
    elif not changes_something and not reasons:
        reasons.append("it changes nothing: every lora_B is zero")
    return reasons


def _expected_shape(name: str, rank: int, shape: dict[str, Any]) -> tuple[int, int] | None:
    """What the base model of Llama's layout needs there; None for a module that it does not have."""
    match = TENSOR.fullmatch(name)
    if not match or int(match[1]) >= shape["num_hidden_layers"]:
        return None
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    head = shape.get("head_dim") or hidden // shape["num_attention_heads"]
    queries, keys = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    sizes = {
        ("self_attn", "q_proj"): (hidden, queries),
        ("self_attn", "k_proj"): (hidden, keys),
        ("self_attn", "v_proj"): (hidden, keys),
        ("self_attn", "o_proj"): (queries, hidden),
        ("mlp", "gate_proj"): (hidden, inner),
        ("mlp", "up_proj"): (hidden, inner),
        ("mlp", "down_proj"): (inner, hidden),
    }
    inputs_outputs = sizes.get((match[2], match[3]))
    if inputs_outputs is None:
        return None
    return (rank, inputs_outputs[0]) if match[4] == "A" else (inputs_outputs[1], rank)
