"""The run's curves for TensorBoard: `trainer sft --tensorboard DIR`, then `tensorboard --logdir DIR`.

The callback is transformers' own; no email goes through it. TensorBoard itself is an extra, `mailwright[tensorboard]`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adapters.errors import ConfigError


def check_installed() -> None:
    """Raise ConfigError if it is not."""
    if not find_spec("tensorboard"):
        raise ConfigError("--tensorboard needs TensorBoard, which is not installed", "pip install tensorboard")


def writes_to(directory: Path) -> Any:
    """The callback that writes every log of a run there; each run has a file of its own.

    Raises:
        ConfigError: nothing can be written there.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    try:
        directory.mkdir(parents=True, exist_ok=True)
        return TensorBoardCallback(SummaryWriter(str(directory)))
    except OSError as exc:
        raise ConfigError(
            f"the curves cannot be written to {directory}: {exc.strerror}", "give another --tensorboard"
        ) from exc
