import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from adapters.models.base_models import BaseModel, find
from adapters.models.validate import MAX_RANK, REFUSED_FEATURES, reasons_against
from adapters.store.manifest import Lora, Manifest
from adapters.store.store import Store
from adapters.store.version import CONFIG, MANIFEST, WEIGHTS
from tests import bad_adapters, tiny

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
Tensors = dict[str, np.ndarray]


@pytest.fixture
def adapter(base_model: BaseModel, tmp_path: Path) -> Path:
    return tiny.make_adapter(base_model.path, tmp_path / "adapter", seed=1)


def against(adapter: Path, base: BaseModel | None, max_rank: int = MAX_RANK) -> list[str]:
    """Of a directory that nobody has published yet."""
    return reasons_against(adapter, base, max_rank, published=False)


def change_config(adapter: Path, **fields: Any) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(config | fields))


def change_tensors(adapter: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, adapter / WEIGHTS)


def test_a_good_adapter_has_no_reason_against_it(adapter: Path, base_model: BaseModel):
    assert against(adapter, base_model) == []


def test_an_adapter_on_some_of_the_modules_is_good(adapter: Path, base_model: BaseModel):
    change_tensors(adapter, lambda tensors: [tensors.pop(name) for name in list(tensors) if "q_proj" not in name])
    change_config(adapter, target_modules=["q_proj"])
    assert against(adapter, base_model) == []


def test_a_float16_adapter_is_good(adapter: Path, base_model: BaseModel):
    change_tensors(adapter, lambda tensors: tensors.update({n: t.astype(np.float16) for n, t in tensors.items()}))
    assert against(adapter, base_model) == []


def test_an_adapter_of_a_qwen3_is_good(tmp_path: Path):
    qwen = find(str(tiny.make_base(tmp_path / "tiny-qwen3", qwen=True)))
    assert against(tiny.make_adapter(qwen.path, tmp_path / "adapter", seed=1), qwen) == []


def test_without_a_base_model_no_shape_is_wrong_but_everything_else_is(adapter: Path):
    change_tensors(
        adapter, lambda tensors: tensors.update({f"{Q_PROJ}.lora_A.weight": np.full((8, 7), np.nan, np.float32)})
    )
    change_config(adapter, use_dora=True)
    assert against(adapter, None) == [
        "vLLM cannot serve DoRA (use_dora)",
        f"tensor '{Q_PROJ}.lora_A.weight' holds NaN or infinity",
    ]


def test_a_missing_directory_is_a_reason(tmp_path: Path, base_model: BaseModel):
    assert against(tmp_path / "nowhere", base_model) == ["nowhere cannot be read (No such file or directory)"]


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_missing_file_is_a_reason(adapter: Path, base_model: BaseModel, file: str):
    (adapter / file).unlink()
    assert against(adapter, base_model) == [f"{file} is missing"]


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_weights_are_a_reason(adapter: Path, base_model: BaseModel, size: int):
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:size])
    (reason,) = against(adapter, base_model)
    assert reason.startswith("adapter_model.safetensors is damaged")


CONFIG_FIELDS = [
    *("r", "lora_alpha", "rank_pattern", "target_modules", "bias", "init_lora_weights", "peft_type", "task_type"),
    *REFUSED_FEATURES,
]
HUGE = st.sampled_from([10**400, -(10**400), 10**4000, 1e308, 2**64])
ODD_TEXT = st.text(st.characters(exclude_categories=()), max_size=5)
"""With halves of surrogate pairs, which JSON can spell."""
ODD_JSON = HUGE | st.recursive(
    st.none() | st.booleans() | st.integers() | HUGE | st.floats() | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=5,
)
MANY_VALUES = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, database=None
)


def assert_printable(reasons: list[str]) -> None:
    "\n".join(reasons).encode()


