"""What only a CUDA GPU with bf16 can show: `make test-gpu` runs it, and stops with one sentence where there is none.

The demo fetches the default base model for a GPU, 8 GB; everything else uses tiny random ones.
"""

from collections.abc import Iterator

import pytest

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests.serving import RunningServer, running_server
from trainer.compute.device import choose


@pytest.fixture(scope="session", autouse=True)
def needs_a_gpu() -> None:
    device = choose()
    if (device.kind, device.dtype) != ("cuda", "bfloat16"):
        pytest.exit(f"tests/gpu needs a CUDA GPU with bf16, and here is: {device}", returncode=2)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel, voices: Store) -> Iterator[RunningServer]:
    """vLLM's LoRA kernels for GPUs know no float32, which the tests on a CPU use."""
    with running_server(base_model, voices, 4, tmp_path_factory.mktemp("server") / "server.log", "auto") as running:
        yield running
