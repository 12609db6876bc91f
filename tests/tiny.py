"""A random Llama, Qwen2 or Qwen3 and random adapters, made in a second: for tests where the weights do not matter.

Nothing heavier than numpy is imported. One character is one token, so that a test can count tokens by looking.
"""

from __future__ import annotations

import json
import string
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from adapters.store.version import Version

LAYERS, HIDDEN, INNER, HEADS, KV_HEADS = 2, 64, 128, 4, 2
HEAD = 32
"""Wider than HIDDEN / HEADS: vLLM's attention on a CPU has no kernel for heads of 16."""
RANK = 8
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "Call one as <tool_call>JSON</tool_call><|im_end|>\n{% endif %}"
)
"""Goes before CHAT_TEMPLATE where the template has a place for tools."""


def _linears(hidden: int) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the seven linear modules of a layer."""
    return {
        "self_attn.q_proj": (HEADS * HEAD, hidden),
        "self_attn.k_proj": (KV_HEADS * HEAD, hidden),
        "self_attn.v_proj": (KV_HEADS * HEAD, hidden),
        "self_attn.o_proj": (hidden, HEADS * HEAD),
        "mlp.gate_proj": (INNER, hidden),
        "mlp.up_proj": (INNER, hidden),
        "mlp.down_proj": (hidden, INNER),
    }


LINEARS = _linears(HIDDEN)
QWEN = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "tie_word_embeddings": True}
QWEN2 = QWEN | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": HEADS * HEAD}


def make_base(directory: Path, seed: int = 0, qwen: bool = False, biases: bool = False) -> Path:
    """Write a random Llama with tokenizer and chat template; the spread makes greedy texts differ between prompts.

    `qwen`: a Qwen3 instead, which normalises queries and keys, whose logits share the embedding's weights, and whose
    chat template has a place for tools. `biases`: a Qwen2 instead, whose queries, keys and values have biases.
    """
    directory.mkdir(parents=True)
    own: dict[str, Any] = QWEN if qwen else QWEN2 if biases else {}
    hidden = own.get("hidden_size", HIDDEN)
    vocabulary = _write_tokenizer(directory, TOOLS_TEMPLATE + CHAT_TEMPLATE if qwen else CHAT_TEMPLATE)
    random = np.random.default_rng(seed)

    def spread(*shape: int) -> np.ndarray:
        return random.normal(0, 0.2, shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": spread(vocabulary, hidden)}
    if not own:
        tensors["lm_head.weight"] = spread(vocabulary, hidden)
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if qwen:
        norms |= {"self_attn.q_norm": HEAD, "self_attn.k_norm": HEAD}
    for layer in range(LAYERS):
        for module, shape in _linears(hidden).items():
            tensors[f"model.layers.{layer}.{module}.weight"] = spread(*shape)
            if biases and module.rpartition(".")[2] in ("q_proj", "k_proj", "v_proj"):
                tensors[f"model.layers.{layer}.{module}.bias"] = spread(shape[0])
        for norm, width in norms.items():
            tensors[f"model.layers.{layer}.{norm}.weight"] = np.ones(width, np.float32)
    tensors["model.norm.weight"] = np.ones(hidden, np.float32)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", _config(vocabulary) | own)
    _write_json(directory / "generation_config.json", {"eos_token_id": 2, "pad_token_id": 0})
    return directory


def make_adapter(base: Path, directory: Path, seed: int, rank: int = RANK) -> Path:
    """Write a random LoRA in PEFT's format on all linear modules, as strong as the base model's own weights."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    tensors = {}
    hidden = json.loads((base / "config.json").read_text())["hidden_size"]
    for layer in range(LAYERS):
        for module, (outputs, inputs) in _linears(hidden).items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{prefix}.lora_A.weight"] = random.normal(0, 0.2, (rank, inputs)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = random.normal(0, 0.2, (outputs, rank)).astype(np.float32)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    write_adapter_config(base, directory, rank)
    return directory


def write_adapter_config(base: Path, directory: Path, rank: int) -> None:
    """PEFT's description of a LoRA on all linear modules, for the facts that `facts` gives."""
    _write_json(
        directory / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base),
            "r": rank,
            "lora_alpha": 2 * rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "target_modules": target_modules(),
        },
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads that wait for one another make the tiny model ten times slower on a busy machine: 3 s a step, not 0.1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch else 0
        if torch:
            torch.set_num_threads(1)
        yield
        if torch:
            torch.set_num_threads(threads)


def publish(store: Store, base: BaseModel, name: str, seed: int, rank: int = RANK) -> Version:
    """Make a random adapter of `base` the next version of `name`."""
    with tempfile.TemporaryDirectory() as scratch:
        files = make_adapter(base.path, Path(scratch) / "adapter", seed, rank)
        return store.publish(name, files, facts(base.name, base.fingerprint, rank, base.source))


def target_modules() -> list[str]:
    return [module.partition(".")[2] for module in LINEARS]


def facts(base_name: str, base_fingerprint: str, rank: int = RANK, base_source: str = "") -> dict[str, Any]:
    """What Store.publish wants to know about an adapter that nobody trained."""
    return {
        "base_name": base_name,
        "base_source": base_source,
        "base_fingerprint": base_fingerprint,
        "lora": {"rank": rank, "alpha": 2 * rank, "target_modules": target_modules()},
        "data_sha256": "0" * 64,
        "data_licence": "CC0-1.0",
        "recipe": {},
        "training": {
            "examples": 1,
            "practice_examples": 0,
            "heldout_examples": 0,
            "epochs": 1,
            "steps": 1,
            "tokens": 1,
            "seconds": 1.0,
            "learning_rate": 1e-3,
            "train_loss": 1.0,
            "heldout_loss_before": None,
            "heldout_loss": None,
            "versions": {},
        },
    }


def _write_tokenizer(directory: Path, chat_template: str) -> int:
    characters = string.ascii_letters + string.digits + string.punctuation + " \n"
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *characters])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="?"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "chat_template": chat_template,
        },
    )
    return len(vocabulary)


def _config(vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "dtype": "float32",
    }


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")
