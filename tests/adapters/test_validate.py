import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.store import CONFIG, WEIGHTS
from adapters.validate import REFUSED_FEATURES, reasons_against
from tests import tiny

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
Tensors = dict[str, np.ndarray]


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    return tiny.make_adapter(tiny_base, tmp_path / "adapter", seed=1)


def change_config(adapter: Path, **fields: Any) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(config | fields))


def change_tensors(adapter: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, adapter / WEIGHTS)


def test_a_good_adapter_has_no_reason_against_it(adapter: Path, tiny_base: Path):
    assert reasons_against(adapter, tiny_base) == []


def test_an_adapter_on_some_of_the_modules_is_good(adapter: Path, tiny_base: Path):
    change_tensors(adapter, lambda tensors: [tensors.pop(name) for name in list(tensors) if "q_proj" not in name])
    change_config(adapter, target_modules=["q_proj"])
    assert reasons_against(adapter, tiny_base) == []


def test_a_float16_adapter_is_good(adapter: Path, tiny_base: Path):
    change_tensors(adapter, lambda tensors: tensors.update({n: t.astype(np.float16) for n, t in tensors.items()}))
    assert reasons_against(adapter, tiny_base) == []


def test_an_adapter_of_a_qwen3_is_good(tmp_path: Path):
    qwen = tiny.make_base(tmp_path / "tiny-qwen3", qwen=True)
    assert reasons_against(tiny.make_adapter(qwen, tmp_path / "adapter", seed=1), qwen) == []


def test_without_a_base_model_no_shape_is_wrong_but_everything_else_is(adapter: Path):
    change_tensors(adapter, lambda tensors: tensors.update({f"{Q_PROJ}.lora_A.weight": np.full((8, 7), np.nan)}))
    change_config(adapter, use_dora=True)
    assert reasons_against(adapter, None) == [
        "vLLM cannot serve DoRA (use_dora)",
        f"tensor '{Q_PROJ}.lora_A.weight' holds NaN or infinity",
    ]


def test_a_missing_directory_is_a_reason(tmp_path: Path, tiny_base: Path):
    assert reasons_against(tmp_path / "nowhere", tiny_base) == ["adapter_config.json is missing"]


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_missing_file_is_a_reason(adapter: Path, tiny_base: Path, file: str):
    (adapter / file).unlink()
    assert reasons_against(adapter, tiny_base) == [f"{file} is missing"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"r": null}', '{"r": "eight"}', "\x00"])
def test_a_config_that_is_no_lora_configuration_is_a_reason(adapter: Path, tiny_base: Path, text: str):
    (adapter / CONFIG).write_text(text)
    assert reasons_against(adapter, tiny_base) == ["adapter_config.json is no PEFT LoRA configuration"]


def test_a_config_that_is_no_text_is_a_reason(adapter: Path, tiny_base: Path):
    (adapter / CONFIG).write_bytes(b"\xff\xfe\xfd")
    assert reasons_against(adapter, tiny_base) == ["adapter_config.json is no PEFT LoRA configuration"]


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_weights_are_a_reason(adapter: Path, tiny_base: Path, size: int):
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:size])
    (reason,) = reasons_against(adapter, tiny_base)
    assert reason.startswith("adapter_model.safetensors is damaged")


@pytest.mark.parametrize(("key", "what"), REFUSED_FEATURES.items())
def test_a_feature_that_vllm_cannot_serve_is_a_reason(adapter: Path, tiny_base: Path, key: str, what: str):
    change_config(adapter, **{key: [1]})
    assert reasons_against(adapter, tiny_base) == [f"vLLM cannot serve {what} ({key})"]


def test_another_peft_type_is_a_reason(adapter: Path, tiny_base: Path):
    change_config(adapter, peft_type="IA3")
    assert reasons_against(adapter, tiny_base) == ["its type is 'IA3', not LORA"]


def test_trained_biases_are_a_reason(adapter: Path, tiny_base: Path):
    change_config(adapter, bias="lora_only")
    assert reasons_against(adapter, tiny_base) == ["it trains biases (bias='lora_only')"]


