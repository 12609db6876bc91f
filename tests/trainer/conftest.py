import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another make the tiny model ten times slower on a busy machine: 3 s a step, not 0.1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch else 0
        if torch:
            torch.set_num_threads(1)
        yield
        if torch:
            torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def ours(tiny_base: Path) -> Any:
    """The tiny model with the attention of trainer/attention.py."""
    from trainer.attention import ATTENTION

    return _loaded(tiny_base, attn_implementation=ATTENTION)


@pytest.fixture(scope="package")
def stock(tiny_base: Path) -> Any:
    """The tiny model as transformers loads it."""
    return _loaded(tiny_base)


def _loaded(base: Path, **options: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype="float32", **options).eval()
