"""What one training run is asked to do: on which emails, how and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.models.base_models import BaseModel
from adapters.store.manifest import check_name
from adapters.store.version import Version
from trainer.compute.device import Device
from trainer.console import Log
from trainer.data.examples import Example
from trainer.training.checkpoints import SAVE_EVERY_SECONDS
from trainer.training.events import EventSink, no_events
from trainer.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """The fields up to `report_to` are those of every run, the others of one that publishes an adapter."""

    examples: Sequence[Example]
    name: str
    base: BaseModel
    recipe: Recipe
    device: Device
    log: Log
    emit: EventSink = no_events
    # Held out instead of a part of `examples`.
    heldout: Sequence[Example] | None = None
    # Log the first step in words.
    explain: bool = False
    # What TRL's `report_to` takes.
    report_to: str = "none"
    licence: str = "unstated"
    # The adapter that the run continues; its rank and scale count.
    start: Version | None = None
    # Continue from the state of an unfinished run of that name.
    resume: bool = False
    save_every: float = SAVE_EVERY_SECONDS

    def __post_init__(self) -> None:
        check_name(self.name)
