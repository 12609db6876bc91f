"""What follows from vLLM's platform, with stand-ins for the platforms that are not here."""

from dataclasses import dataclass

import pytest

from adapters.errors import ConfigError
from adapters.models import gpu
from server.engine.device import choose


@dataclass
class Platform:
    """The questions that server/engine/device.py asks of vLLM's platform object."""

    kind: str
    capability: int = 90

    def is_cuda(self) -> bool:
        return self.kind == "cuda"

    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    def has_device_capability(self, capability: int) -> bool:
        return self.capability >= capability

    def get_device_name(self) -> str:
        return "NVIDIA H100"


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "names", list)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def test_cuda_uses_vllms_kernels_and_leaves_the_cache_size_to_vllm():
    device = choose(Platform("cuda"), "auto")
    assert (device.cuda, device.kv_cache_gib) == (True, None)
    assert str(device) == "CUDA, NVIDIA H100, bf16; vLLM's own LoRA kernels"


def test_a_gpu_without_bf16_serves_in_float16():
    assert (
        str(choose(Platform("cuda", 75), "auto"))
        == "CUDA, NVIDIA H100, float16 (it has no bf16); vLLM's own LoRA kernels"
    )


def test_a_number_format_that_was_given_is_named_and_float32_refused():
    assert ", float16; " in str(choose(Platform("cuda"), "float16"))
    assert choose(Platform("cpu"), "float32").cuda is False
    with pytest.raises(ConfigError, match="--dtype float32"):
        choose(Platform("cuda"), "float32")


def test_a_gpu_refuses_weights_of_8_bits():
    with pytest.raises(ConfigError, match="--int8 is for CPUs"):
        choose(Platform("cuda"), "auto", int8=True)


def test_a_cpu_uses_our_arithmetic_and_always_has_a_cache_size():
    device = choose(Platform("cpu"), "auto")
    assert (device.cuda, device.kv_cache_gib) == (False, 1)
    assert str(device) == "CPU, 2 cores; Mailwright's own LoRA arithmetic; no CUDA GPU answers"


def test_a_gpu_beside_the_cpu_build_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "names", lambda: ["Tesla T4"])
    assert "Tesla T4 is in this machine, but the CPU wheels" in str(choose(Platform("cpu"), "auto"))


def test_the_cuda_build_without_a_gpu_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match="finds no CUDA GPU") as refused:
        choose(Platform("none"), "auto")
    assert "requirements-cpu.txt" in refused.value.hint


def test_vllms_platforms_answer_what_is_asked_of_them():
    """The stand-in above must not drift away from the real ones."""
    from vllm.platforms.cpu import CpuPlatform
    from vllm.platforms.interface import Platform as Real

    asked = [name for name in vars(Platform) if not name.startswith("_") and name not in ("kind", "capability")]
    assert asked == ["is_cuda", "is_cpu", "has_device_capability", "get_device_name"]
    assert all(callable(getattr(Real, name)) for name in asked)
    assert choose(CpuPlatform(), "auto").cuda is False
