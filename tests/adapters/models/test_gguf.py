"""Tiny GGUF files of the gguf package's own writer, beside transformers' conversion of the same file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adapters.errors import BaseModelError
from adapters.models import gguf
from adapters.models.base_models import fingerprint

LAYERS, HIDDEN, INNER, HEADS, KV_HEADS = 2, 256, 512, 4, 2
HEAD = {"llama": 64, "qwen2": 64, "qwen3": 128, "gemma": 64}
"""Of a Qwen3 it is not the hidden size divided by the heads; transformers takes 128 for every GGUF file of one."""
WORDS = [
    *map(chr, range(ord("!"), ord("~") + 1)),
    "Ã",
    "©",
    "Ì",
    "ģ",
    "ab",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
]
END = len(WORDS) - 1
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
BIG, SMALL, PLAIN = (package.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_1", "F32"))


def _describe(writer: package.GGUFWriter, architecture: str) -> None:
    writer.add_name("Tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(12345.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "qwen3":
        writer.add_key_length(HEAD[architecture])
        writer.add_value_length(HEAD[architecture])
    if architecture == "llama":
        writer.add_rope_dimension_count(HEAD[architecture])
        writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(WORDS)
    writer.add_token_types([1] * (len(WORDS) - 3) + [3] * 3)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(END - 2)
    writer.add_bos_token_id(END - 2)
    writer.add_chat_template(TEMPLATE)


def write(file: Path, architecture: str, output: bool = False, change: Callable[[Any], None] = lambda _: None) -> Path:
    """A random model; with `output` the file holds embedding and output, the latter quantised more finely."""
    random, head = np.random.default_rng(0), HEAD[architecture]
    writer = package.GGUFWriter(file, architecture)
    _describe(writer, architecture)

    def add(name: str, kind: package.GGMLQuantizationType, *shape: int) -> None:
        values = random.normal(0, 0.2, shape).astype(np.float32)
        writer.add_tensor(name, package.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", SMALL, len(WORDS), HIDDEN)
    if output:
        add("output.weight", BIG, len(WORDS), HIDDEN)
    for layer in range(LAYERS):
        part = f"blk.{layer}."
        for name, rows in {"attn_q": HEADS * head, "attn_k": KV_HEADS * head, "attn_v": KV_HEADS * head}.items():
            add(f"{part}{name}.weight", SMALL, rows, HIDDEN)
            if architecture == "qwen2":
                add(f"{part}{name}.bias", PLAIN, rows)
        add(f"{part}attn_output.weight", BIG, HIDDEN, HEADS * head)
        for name in ("ffn_gate", "ffn_up"):
            add(f"{part}{name}.weight", package.GGMLQuantizationType.F16, INNER, HIDDEN)
        add(f"{part}ffn_down.weight", BIG, HIDDEN, INNER)
        for name in ("attn_norm", "ffn_norm"):
            add(f"{part}{name}.weight", PLAIN, HIDDEN)
        if architecture == "qwen3":
            add(f"{part}attn_q_norm.weight", PLAIN, head)
            add(f"{part}attn_k_norm.weight", PLAIN, head)
    add("output_norm.weight", PLAIN, HIDDEN)
    change(add)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def by_transformers(file: Path, target: Path) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    model.hf_quantizer = None
    del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)
    return target


@pytest.mark.training
@pytest.mark.parametrize(("architecture", "output"), [("llama", False), ("qwen2", True), ("qwen3", False)])
def test_every_number_is_that_of_transformers_conversion(architecture: str, output: bool, tmp_path: Path):
    file = write(tmp_path / "tiny.gguf", architecture, output)
    gguf.convert(file, tmp_path / "ours")
    by_transformers(file, tmp_path / "theirs")
    ours, theirs = load_file(tmp_path / "ours/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert fingerprint(tmp_path / "ours") == fingerprint(tmp_path / "theirs")


def test_a_tied_model_takes_its_finer_output_as_embedding(tmp_path: Path):
    file = write(tmp_path / "tiny.gguf", "qwen2", output=True)
    gguf.convert(file, tmp_path / "untied")
    gguf.convert(file, tmp_path / "tied", tied=True)
    untied, tied = (load_file(tmp_path / name / "model.safetensors") for name in ("untied", "tied"))
    assert torch.equal(tied["model.embed_tokens.weight"], untied["lm_head.weight"])
    assert untied.keys() - tied.keys() == {"lm_head.weight"}
    assert json.loads((tmp_path / "tied/config.json").read_text())["tie_word_embeddings"] is True
    assert json.loads((tmp_path / "untied/config.json").read_text())["tie_word_embeddings"] is False


def test_transformers_loads_it_with_its_chat_template_and_its_ends(tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = write(tmp_path / "tiny.gguf", "qwen2", output=True)
    ends = [END, END - 2]
    gguf.convert(file, tmp_path / "tiny", True, {"eos_token_id": ends, "temperature": 0.7, "do_sample": True})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "abc"}], tokenize=False)
    assert prompt == "<|im_start|>abc<|im_end|>"
    assert tokenizer(prompt).input_ids == [END - 1, WORDS.index("ab"), WORDS.index("c"), END]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert (model.generation_config.eos_token_id, model.generation_config.temperature) == (ends, 0.7)
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_training_and_serving_see_the_same_tokens_for_a_letter_with_its_accent_apart(tmp_path: Path):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    gguf.convert(write(tmp_path / "tiny.gguf", "qwen2"), tmp_path / "tiny")
    serving = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    training = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tiny")
    assert serving("caf\u0065\u0301").input_ids == training("caf\u0065\u0301").input_ids == training("café").input_ids


def test_progress_counts_every_parameter(tmp_path: Path):
    done: list[int] = []
    gguf.convert(write(tmp_path / "tiny.gguf", "llama"), tmp_path / "tiny", advance=done.append)
    assert sum(done) == sum(tensor.numel() for tensor in load_file(tmp_path / "tiny/model.safetensors").values())


def test_a_file_that_ends_too_early_is_refused_before_anything_is_written(tmp_path: Path):
    file = write(tmp_path / "tiny.gguf", "llama")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BaseModelError, match=r"tiny\.gguf cannot be converted: ValueError: it ends before tensor"):
        gguf.convert(file, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("content", [b"GGUF", b"PK\3\4 a wheel", b"GGUF" + b"\3\0\0\0" + b"\1" * 40])
def test_what_is_no_gguf_file_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "tiny.gguf").write_bytes(content)
    with pytest.raises(BaseModelError, match=r"tiny\.gguf cannot be converted"):
        gguf.convert(tmp_path / "tiny.gguf", tmp_path / "tiny")


def test_another_architecture_is_refused(tmp_path: Path):
    with pytest.raises(BaseModelError, match="its architecture is 'gemma', and not one of llama, qwen2, qwen3"):
        gguf.convert(write(tmp_path / "tiny.gguf", "gemma"), tmp_path / "tiny")


def test_a_tensor_that_has_no_place_is_refused(tmp_path: Path):
    file = write(tmp_path / "tiny.gguf", "llama", change=lambda add: add("rope_freqs.weight", PLAIN, 32))
    with pytest.raises(BaseModelError, match=r"its tensor 'rope_freqs\.weight' has no place in the model"):
        gguf.convert(file, tmp_path / "tiny")


def test_rounding_to_bf16_is_torchs():
    values = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
    values[:4] = [0.0, -0.0, 3.0e38, 1.0039062]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(gguf.bf16(values), expected)
