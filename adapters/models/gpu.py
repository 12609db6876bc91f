"""Which NVIDIA GPUs the driver sees in this machine, asked without torch.

It answers one question: why does nothing compute on a GPU here? The choice itself is made in trainer/compute/device.py
and server/engine/device.py, each by asking the library that computes. This file does not know those libraries.
"""

from __future__ import annotations

import re
import shutil
import subprocess


def names() -> list[str]:
    """What `nvidia-smi -L` lists, such as `NVIDIA H100 80GB HBM3`; empty without a driver that answers."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", listed.stdout, re.MULTILINE)


def why_unused() -> str:
    """One clause for where the CPU builds of torch and vLLM are installed: right for this machine, or a mistake?"""
    found = names()
    if not found:
        return "no CUDA GPU answers"
    return (
        f"{found[0]} is in this machine, but the CPU wheels of torch and vLLM are installed "
        "(remove .venv and run `make setup` for those of deploy/requirements-cuda.txt)"
    )
