"""What was predicted of trainings on this machine, and what they took: kept, so that the next estimate is corrected.

One JSON file in the user's cache. Of emails it holds counts and digests. This file does not know how a prediction is
made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter, ValidationError

from adapters.settings import cache_directory
from adapters.store.disk import locked, replace
from adapters.store.manifest import Frozen, Manifest
from trainer.console import Log

if TYPE_CHECKING:
    from trainer.compute.device import Device

KEPT = 200
"""Predictions in the file; older ones go."""
LATEST = 5
"""Runs that a correction looks back at."""
SPEED = ("rank", "batch_size", "dropout", "max_length")
"""Fields of a recipe that a step's speed depends on."""


class Prediction(Frozen):
    """Seconds are those of `training.seconds` in a manifest."""

    date: datetime
    machine: str
    dtype: str
    base_fingerprint: str
    recipe: dict[str, Any]
    data_sha256: str
    heldout_sha256: str | None
    tokens: int
    """Of all epochs."""
    steps: int
    tokens_a_second: float
    probed_seconds: float = Field(gt=0)
    """What the probe alone says."""
    seconds: float = Field(gt=0)
    """What was said: the probe's, corrected."""
    actual_seconds: float | None = None

    def is_alike(self, other: Prediction) -> bool:
        """Whether what one run took beyond its probe says something about the other."""
        return self._speed() == other._speed()

    def is_of(self, manifest: Manifest, machine: str) -> bool:
        """Whether the run that the manifest tells of is the one that was predicted."""
        return (self.machine, self.base_fingerprint, self.recipe, self.data_sha256, self.heldout_sha256) == (
            *(machine, manifest.base_fingerprint, manifest.recipe),
            *(manifest.data_sha256, manifest.heldout_sha256),
        )

    def _speed(self) -> tuple[object, ...]:
        return self.machine, self.dtype, self.base_fingerprint, *(self.recipe.get(field) for field in SPEED)


PREDICTIONS = TypeAdapter(list[Prediction])


def file() -> Path:
    return cache_directory() / "estimates" / "predictions.json"


def machine(device: Device) -> str:
    """What computes here, as far as speed depends on it."""
    import torch

    from trainer.compute.device import processor

    if device.kind == "cuda":
        return str(torch.cuda.get_device_name())
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def read(log: Log) -> list[Prediction]:
    """All that are kept, oldest first; of a damaged file none, which is said."""
    try:
        return PREDICTIONS.validate_json(file().read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is damaged"
        log(f"warning: past estimates in {file()} are not used: {reason}; the file can be deleted")
        return []


def correction(prediction: Prediction, past: Sequence[Prediction]) -> tuple[float, int]:
    """(what to multiply the probe's seconds by, over how many finished runs like it): their median; (1, 0) at first."""
    ratios = [p.actual_seconds / p.probed_seconds for p in past if p.actual_seconds and p.is_alike(prediction)]
    latest = ratios[-LATEST:]
    return (median(latest), len(latest)) if latest else (1.0, 0)


def keep(prediction: Prediction, log: Log) -> None:
    """Add it to the file. Where the cache cannot be written this is said, and nothing else fails."""
    _change(lambda past: [*past, prediction], log)


def remember(manifest: Manifest, machine: str, log: Log) -> None:
    """Compare a finished run with its latest prediction, say so, and keep what it took; nothing if there is none."""
    training = manifest.training
    own = [prediction for prediction in read(log) if prediction.is_of(manifest, machine)]
    if not training or not own:
        return
    predicted = own[-1]
    if training.steps != predicted.steps:
        log(f"the run ended after {training.steps} of {predicted.steps} steps: not compared with its prediction")
        return
    off = training.seconds / predicted.seconds - 1
    log(f"predicted {predicted.seconds:.0f} s, took {training.seconds:.0f} s ({off:+.0%})")
    finished = predicted.model_copy(update={"actual_seconds": training.seconds})
    _change(lambda past: [finished if prediction == predicted else prediction for prediction in past], log)


def _change(change: Callable[[list[Prediction]], list[Prediction]], log: Log) -> None:
    kept = file()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept.parent):
            replace(kept, PREDICTIONS.dump_json(change(read(lambda _: None))[-KEPT:], indent=1))
    except OSError as exc:
        log(f"warning: the prediction was not kept: {kept} cannot be written ({exc.strerror})")
