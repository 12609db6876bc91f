"""An adapter's way from its file into a slot, against what PEFT says that its numbers mean."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

SLOTS, RANK, INPUTS = 2, 4, 6
WIDTHS = {"q_proj": 8, "k_proj": 5, "v_proj": 5}
MODULES = {*WIDTHS, "o_proj"}
LAYER = "model.layers.0.self_attn"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def random_adapter(ranks: dict[str, int], dtype: Any, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    tensors = {}
    for module, rank in ranks.items():
        prefix = f"base_model.model.{LAYER}.{module}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, INPUTS).to(dtype)
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(WIDTHS.get(module, INPUTS), rank).to(dtype)
    return tensors


def write(directory: Path, tensors: dict[str, Any], **config: Any) -> Path:
    from safetensors.torch import save_file

    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": sorted(MODULES)}
    (directory / "adapter_config.json").write_text(json.dumps(fields | config))
    return directory


def read(directory: Path, dtype: Any = torch.bfloat16, modules: set[str] = MODULES) -> Any:
    from vllm.lora.peft_helper import PEFTHelper

    from server.cpu import loading

    helper = PEFTHelper.from_local_dir(str(directory), None)
    return loading.read(str(directory), modules, helper, lora_model_id=1, dtype=dtype, skip_prefixes=None)


def laid_out(dtype: Any = torch.bfloat16) -> Any:
    """A layer of q, k and v in one, its slots full of what was there before."""
    from server.cpu.lora import lay_out

    layer = SimpleNamespace(
        lora_a_stacked=tuple(torch.zeros(SLOTS, 1, RANK, INPUTS, dtype=dtype) for _ in WIDTHS),
        lora_b_stacked=tuple(torch.zeros(SLOTS, 1, width, RANK, dtype=dtype) for width in WIDTHS.values()),
    )
    lay_out(layer)
    for part in (*layer.lora_a_stacked, *layer.lora_b_stacked):
        part.fill_(7.0)
    return layer


def put(layer: Any, slot: int, adapter: Any) -> None:
    """As vLLM puts q, k and v together and hands them over."""
    from vllm.lora.lora_weights import PackedLoRALayerWeights

    packed = PackedLoRALayerWeights.pack([adapter.get_lora(f"{LAYER}.{module}") for module in WIDTHS])
    layer.set_lora(slot, packed.lora_a, packed.lora_b)


def product(layer: Any, slot: int, module: str) -> Any:
    """B times A of a module, (outputs, inputs)."""
    place = list(WIDTHS).index(module)
    return layer.lora_b_stacked[place][slot, 0].float() @ layer.lora_a_stacked[place][slot, 0].float()


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.dictionaries(st.sampled_from(sorted(WIDTHS)), st.integers(1, RANK), min_size=1),
    alpha=st.sampled_from([1, 4, 8, 9]),
    rslora=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 999),
)
def test_a_slot_gets_what_peft_computes_and_keeps_nothing_of_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, ranks: dict[str, int], alpha: int, rslora: bool, dtype: Any, seed: int
):
    tensors = random_adapter(ranks, dtype, seed)
    patterns = {"rank_pattern": ranks, "alpha_pattern": {"k_proj": 3}}
    directory = write(tmp_path_factory.mktemp("adapter"), tensors, lora_alpha=alpha, use_rslora=rslora, **patterns)
    layer = laid_out(torch.float32)
    put(layer, 1, read(directory, torch.float32))
    for module, width in WIDTHS.items():
        expected = torch.zeros(width, INPUTS)
        if module in ranks:
            rank, numerator = ranks[module], 3 if module == "k_proj" else alpha
            scale = numerator / (rank**0.5 if rslora else rank)
            prefix = f"base_model.model.{LAYER}.{module}"
            expected = scale * tensors[f"{prefix}.lora_B.weight"].float() @ tensors[f"{prefix}.lora_A.weight"].float()
        torch.testing.assert_close(product(layer, 1, module), expected)
    assert all((part[0] == 7.0).all() for part in (*layer.lora_a_stacked, *layer.lora_b_stacked))


def test_reading_changes_neither_the_file_nor_what_another_slot_gets(tmp_path: Path):
    directory = write(tmp_path / "adapter", random_adapter(dict.fromkeys(WIDTHS, RANK), torch.bfloat16, 1))
    before = (directory / "adapter_model.safetensors").read_bytes()
    layer, adapter = laid_out(), read(directory)
    put(layer, 0, adapter)
    put(layer, 1, adapter)
    for part in (*layer.lora_a_stacked, *layer.lora_b_stacked):
        assert torch.equal(part[0], part[1])
    assert (directory / "adapter_model.safetensors").read_bytes() == before


def test_files_that_are_gone_stay_in_memory_as_long_as_the_adapter(tmp_path: Path):
    directory = write(tmp_path / "adapter", random_adapter(dict.fromkeys(WIDTHS, RANK), torch.bfloat16, 2))
    layer, adapter = laid_out(), read(directory)
    put(layer, 0, adapter)
    (directory / "adapter_model.safetensors").unlink()
    put(layer, 1, adapter)
    assert torch.equal(product(layer, 0, "q_proj"), product(layer, 1, "q_proj"))


def test_what_vllm_warms_up_with_writes_nothing_so_that_its_slots_take_no_memory():
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.lora_weights import LoRALayerWeights

    layer = laid_out()
    sizes = {f"{LAYER}.{module}": (INPUTS, width, RANK) for module, width in WIDTHS.items()}
    dummies = {
        name: LoRALayerWeights.create_dummy_lora_weights(name, *size, torch.bfloat16, "cpu")
        for name, size in sizes.items()
    }
    put(layer, 0, LoRAModel(1, RANK, dummies))
    assert all((part == 7).all() for part in (*layer.lora_a_stacked, *layer.lora_b_stacked))


def test_a_file_whose_tensors_begin_anywhere_is_read(tmp_path: Path):
    tensors = random_adapter({"q_proj": RANK}, torch.float32, 3)
    directory = write(tmp_path / "adapter", tensors)
    file = directory / "adapter_model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    # One blank more in the header, as the format allows.
    file.write_bytes((length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :])
    adapter = read(directory, torch.float32)
    layer = adapter.get_lora(f"{LAYER}.q_proj")
    assert torch.equal(layer.lora_a, tensors[f"base_model.model.{LAYER}.q_proj.lora_A.weight"])


def test_a_module_that_is_not_served_and_a_damaged_file_are_refused(tmp_path: Path):
    directory = write(tmp_path / "adapter", random_adapter({"q_proj": RANK, "o_proj": RANK}, torch.bfloat16, 4))
    with pytest.raises(ValueError, match=r"o_proj.*belongs to none of k_proj, q_proj"):
        read(directory, modules={"q_proj", "k_proj"})
    file = directory / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"[Ii]ncomplete|invalid|not"):
        read(directory)
