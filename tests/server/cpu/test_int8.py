"""8-bit weights: when they are chosen, what they are rounded to, and a server that answers with them."""

import json
from pathlib import Path
from statistics import fmean

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from adapters.errors import BaseModelError
from adapters.models.base_models import BaseModel
from adapters.models.tensors import parameters
from server.cpu import int8
from server.vllm_server import LORA_MODULES
from tests import tiny
from tests.serving import RunningServer, running_server


@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-4, 1e4), st.integers(0, 2**31))
def test_every_weight_is_within_half_a_step_of_its_own(outputs: int, inputs: int, size: float, seed: int):
    weights = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * size
    whole, scale = int8.rounded(weights)
    assert (whole.dtype, scale.shape) == (torch.int8, (outputs, 1))
    assert ((whole * scale - weights).abs() <= scale * 0.5001).all()


def test_a_row_of_zeros_stays_one():
    whole, scale = int8.rounded(torch.zeros(2, 3))
    assert not whole.any()
    assert scale.isfinite().all()


def test_a_copy_has_the_layers_rounded_and_everything_else_as_it_was(base_model: BaseModel):
    copy = int8.prepare(base_model, LORA_MODULES, print)
    before, after = load_file(base_model.path / "model.safetensors"), load_file(copy / "model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(after[name].to(tensor.dtype), tensor)}
    assert changed == {name for name in before if name.split(".")[-2] in [*LORA_MODULES, *int8.WORDS]}
    assert json.loads((copy / int8.INDEX).read_text())["weight_map"].keys() == after.keys()
    assert (copy / "tokenizer.json").read_bytes() == (base_model.path / "tokenizer.json").read_bytes()


def test_a_large_tensor_is_rounded_piece_by_piece(
    base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = load_file(int8.prepare(base_model, LORA_MODULES, print) / "model.safetensors")
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(int8, "PIECE_ELEMENTS", 1000)
    in_pieces = load_file(int8.prepare(base_model, LORA_MODULES, print) / "model.safetensors")
    assert whole.keys() == in_pieces.keys()
    assert all(torch.equal(whole[name], in_pieces[name]) for name in whole)


def test_a_model_whose_embedding_vllm_cannot_round_keeps_it(tmp_path: Path):
    directory = tiny.make_base(tmp_path / "other")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["MistralForCausalLM"]}))
    base = BaseModel("other", directory, "sha256:" + "e" * 64, str(directory))
    copy = int8.prepare(base, LORA_MODULES, print)
    assert json.loads((copy / "config.json").read_text())["quantization_config"]["quant_method"] == "compressed-tensors"
    assert not any("embed" in name and "scale" in name for name in load_file(copy / "model.safetensors"))


def test_8_bits_are_the_default_for_large_models_on_a_cpu(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch):
    assert int8.chosen(None, False, base_model)[0] is False
    assert int8.chosen(True, False, base_model) == (True, "--int8")
    monkeypatch.setattr(int8, "LARGE_PARAMETERS", parameters(base_model.path))
    rounds, why = int8.chosen(None, False, base_model)
    assert rounds
    assert why.endswith("--no-int8 keeps 16")
    assert int8.chosen(False, False, base_model) == (False, "--no-int8")
    assert int8.chosen(None, True, base_model) == (False, "on a GPU")


def test_every_number_of_a_model_is_counted(base_model: BaseModel):
    tensors = load_file(base_model.path / "model.safetensors")
    assert parameters(base_model.path) == sum(tensor.numel() for tensor in tensors.values())


def test_the_copy_is_made_once(base_model: BaseModel):
    int8.prepare(base_model, LORA_MODULES, print)
    said: list[str] = []
    int8.prepare(base_model, LORA_MODULES, said.append)
    assert said == []


def test_a_model_without_such_layers_is_refused_and_nothing_is_left(base_model: BaseModel):
    other = BaseModel(base_model.name, base_model.path, "sha256:" + "f" * 64, base_model.source)
    with pytest.raises(BaseModelError, match="none of the layers"):
        int8.prepare(other, ["gate"], print)
    assert not int8.directory(other).exists()


@pytest.mark.vllm
def test_a_server_with_8_bits_reads_a_text_nearly_as_the_model_itself_does(server: RunningServer, tmp_path: Path):
    def logprobs(of: RunningServer, model: str) -> list[float]:
        answer = of.ask(
            model, prompt="Twelve chairs came on Monday. Please send Ada the invoice.", echo=True, logprobs=1
        )
        return list(answer.json()["choices"][0]["logprobs"]["token_logprobs"][1:-8])

    def apart(one: list[float], other: list[float]) -> float:
        return fmean(abs(a - b) for a, b in zip(one, other, strict=True))

    with running_server(server.base, server.store, 4, tmp_path / "log", arguments=["--int8"]) as small:
        read = {(of.url, model): logprobs(of, model) for of in (server, small) for model in ("base", "formal")}
    voices = apart(read[server.url, "base"], read[server.url, "formal"])
    for model in ("base", "formal"):
        assert 0 < apart(read[server.url, model], read[small.url, model]) < voices / 4


@pytest.mark.vllm
def test_the_kernel_of_amx_gets_inputs_of_16_bits_only(monkeypatch: pytest.MonkeyPatch):
    from vllm.model_executor.layers import utils

    monkeypatch.setattr(utils, "check_cpu_sgl_kernel", lambda *_: True)
    assert not int8.with_16_bits(64, 64, torch.int8)
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.bfloat16)
    assert int8.with_16_bits(64, 64, torch.int8)