def test_a_rank_that_the_server_does_not_take_is_a_reason(tmp_path: Path, tiny_base: Path):
    adapter = tiny.make_adapter(tiny_base, tmp_path / "wide", seed=1, rank=65)
    assert reasons_against(adapter, tiny_base) == ["its rank is 65, and the server takes 1 to 64"]
    assert reasons_against(adapter, tiny_base, max_rank=128) == []


def test_a_rank_that_the_tensors_do_not_have_is_a_reason_for_each(adapter: Path, tiny_base: Path):
    change_config(adapter, r=4)
    reasons = reasons_against(adapter, tiny_base)
    assert len(reasons) == 2 * len(tiny.LINEARS) * tiny.LAYERS
    assert f"tensor '{Q_PROJ}.lora_A.weight' has shape (8, 64), the base model needs (4, 64)" in reasons


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_a_number_that_is_none_is_a_reason(adapter: Path, tiny_base: Path, value: float, half: str):
    def spoil(tensors: Tensors) -> None:
        tensors[f"{Q_PROJ}.{half}.weight"][3, 2] = value

    change_tensors(adapter, spoil)
    assert reasons_against(adapter, tiny_base) == [f"tensor '{Q_PROJ}.{half}.weight' holds NaN or infinity"]


def test_an_adapter_that_changes_nothing_is_refused(adapter: Path, tiny_base: Path):
    def forget(tensors: Tensors) -> None:
        tensors.update({name: tensor * 0 for name, tensor in tensors.items() if "lora_B" in name})

    change_tensors(adapter, forget)
    assert reasons_against(adapter, tiny_base) == ["it changes nothing: every lora_B is zero"]


def test_a_tensor_of_the_wrong_shape_is_a_reason(adapter: Path, tiny_base: Path):
    change_tensors(adapter, lambda tensors: tensors.update({f"{Q_PROJ}.lora_B.weight": np.ones((64, 8), np.float32)}))
    assert reasons_against(adapter, tiny_base) == [
        f"tensor '{Q_PROJ}.lora_B.weight' has shape (64, 8), the base model needs (128, 8)"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.gate_proj.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.weight",
        f"{Q_PROJ}.lora_magnitude_vector.weight",
    ],
)
def test_a_tensor_that_the_base_model_has_no_place_for_is_a_reason(adapter: Path, tiny_base: Path, name: str):
    change_tensors(adapter, lambda tensors: tensors.update({name: np.ones((8, 64), np.float32)}))
    assert reasons_against(adapter, tiny_base) == [f"the base model has no place for tensor {name!r}"]


def test_an_adapter_without_tensors_is_refused(adapter: Path, tiny_base: Path):
    save_file({}, adapter / WEIGHTS)
    assert reasons_against(adapter, tiny_base) == ["it holds no tensors"]


def test_all_reasons_come_at_once(adapter: Path, tiny_base: Path):
    def spoil(tensors: Tensors) -> None:
        tensors[f"{Q_PROJ}.lora_A.weight"][0, 0] = np.nan
        tensors[f"{Q_PROJ}.lora_B.weight"] = np.ones((1, 1), np.float32)
        tensors["lm_head.weight"] = np.ones((1, 1), np.float32)

    change_tensors(adapter, spoil)
    change_config(adapter, use_dora=True, bias="all", peft_type="LOHA")
    assert sorted(reasons_against(adapter, tiny_base)) == [
        "it trains biases (bias='all')",
        "its type is 'LOHA', not LORA",
        f"tensor '{Q_PROJ}.lora_A.weight' holds NaN or infinity",
        f"tensor '{Q_PROJ}.lora_B.weight' has shape (1, 1), the base model needs (128, 8)",
        "the base model has no place for tensor 'lm_head.weight'",
        "vLLM cannot serve DoRA (use_dora)",
    ]


def test_reasons_of_the_config_come_with_missing_and_damaged_weights(adapter: Path, tiny_base: Path):
    change_config(adapter, use_dora=True)
    (adapter / WEIGHTS).write_bytes(b"")
    assert len(reasons_against(adapter, tiny_base)) == 2
    (adapter / WEIGHTS).unlink()
    assert len(reasons_against(adapter, tiny_base)) == 2
