"""The demo as a user starts it: the default base model for a GPU, two voices taught on it, all three compared."""

import os
import subprocess
import sys

import pytest

from adapters.models import catalog
from tests.serving import ROOT


@pytest.mark.timeout(3600)
def test_the_demo_runs_on_the_gpu():
    done = subprocess.run(
        [sys.executable, "deploy/demo.py", "--check"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "MAILWRIGHT_BASE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    log = (ROOT / ".demo/server.log").read_text()
    assert "device   CUDA, " in log
    assert f"base     {catalog.GPU}" in log