@pytest.mark.parametrize("field", CONFIG_FIELDS)
@MANY_VALUES
@given(value=ODD_JSON)
def test_any_value_of_a_configuration_gives_reasons_or_none(
    adapter: Path, base_model: BaseModel, field: str, value: object
):
    config = (adapter / CONFIG).read_text()
    change_config(adapter, **{field: value})
    try:
        assert_printable(against(adapter, base_model))
    finally:
        (adapter / CONFIG).write_text(config)


@pytest.mark.parametrize("field", [*Manifest.model_fields, *(f"lora.{field}" for field in Lora.model_fields), "other"])
@MANY_VALUES
@given(key=ODD_TEXT, value=ODD_JSON)
def test_any_value_of_a_manifest_gives_reasons_or_none(
    store: Store, base_model: BaseModel, field: str, key: str, value: object
):
    file = store.resolve("formal").path / MANIFEST
    good = file.read_text()
    changed = json.loads(good)
    if field.startswith("lora."):
        changed["lora"][field.removeprefix("lora.")] = value
    else:
        changed[key if field == "other" else field] = value
    file.write_text(json.dumps(changed))
    try:
        assert_printable(reasons_against(file.parent, base_model))
    finally:
        file.write_text(good)


@pytest.mark.parametrize("alpha", [10**400, 1e7, -1, True, "32", None, [32]], ids=lambda alpha: repr(alpha)[:12])
def test_a_lora_alpha_that_is_no_usual_number_is_a_reason(adapter: Path, base_model: BaseModel, alpha: object):
    change_config(adapter, lora_alpha=alpha)
    (reason,) = against(adapter, base_model)
    assert reason == f"its lora_alpha is {repr(alpha)[:80]}, expected a number above 0, at most 1000000"


@pytest.mark.parametrize(("key", "what"), REFUSED_FEATURES.items())
def test_a_feature_that_vllm_cannot_serve_is_a_reason(adapter: Path, base_model: BaseModel, key: str, what: str):
    change_config(adapter, **{key: [1]})
    assert against(adapter, base_model) == [f"vLLM cannot serve {what} ({key})"]


def test_another_peft_type_is_a_reason(adapter: Path, base_model: BaseModel):
    change_config(adapter, peft_type="IA3")
    assert against(adapter, base_model) == ["its type is 'IA3', not LORA"]


def test_trained_biases_are_a_reason(adapter: Path, base_model: BaseModel):
    change_config(adapter, bias="lora_only")
    assert against(adapter, base_model) == ["it trains biases (bias='lora_only')"]


def test_a_rank_that_the_server_does_not_take_is_a_reason(tmp_path: Path, base_model: BaseModel):
    adapter = tiny.make_adapter(base_model.path, tmp_path / "wide", seed=1, rank=65)
    assert against(adapter, base_model, max_rank=64) == [
        "its rank is 65, and the server takes 1 to 64: `server --max-rank 65` serves it"
    ]
    assert against(adapter, base_model) == []


def test_a_rank_that_no_server_can_take_is_a_reason_without_a_command(tmp_path: Path, base_model: BaseModel):
    adapter = tiny.make_adapter(base_model.path, tmp_path / "wide", seed=1, rank=513)
    assert against(adapter, base_model)[0] == "its rank is 513, and the server takes 1 to 512"


def test_a_rank_that_the_tensors_do_not_have_is_a_reason_for_each(adapter: Path, base_model: BaseModel):
    change_config(adapter, r=4)
    reasons = against(adapter, base_model)
    assert len(reasons) == 2 * len(tiny.LINEARS) * tiny.LAYERS
    assert f"tensor '{Q_PROJ}.lora_A.weight' has shape (8, 64), the base model needs (4, 64)" in reasons


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_a_number_that_is_none_is_a_reason(adapter: Path, base_model: BaseModel, value: float, half: str):
    def spoil(tensors: Tensors) -> None:
        tensors[f"{Q_PROJ}.{half}.weight"][3, 2] = value

    change_tensors(adapter, spoil)
    assert against(adapter, base_model) == [f"tensor '{Q_PROJ}.{half}.weight' holds NaN or infinity"]


