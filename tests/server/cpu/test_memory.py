"""Room that is reserved and not used takes no memory, and holds what is written into it."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
SIZE_BYTES = 2**28
# In a process of its own: in one that has run other tests, other memory comes and goes meanwhile.
SIZES_IN_MEMORY = f"""
import json, psutil, torch
from server.cpu import memory

resident = lambda: psutil.Process().memory_info().rss
before = resident()
zeros = torch.full(({SIZE_BYTES},), 0, dtype=torch.int8)
sizes = [resident() - before]
memory.given_back(zeros)
sizes.append(resident() - before)
zeros[: {SIZE_BYTES // 2}] = 1
sizes.append(resident() - before)
print(json.dumps([sizes, int(zeros.sum(dtype=torch.int64))]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes pages back")
def test_zeros_take_memory_only_where_something_is_written():
    run = subprocess.run([sys.executable, "-c", SIZES_IN_MEMORY], capture_output=True, text=True, check=True)
    (written, given_back, half), total = json.loads(run.stdout)
    assert written > SIZE_BYTES * 0.9
    assert given_back < SIZE_BYTES * 0.1
    assert half < SIZE_BYTES * 0.6
    assert total == SIZE_BYTES // 2


@pytest.mark.parametrize("size", [1, 4095, 4096, 70_000])
def test_zeros_stay_zeros(size: int):
    from server.cpu import memory

    assert not memory.given_back(torch.zeros(size, dtype=torch.int8)).any()
