"""One training run, top to bottom: emails -> LoRA adapter -> published version.

trainer sft --data trainer/data/shipped/voices/formal.jsonl --name formal --recipe quick
"""

from __future__ import annotations

import math
from dataclasses import replace

from adapters.errors import ConfigError, TrainingDiverged
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.compute import distributed
from trainer.data.examples import digest
from trainer.training import checkpoints
from trainer.training.dataset import training_set
from trainer.training.diagnose import Verdict, diagnose
from trainer.training.fit import fit
from trainer.training.publish import publish, started_from
from trainer.training.recipe import peak_learning_rate
from trainer.training.run import TrainingRun


def train(run: TrainingRun, store: Store) -> Version:
    """Train, diagnose, evaluate and publish the next version of `run.name`.

    The first version of a name is promoted, unless it misses a limit of the recipe; without limits nothing is
    evaluated.

    Raises:
        ConfigError: nothing to resume, or an unfinished run of something else; `run.start` is of another base model.
        TrainingDiverged: the loss is NaN; nothing is published, and the last state with finite weights is kept.
        AdapterUnusable: the result fails validation; nothing is published.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM; the state is kept.
    """
    run = _shaped_as_start(run)
    distributed.meet(run.recipe.batch_size, run.device.kind == "cpu")
    with distributed.first_before_others():
        rows = training_set(run.examples, run.recipe, run.base, run.device, run.log, run.heldout)
    rate = peak_learning_rate(run.recipe, run.base)
    run.log(
        f"base model {run.base.name}, learning rate {rate:g} "
        f"({'given' if run.recipe.learning_rate else 'prior for its size'})"
    )
    emails = digest([*rows.train, *rows.heldout])
    started = checkpoints.identity(emails, run.base.fingerprint, run.recipe, started_from(run))
    with checkpoints.open_run(store, run.name, started, run.resume, run.log) as saved:
        trained = fit(run, rows, rate, saved.path, saved)
        verdict = diagnose(trained.curve, run.recipe)
        verdict.report(run.log, run.emit)
        if not math.isfinite(trained.curve.steps[-1]):
            raise _diverged(verdict, saved)
        return publish(run, trained, verdict, saved, store)


def _shaped_as_start(run: TrainingRun) -> TrainingRun:
    if not run.start:
        return run
    manifest = run.start.manifest()
    if manifest.base_fingerprint != run.base.fingerprint:
        raise ConfigError(
            f"{run.start.id} was trained on another base model ({manifest.base_name})", f"give --base {manifest.base}"
        )
    shape = manifest.lora.model_dump(include={"rank", "alpha", "rslora"})
    return replace(run, recipe=run.recipe.model_copy(update=shape | {"instruction": manifest.instruction}))


def _diverged(verdict: Verdict, saved: checkpoints.SavedRun) -> TrainingDiverged:
    slower = verdict.hint.partition("... ")[2]
    resume = f", or resume from the last saved state: add --resume {slower}" if saved.checkpoint() else ""
    return TrainingDiverged(
        f"{verdict.because}, and nothing is published", f"begin anew with {slower}{resume}", verdict.remedy
    )