def test_an_adapter_that_changes_nothing_is_refused(adapter: Path, base_model: BaseModel):
    def forget(tensors: Tensors) -> None:
        tensors.update({name: tensor * 0 for name, tensor in tensors.items() if "lora_B" in name})

    change_tensors(adapter, forget)
    assert against(adapter, base_model) == ["it changes nothing: every product of lora_A and lora_B is zero"]


def test_a_tensor_of_the_wrong_shape_is_a_reason(adapter: Path, base_model: BaseModel):
    change_tensors(adapter, lambda tensors: tensors.update({f"{Q_PROJ}.lora_B.weight": np.ones((64, 8), np.float32)}))
    assert against(adapter, base_model) == [
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
def test_a_tensor_that_the_base_model_has_no_place_for_is_a_reason(adapter: Path, base_model: BaseModel, name: str):
    change_tensors(adapter, lambda tensors: tensors.update({name: np.ones((8, 64), np.float32)}))
    assert against(adapter, base_model) == [f"the base model has no place for tensor {name!r}"]


def test_an_adapter_without_tensors_is_refused(adapter: Path, base_model: BaseModel):
    save_file({}, adapter / WEIGHTS)
    assert against(adapter, base_model) == ["it holds no tensors"]


def test_all_reasons_come_at_once(adapter: Path, base_model: BaseModel):
    def spoil(tensors: Tensors) -> None:
        tensors[f"{Q_PROJ}.lora_A.weight"][0, 0] = np.nan
        tensors[f"{Q_PROJ}.lora_B.weight"] = np.ones((1, 1), np.float32)
        tensors["lm_head.weight"] = np.ones((1, 1), np.float32)

    change_tensors(adapter, spoil)
    change_config(adapter, use_dora=True, bias="all", peft_type="LOHA")
    assert sorted(against(adapter, base_model)) == [
        "it trains biases (bias='all')",
        "its type is 'LOHA', not LORA",
        f"tensor '{Q_PROJ}.lora_A.weight' holds NaN or infinity",
        f"tensor '{Q_PROJ}.lora_B.weight' has shape (1, 1), the base model needs (128, 8)",
        "the base model has no place for tensor 'lm_head.weight'",
        "vLLM cannot serve DoRA (use_dora)",
    ]


def test_reasons_of_the_config_come_with_missing_and_damaged_weights(adapter: Path, base_model: BaseModel):
    change_config(adapter, use_dora=True)
    (adapter / WEIGHTS).write_bytes(b"")
    assert len(against(adapter, base_model)) == 2
    (adapter / WEIGHTS).unlink()
    assert len(against(adapter, base_model)) == 2


@pytest.fixture
def version(store: Store) -> Path:
    return store.resolve("formal@2").path


def test_a_published_version_has_no_reason_against_it(version: Path, base_model: BaseModel):
    assert reasons_against(version, base_model, max_rank=16) == []


@pytest.mark.parametrize("kind", bad_adapters.KINDS)
def test_every_kind_of_bad_adapter_has_its_own_reason(version: Path, base_model: BaseModel, kind: str):
    bad_adapters.spoil(kind, version)
    reasons = reasons_against(version, base_model, bad_adapters.MAX_RANK)
    assert any(bad_adapters.KINDS[kind].reason in reason for reason in reasons), reasons
    assert all(len(reason) < 400 for reason in reasons)


def test_the_kinds_have_reasons_of_their_own(store: Store, base_model: BaseModel, tmp_path: Path):
    """A kind whose reason would also be found with another one would not show that it is looked for."""
    found = {}
    for kind in bad_adapters.KINDS:
        directory = tmp_path / "spoilt" / kind.replace(" ", "-") / "1-0123456789ab"
        shutil.copytree(store.resolve("formal@2").path, directory)
        bad_adapters.spoil(kind, directory)
        found[kind] = tuple(reasons_against(directory, base_model, bad_adapters.MAX_RANK))
    assert len(found) >= 25
    assert all(found.values())
    same = [kind for kind in found if list(found.values()).count(found[kind]) > 1]
    assert [
        kind for kind in same if "NaN or infinity" not in str(found[kind]) and "damaged" not in str(found[kind])
    ] in (
        [],
        ["zero outputs", "zero inputs"],
    )


@pytest.mark.parametrize("kind", [kind for kind, what in bad_adapters.KINDS.items() if not what.only_published])
def test_what_nobody_has_published_is_judged_the_same_but_for_its_manifest(
    version: Path, base_model: BaseModel, kind: str
):
    bad_adapters.spoil(kind, version)
    reasons = reasons_against(version, base_model, bad_adapters.MAX_RANK, published=False)
    about_its_manifest = "manifest" in bad_adapters.KINDS[kind].reason
    assert (reasons == []) == about_its_manifest


def test_another_base_model_is_one_reason_and_not_one_for_each_tensor(store: Store, tmp_path: Path):
    # Not hundreds of tensors that do not fit: they would bury what to do.
    smaller = find(str(tiny.make_base(tmp_path / "smaller", seed=3)))
    config = smaller.path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 1}))
    [reason, too_wide] = reasons_against(store.resolve("formal").path, find(str(smaller.path)), max_rank=4)
    assert "trained on tiny-llama" in reason
    assert "rank is 8" in too_wide


