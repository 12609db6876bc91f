"""Room that is reserved and not used takes no memory, and holds what is written into it."""

import sys

import psutil
import pytest

torch = pytest.importorskip("torch")
SIZE_BYTES = 2**28


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes pages back")
def test_zeros_take_memory_only_where_something_is_written():
    from server.cpu import memory

    def resident() -> int:
        return int(psutil.Process().memory_info().rss)

    before = resident()
    zeros = torch.zeros(SIZE_BYTES, dtype=torch.int8)
    assert resident() - before > SIZE_BYTES * 0.9
    memory.given_back(zeros)
    assert resident() - before < SIZE_BYTES * 0.1
    zeros[: SIZE_BYTES // 2] = 1
    assert resident() - before < SIZE_BYTES * 0.6
    assert zeros.sum(dtype=torch.int64) == SIZE_BYTES // 2


@pytest.mark.parametrize("size", [1, 4095, 4096, 70_000])
def test_zeros_stay_zeros(size: int):
    from server.cpu import memory

    assert not memory.given_back(torch.zeros(size, dtype=torch.int8)).any()
