"""The predictions for trainings on this machine, and how long the runs took: they correct the next estimate.

One JSON file in the user's cache. Of emails it holds counts and digests only.
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

# Older predictions are dropped from the file.
MAX_KEPT = 200
# A correction is the median of so many finished runs.
LATEST_RUNS = 5
# The fields of a recipe that the speed of a step depends on.
SPEED_FIELDS = ("rank", "batch_size", "dropout", "max_length")


class Prediction(Frozen):
    """Seconds compare with the manifest's `training.seconds`; tokens are those of all epochs."""

    date: datetime
    machine: str
    dtype: str
    base_fingerprint: str
    recipe: dict[str, Any]
    data_sha256: str
    heldout_sha256: str | None
    tokens: int
    steps: int
    tokens_a_second: float
    # By the probe alone, and corrected.
    probed_seconds: float = Field(gt=0)
    seconds: float = Field(gt=0)
    actual_seconds: float | None = None

    def is_alike(self, other: Prediction) -> bool:
        """Whether the steps of both runs take equally long, so that one's error is to be expected of the other."""
        return self._speed() == other._speed()

    def is_of(self, manifest: Manifest, machine: str) -> bool:
        """Whether this predicted the run that the manifest records."""
        run = manifest.base_fingerprint, manifest.recipe, manifest.data_sha256, manifest.heldout_sha256
        predicted = self.base_fingerprint, self.recipe, self.data_sha256, self.heldout_sha256
        return predicted == run and self.machine == machine

    def _speed(self) -> tuple[object, ...]:
        return self.machine, self.dtype, self.base_fingerprint, *(self.recipe.get(field) for field in SPEED_FIELDS)


PREDICTIONS = TypeAdapter(list[Prediction])


def file() -> Path:
    return cache_directory() / "estimates" / "predictions.json"


def machine(device: Device) -> str:
    """The hardware that the speed depends on."""
    import torch

    from trainer.compute.device import processor

    if device.kind == "cuda":
        return str(torch.cuda.get_device_name())
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def read(log: Log) -> list[Prediction]:
    """The kept ones, oldest first; none, and a warning, if the file is damaged."""
    try:
        return PREDICTIONS.validate_json(file().read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is damaged"
        log(f"warning: past estimates in {file()} are not used: {reason}; the file can be deleted")
        return []


def correction(prediction: Prediction, past: Sequence[Prediction]) -> tuple[float, int]:
    """(the factor for the probe's seconds, over how many finished runs like it); (1, 0) without any."""
    ratios = [p.actual_seconds / p.probed_seconds for p in past if p.actual_seconds and p.is_alike(prediction)]
    latest = ratios[-LATEST_RUNS:]
    return (median(latest), len(latest)) if latest else (1.0, 0)


def keep(prediction: Prediction, log: Log) -> None:
    _change(lambda past: [*past, prediction], log)


def remember(manifest: Manifest, machine: str, log: Log) -> None:
    """Log how far off the latest prediction for this finished run was, if there is one, and keep how long it took."""
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
    """Rewrite the file; a cache that cannot be written only costs a warning."""
    kept = file()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept.parent):
            replace(kept, PREDICTIONS.dump_json(change(read(lambda _: None))[-MAX_KEPT:], indent=1))
    except OSError as exc:
        log(f"warning: the prediction was not kept: {kept} cannot be written ({exc.strerror})")
