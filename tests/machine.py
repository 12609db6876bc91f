"""What a bench says of the machine that it ran on."""

import platform
import re
from pathlib import Path


def cpu() -> str:
    """Its kind, and whether it has bf16 in hardware, which makes most of the difference between machines."""
    described = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*:\s*(.+)", described)
    kind = found.group(1) if found else platform.processor()
    return f"{kind}, {'bf16' if 'avx512_bf16' in described else 'no bf16'}"