def test_another_base_model_is_refused_with_the_command_that_serves_the_right_one(version: Path, base_model: BaseModel):
    other = BaseModel("other", base_model.path, "sha256:" + "1" * 64, "hub/other")
    assert reasons_against(version, other) == [
        f"it was trained on tiny-llama ({base_model.fingerprint[:19]}...), and this server serves other "
        f"(sha256:111111111111...): serve it with `server --base {base_model.path}`"
    ]


def test_an_adapter_of_the_first_manifests_names_its_base_model(store: Store, base_model: BaseModel, tmp_path: Path):
    files = tiny.make_adapter(base_model.path, tmp_path / "old", seed=5)
    version = store.publish("old", files, tiny.facts("smollm2-135m-instruct", "sha256:" + "2" * 64))
    fields = json.loads((version.path / MANIFEST).read_text())
    del fields["base_source"]
    (version.path / MANIFEST).write_text(json.dumps(fields))
    [reason] = reasons_against(version.path, base_model)
    assert reason.endswith("serve it with `server --base smollm2-135m-instruct`")


def test_ranks_that_differ_by_module_are_good_where_each_fits(adapter: Path, base_model: BaseModel):
    def widen(tensors: Tensors) -> None:
        tensors[f"{Q_PROJ}.lora_A.weight"] = np.ones((16, 64), np.float32)
        tensors[f"{Q_PROJ}.lora_B.weight"] = np.ones((128, 16), np.float32)

    change_tensors(adapter, widen)
    change_config(adapter, rank_pattern={"layers.0.self_attn.q_proj": 16})
    assert against(adapter, base_model) == []


@given(text=st.binary(max_size=200) | st.text(alphabet='{}[]":,0123rlora_phNa', max_size=100).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_configuration_makes_it_raise(version: Path, base_model: BaseModel, text: bytes):
    (version / CONFIG).write_bytes(text)
    assert reasons_against(version, base_model)


@given(where=st.integers(0, 4000), what=st.binary(min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_weights_make_it_raise_and_no_change_goes_unseen(
    version: Path, base_model: BaseModel, where: int, what: bytes
):
    whole = (version / WEIGHTS).read_bytes()
    spoilt = whole[:where] + what + whole[where + len(what) :]
    (version / WEIGHTS).write_bytes(spoilt)
    assert (reasons_against(version, base_model) == []) == (spoilt == whole)
    (version / WEIGHTS).write_bytes(whole)
