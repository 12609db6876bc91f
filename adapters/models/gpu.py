"""Which NVIDIA GPUs the driver sees in this machine, without torch: it explains why none is used.

trainer/compute/device.py and server/engine/device.py choose the device, each by the library that computes.
"""

from __future__ import annotations

import re
import shutil
import subprocess


def names() -> list[str]:
    """The names that `nvidia-smi -L` lists, such as `NVIDIA H100 80GB HBM3`; empty without a working driver."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", listed.stdout, re.MULTILINE)


def why_unused() -> str:
    """A clause for installed CPU builds of torch and vLLM: are they right for this machine, or a mistake?"""
    found = names()
    if not found:
        return "no CUDA GPU answers"
    return (
        f"{found[0]} is in this machine, but the CPU wheels of torch and vLLM are installed "
        "(remove .venv and run `make setup` for those of deploy/requirements-cuda.txt)"
    )
