from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    with tiny.one_thread():
        yield


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU without bf16, for what is compared to the fourth digit or was tried out in float32."""
    import torch

    for feature in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, feature, lambda: False)


@pytest.fixture(scope="package")
def ours(tiny_base: Path) -> Any:
    """The tiny model with the attention of trainer/compute/attention.py."""
    from trainer.compute.attention import ATTENTION

    return _loaded(tiny_base, attn_implementation=ATTENTION)


@pytest.fixture(scope="package")
def stock(tiny_base: Path) -> Any:
    """The tiny model as transformers loads it."""
    return _loaded(tiny_base)


def _loaded(base: Path, **options: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype="float32", **options).eval()
