"""What the NVIDIA driver says, from a stand-in for its tool."""

from pathlib import Path

import pytest

from adapters.models import gpu

TWO = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1b2c)\nGPU 1: Tesla T4 (UUID: GPU-3d4e)\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which commands are found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def nvidia_smi(path: Path, says: str, status: int = 0) -> None:
    (path / "said").write_text(says)
    (path / "nvidia-smi").write_text(f"#!/bin/sh\n[ $1 = -L ] && /bin/cat {path}/said\nexit {status}\n")
    (path / "nvidia-smi").chmod(0o755)


def test_gpus_are_listed_by_name(path: Path):
    nvidia_smi(path, TWO)
    assert gpu.names() == ["NVIDIA H100 80GB HBM3", "Tesla T4"]


def test_without_the_drivers_tool_there_is_none(path: Path):
    assert gpu.names() == []
    assert gpu.why_unused() == "no CUDA GPU answers"


def test_a_driver_that_does_not_answer_has_none(path: Path):
    nvidia_smi(path, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)
    assert gpu.names() == []


def test_a_tool_that_cannot_run_has_none(path: Path):
    (path / "nvidia-smi").write_text("no program")
    (path / "nvidia-smi").chmod(0o755)
    assert gpu.names() == []


def test_a_gpu_beside_the_cpu_wheels_is_named_with_the_way_to_the_others(path: Path):
    nvidia_smi(path, TWO)
    why = gpu.why_unused()
    for part in ("NVIDIA H100 80GB HBM3", "the CPU wheels", "make setup", "requirements-cuda.txt"):
        assert part in why
