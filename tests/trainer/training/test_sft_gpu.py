"""What a run on a GPU asks of TRL, and as much of that as a CPU can do: everything but CUDA and its kernels.

The base model is a tiny Qwen3, the architecture of the default base model on a GPU. tests/gpu runs the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from trl import SFTConfig

from adapters.models.base_models import BaseModel, find
from adapters.models.validate import reasons_against
from adapters.store.store import Store
from tests import tiny
from tests.trainer.training.test_sft_trainer import with_an_adapter
from trainer.compute.device import Device
from trainer.data.examples import Example, task_example
from trainer.training import sft
from trainer.training import sft_trainer as module
from trainer.training.recipe import Recipe
from trainer.training.run import TrainingRun
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer, sft_settings

pytestmark = [pytest.mark.training]
CPU = Device("cpu", "bfloat16", False, "CPU")
OLD_CPU = Device("cpu", "float32", False, "CPU")
GPU = Device("cuda", "bfloat16", False, "CUDA")
FLASH_GPU = Device("cuda", "bfloat16", True, "CUDA")
OLD_GPU = Device("cuda", "float16", False, "CUDA")
RECIPE = Recipe(epochs=2, batch_size=4, learning_rate=1e-2, rank=4, alpha=8, heldout=0.2, sample_tokens=6)
EMAILS = [
    task_example(f"Thank {name}{' warmly' * number}.", f"Dear {name},\n\nThank you.\n\nBest,\nKim")
    for number, name in enumerate(["Ada", "Bo", "Chidi", "Dagny", "Emil", "Freya", "Goran", "Hana", "Idris", "Jana"])
]


def settings(device: Device) -> dict[str, Any]:
    return sft_settings(device, RECIPE, 1e-2, emails=8, heldout=2, scratch="/tmp")


@pytest.mark.parametrize("device", [CPU, OLD_CPU, GPU, FLASH_GPU, OLD_GPU])
def test_every_setting_is_one_of_trls(device: Device):
    assert settings(device).keys() <= {field.name for field in fields(SFTConfig)}


@pytest.mark.parametrize(
    ("device", "bf16", "fp16"),
    [(CPU, True, False), (OLD_CPU, False, False), (GPU, True, False), (OLD_GPU, False, True)],
)
def test_the_number_format_is_the_devices_for_the_frozen_weights_and_for_the_arithmetic(
    device: Device, bf16: bool, fp16: bool
):
    asked = settings(device)
    assert (asked["bf16"], asked["fp16"]) == (bf16, fp16)
    assert asked["model_init_kwargs"]["dtype"] == device.dtype
    assert asked["use_cpu"] == (device.kind == "cpu")


def test_a_gpu_saves_memory_and_a_cpu_time():
    assert settings(GPU)["gradient_checkpointing"] is True
    assert settings(CPU)["gradient_checkpointing"] is False


def test_batches_have_no_padding_exactly_where_flash_attention_keeps_emails_apart():
    asked = settings(FLASH_GPU)
    assert asked["padding_free"] is True
    assert asked["model_init_kwargs"]["attn_implementation"] == "flash_attention_2"
    assert all(settings(device)["padding_free"] is False for device in (CPU, OLD_CPU, GPU, OLD_GPU))


def test_no_device_cuts_an_email():
    assert {settings(device)["max_length"] for device in (CPU, GPU, FLASH_GPU)} == {None}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return find(str(tiny.make_base(tmp_path_factory.mktemp("models") / "tiny-qwen3", qwen=True)))


@contextmanager
def gpu_settings_on_a_cpu(number_format: dict[str, Any]) -> Iterator[None]:
    """TRL's own loss, gradient checkpointing and batches without padding: only the device and its kernels differ."""

    def on_a_cpu(**asked: Any) -> SFTConfig:
        kernels = {"model_init_kwargs": {"dtype": "bfloat16" if number_format["bf16"] else "float32"}}
        return SFTConfig(**{**asked, **number_format, **kernels, "use_cpu": True, "dataloader_pin_memory": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(CompletionTrainer, "compute_loss")
        patch.setattr(module, "SFTConfig", on_a_cpu)
        yield


def trainer_for(base: BaseModel, examples: list[Example], device: Device, scratch: Path) -> CompletionTrainer:
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    trainer = completion_trainer(examples, [], base, RECIPE, 1e-2, tokenizer, device, str(scratch))
    return with_an_adapter(trainer)


def test_emails_in_a_row_without_padding_learn_the_same_as_padded_ones(qwen: BaseModel, tmp_path: Path):
    """Were one email to see another, or a prompt to be learned, the loss would differ."""
    losses, learned = {}, {}
    for device in (GPU, FLASH_GPU):
        with gpu_settings_on_a_cpu({"bf16": False}):
            trainer = trainer_for(qwen, EMAILS[:5], device, tmp_path)
            batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
            losses[device] = trainer.compute_loss(trainer.model, dict(batch)).item()
        wanted = batch["labels"] != -100
        learned[device] = trainer.processing_class.decode(batch["input_ids"][wanted])
        assert ("attention_mask" in batch) == (device == GPU)
    assert batch["input_ids"].shape == (1, sum(len(row["input_ids"]) for row in trainer.train_dataset))
    assert losses[FLASH_GPU] == pytest.approx(losses[GPU], rel=1e-4)
    assert learned[FLASH_GPU] == learned[GPU] == "".join(f"{email.email}<|im_end|>\n" for email in EMAILS[:5])


@pytest.mark.parametrize("device", [GPU, FLASH_GPU], ids=["padded", "without padding"])
def test_a_run_with_a_gpus_settings_teaches_a_qwen3(
    qwen: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device
):
    said: list[str] = []
    run = TrainingRun(EMAILS, "mine", qwen, RECIPE, device, said.append)
    with gpu_settings_on_a_cpu({"bf16": True}):
        version = sft.train(run, Store(tmp_path / "store"))
    training = version.manifest().training
    assert training.heldout_loss_before is not None
    assert training.heldout_loss is not None
    assert training.heldout_loss < training.heldout_loss_before
    assert training.steps == 2 * 2
    assert reasons_against(version.path, qwen) == []
    assert sum(line.startswith("  sample email:\n  | ") for line in said) == 2
