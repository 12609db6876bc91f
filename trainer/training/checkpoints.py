"""Where a run keeps its state until its version is published, and whether a later command may resume it.

STORE/.runs/mine/run.json          digests of emails and base model, and the choices that must stay the same
STORE/.runs/mine/epochs/10/        the adapter of an epoch that is to be published beside the last
STORE/.runs/mine/checkpoint-120/   the Trainer's: adapter, optimiser, schedule, random numbers, losses so far
STORE/.runs/.mine.lock             held by the process that trains
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import ConfigError, StoreUnwritable
from adapters.store.disk import explained, replace, shortage
from adapters.store.store import RUNS, Store
from trainer.compute import distributed
from trainer.console import Log
from trainer.training.recipe import Recipe

# The Trainer writes it last, so that a checkpoint without it was cut off.
STATE = "trainer_state.json"
# Beside the adapter of an epoch: the seconds that the run had taken.
SECONDS_FILE = "seconds"
# Fields of a recipe that a resumed run may have with other values.
MAY_CHANGE = frozenset({"recipe", "learning_rate", "epochs", "early_stop", "limits", "sample_tokens"})
# Between two saves: what a power cut may cost.
SAVE_EVERY_SECONDS = 60.0
# For a moment the best, the last and the new checkpoint lie there.
MAX_CHECKPOINTS = 3
# Of each trained weight a checkpoint has the float32 value and Adam's two moments.
CHECKPOINT_BYTES_PER_WEIGHT = 12
# While a version is made: the adapter in float32, in bf16 and its copy in the store.
VERSION_BYTES_PER_WEIGHT = 8


@dataclass(frozen=True)
class SavedRun:
    """The directory of one run, of this process alone while `open_run` lasts."""

    name: str
    path: Path

    def checkpoint(self) -> Path | None:
        """The newest whole one."""
        whole = [state.parent for state in self.path.glob(f"checkpoint-*/{STATE}") if _step(state.parent)]
        return max(whole, key=_step, default=None)

    def seconds(self) -> float:
        """How long the run had taken when it was last saved."""
        return float(self._read().get("seconds", 0.0))

    def note(self, seconds: float) -> None:
        self._write(self._read() | {"seconds": round(seconds, 1)})

    def epoch(self, number: int) -> Path:
        """Where the adapter of that epoch is kept."""
        return self.path / "epochs" / str(number)

    def check_room(self, weights: int, versions: int = 1) -> None:
        """Raise StoreUnwritable if the disk has no room for the run: `weights` are trained, `versions` published."""
        needed = weights * (MAX_CHECKPOINTS * CHECKPOINT_BYTES_PER_WEIGHT + VERSION_BYTES_PER_WEIGHT * versions)
        if lacking := shortage(self.path.parent.parent, needed):
            raise StoreUnwritable(lacking, "make room there, or give another --store")

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            fields = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            return fields if isinstance(fields, dict) else {}
        return {}

    def _write(self, fields: dict[str, Any]) -> None:
        with explained(self.path.parents[1]):
            replace(self.path / "run.json", json.dumps(fields, indent=1))


def identity(rows_sha256: str, base_fingerprint: str, recipe: Recipe, start: str | None = None) -> dict[str, Any]:
    """What must be the same for one run to resume another; `start` is the version that it continues."""
    fields = recipe.model_dump(mode="json", exclude=set(MAY_CHANGE))
    return {"emails": rows_sha256, "base model": base_fingerprint, "from": start, **fields}


@contextmanager
def open_run(store: Store, name: str, started: dict[str, Any], resume: bool, log: Log) -> Iterator[SavedRun]:
    """The directory for a run of `name`: with `resume` that of the unfinished one, else a new one.

    It is deleted after the context, except where an exception leaves a state to resume.

    Raises:
        ConfigError: nothing to resume, or a run of something else; or another process trains `name` now.
    """
    runs = store.directory / RUNS
    run = SavedRun(name, runs / name)
    if not distributed.FIRST:
        # The first process holds the lock, and has prepared the directory when all have come here.
        distributed.wait()
        yield run
        return
    with explained(store.directory):
        runs.mkdir(parents=True, exist_ok=True)
        lock = (runs / f".{name}.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run trains {name} into this store now", "wait for it, or give another --name"
            ) from None
        if resume:
            _check_same(run, started)
        else:
            _begin(run, started, log)
        distributed.wait()
        try:
            yield run
        except BaseException:
            if not run.checkpoint():
                shutil.rmtree(run.path, ignore_errors=True)
            raise
        shutil.rmtree(run.path, ignore_errors=True)


def _begin(run: SavedRun, started: dict[str, Any], log: Log) -> None:
    if left := run.checkpoint():
        log(f"deleting the unfinished run of {run.name}, saved at step {_step(left)}; --resume would continue it")
    shutil.rmtree(run.path, ignore_errors=True)
    with explained(run.path.parent.parent):
        run.path.mkdir()
        run._write({"started": started})


def _check_same(run: SavedRun, started: dict[str, Any]) -> None:
    if not run.checkpoint():
        raise ConfigError(f"there is no unfinished run of {run.name} to resume", "leave --resume out")
    before = run._read().get("started", {})
    other = [
        f"other {what}" if what in ("emails", "base model") else f"{what} {before.get(what)}, not {value}"
        for what, value in started.items()
        if before.get(what) != value
    ]
    if other:
        raise ConfigError(
            f"the unfinished run of {run.name} is another one: {', '.join(other)}",
            "give the same emails and options, only --learning-rate, --epochs and --early-stop may change; or start "
            "anew without --resume",
        )


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
