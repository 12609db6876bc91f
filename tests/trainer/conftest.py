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


@pytest.fixture
def loss_becomes_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third step of every training. A high learning rate cannot be relied on to break a run: where the weights
    become huge but stay finite, the norms give zeros, and all tokens are as likely: better than the tiny model begins.
    """
    from trainer.training.sft_trainer import CompletionTrainer

    whole = CompletionTrainer.compute_loss

    def compute_loss(trainer: Any, model: Any, *inputs: Any, **named: Any) -> Any:
        loss = whole(trainer, model, *inputs, **named)
        return loss * float("nan") if model.training and trainer.state.global_step >= 2 else loss

    monkeypatch.setattr(CompletionTrainer, "compute_loss", compute_loss)


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
