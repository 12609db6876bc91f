"""The choice for machines that are not here: torch's answers are replaced."""

from typing import Any

import pytest
import torch

from adapters.errors import ConfigError
from adapters.models import gpu
from trainer.compute.device import choose


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets up a machine: how many GPUs torch sees, their bf16, flash attention, and what the CPU has."""

    def make(
        gpus: int = 0, bf16: bool = True, flash: bool = False, cpu: str = "", cuda_build: str | None = None
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bf16
        )
        monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda kernels_fallback_ok=False: flash)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu == "avx512_bf16")
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: cpu == "amx_tile")
        monkeypatch.setattr(torch.version, "cuda", cuda_build)
        monkeypatch.setattr(gpu, "names", list)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))

    return make


def test_a_gpu_is_used_in_bf16(machine: Any):
    machine(gpus=1)
    device = choose()
    assert (device.kind, device.dtype, device.flash_attention) == ("cuda", "bfloat16", False)
    assert str(device) == "CUDA, NVIDIA H100, bf16, PyTorch's attention (`pip install kernels` adds a faster one)"


def test_flash_attention_is_used_where_it_is_installed(machine: Any):
    machine(gpus=1, flash=True)
    device = choose()
    assert (device.kind, device.dtype, device.flash_attention) == ("cuda", "bfloat16", True)
    assert str(device) == "CUDA, NVIDIA H100, bf16, flash attention on batches without padding"


def test_a_gpu_that_only_emulates_bf16_trains_in_float16_and_without_flash_attention(machine: Any):
    machine(gpus=1, bf16=False, flash=True)
    device = choose()
    assert (device.kind, device.dtype, device.flash_attention) == ("cuda", "float16", False)
    assert "float16 (it has no bf16)" in str(device)


def test_several_visible_gpus_are_refused_with_what_to_type(machine: Any):
    machine(gpus=2)
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=0,1 shows 2") as caught:
        choose()
    assert caught.value.hint == "choose one: CUDA_VISIBLE_DEVICES=0"


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_tile"])
def test_a_cpu_with_bf16_in_hardware_uses_it(machine: Any, feature: str):
    machine(cpu=feature)
    device = choose()
    assert (device.kind, device.dtype, device.flash_attention) == ("cpu", "bfloat16", False)
    assert str(device) == f"CPU, 2 cores, bf16 ({feature} in hardware); no CUDA GPU answers"


def test_a_cpu_without_bf16_uses_float32(machine: Any):
    machine()
    device = choose()
    assert (device.kind, device.dtype) == ("cpu", "float32")
    assert str(device) == "CPU, 2 cores, float32 (no bf16 in hardware); no CUDA GPU answers"


def test_a_gpu_beside_the_cpu_wheels_is_named(machine: Any, monkeypatch: pytest.MonkeyPatch):
    machine()
    monkeypatch.setattr(gpu, "names", lambda: ["Tesla T4"])
    assert "Tesla T4 is in this machine, but the CPU wheels" in str(choose())


def test_the_cuda_wheels_without_a_gpu_say_where_to_look(machine: Any):
    machine(cuda_build="13.0")
    assert str(choose()).endswith("torch for CUDA 13.0 finds no GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES")
