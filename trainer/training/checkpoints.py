"""Where a run keeps its state until its version is published, and whether a later command may go on with it.

    STORE/.runs/mine/run.json          what is trained on what: digests and the choices that may not change meanwhile
    STORE/.runs/mine/epochs/10/        the adapter of an epoch that is to be published beside the last
    STORE/.runs/mine/checkpoint-120/   the trainer's: adapter, optimiser, schedule, random numbers, losses so far
    STORE/.runs/.mine.lock             held by the process that trains

A checkpoint counts once its last file is there, so that one that was cut off is passed over for the one before. This
file knows neither trainers nor emails.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import ConfigError, StoreUnwritable
from adapters.store.disk import explained, replace, shortage
from adapters.store.store import RUNS, Store
from trainer.compute import distributed
from trainer.training.recipe import Recipe

STATE = "trainer_state.json"
"""Written last into a checkpoint."""
MAY_CHANGE = frozenset({"recipe", "learning_rate", "epochs", "early_stop", "limits", "sample_tokens"})
"""Fields of a recipe with other values of which a run may go on."""
SAVE_EVERY = 60.0
"""Seconds between two saves: what a power cut may cost."""
CHECKPOINTS, BYTES_A_WEIGHT = 3, 12
"""At most three lie there for a moment: the best, the last and the new one. Of each trained weight a checkpoint has the
float32 value and Adam's two moments."""


@dataclass(frozen=True)
class Run:
    """The directory of one run, this process's own as long as `opened` lasts."""

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
        needed = weights * (CHECKPOINTS * BYTES_A_WEIGHT + 8 * versions)
        lacking = shortage(self.path.parent.parent, needed)
        if lacking:
            raise StoreUnwritable(lacking, "make room there, or give another --store")

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def _write(self, fields: dict[str, Any]) -> None:
        with explained(self.path.parents[1]):
            replace(self.path / "run.json", json.dumps(fields, indent=1))


def identity(rows_sha256: str, base_fingerprint: str, recipe: Recipe, start: str | None = None) -> dict[str, Any]:
    """What must be the same for one run to go on with the state of another; `start` is what the adapter began as."""
    fields = recipe.model_dump(mode="json", exclude=set(MAY_CHANGE))
    return {"emails": rows_sha256, "base model": base_fingerprint, "from": start, **fields}


@contextmanager
def opened(store: Store, name: str, started: dict[str, Any], resume: bool, log: Callable[[str], None]) -> Iterator[Run]:
    """The directory for a run of `name`: that of the unfinished one to go on with, else a new one.

    Once the context has ended without an exception it is gone; after one it stays if there is a state to go on with.

    Raises:
        ConfigError: nothing to go on with, or a run of something else; or another process trains `name` now.
    """
    runs = store.directory / RUNS
    if not distributed.FIRST:
        # The first process holds it, and has put it in order.
        distributed.wait()
        yield Run(name, runs / name)
        return
    with explained(store.directory):
        runs.mkdir(parents=True, exist_ok=True)
        lock = (runs / f".{name}.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run teaches {name} at the moment, into this store", "wait for it, or give another --name"
            ) from None
        run = Run(name, runs / name)
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


def _begin(run: Run, started: dict[str, Any], log: Callable[[str], None]) -> None:
    left = run.checkpoint()
    if left:
        log(f"an unfinished run of {run.name}, saved at step {_step(left)}, is given up: --resume goes on with one")
    shutil.rmtree(run.path, ignore_errors=True)
    with explained(run.path.parent.parent):
        run.path.mkdir()
        run._write({"started": started})


def _check_same(run: Run, started: dict[str, Any]) -> None:
    if not run.checkpoint():
        raise ConfigError(f"there is no unfinished run of {run.name} to go on with", "leave --resume out")
    before = run._read().get("started", {})
    other = [what for what, value in started.items() if before.get(what) != value]
    if other:
        had = ", ".join(_said(what, before.get(what), started[what]) for what in other)
        may_change = ", ".join(f"--{field.replace('_', '-')}" for field in ("learning_rate", "epochs", "early_stop"))
        raise ConfigError(
            f"the unfinished run of {run.name} is another one: {had}",
            f"give the same emails and options, only {may_change} may change; or start anew without --resume",
        )


def _said(what: str, before: Any, now: Any) -> str:
    return f"other {what}" if what in ("emails", "base model") else f"{what} {before}, not {now}"


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
