"""The end of a run: its adapter and those of its `sample_epochs` become versions in the store."""

from __future__ import annotations

from typing import Any

from adapters.errors import AdapterUnusable
from adapters.models.validate import reasons_against
from adapters.store.store import Store
from adapters.store.version import Version
from trainer.data.examples import digest
from trainer.evaluation import card
from trainer.evaluation.acceptance import Acceptance
from trainer.training.checkpoints import SECONDS_FILE, SavedRun
from trainer.training.diagnose import Verdict
from trainer.training.fit import TrainedRun
from trainer.training.run import TrainingRun
from trainer.training.sft_trainer import save_adapter


def publish(run: TrainingRun, trained: TrainedRun, verdict: Verdict, saved: SavedRun, store: Store) -> Version:
    """The adapter of the run, evaluated if the recipe has limits; then those of `sample_epochs`, as `NAME@epoch-N`.

    Raises:
        AdapterUnusable: the adapter of the run fails validation; nothing is published.
    """
    adapter = saved.path / "adapter"
    save_adapter(trained.trainer, adapter)
    if reasons := reasons_against(adapter, run.base, published=False):
        raise AdapterUnusable(run.name, reasons)
    kept = trained.kept_epoch
    training = trained.fields(trained.curve, kept, trained.seconds) | verdict.fields()
    acceptance = Acceptance(run.name, run.base, run.recipe.limits, trained.rows.emails, trained.rows.heldout)
    published = acceptance.publish(store, adapter, _fields(run, trained) | {"training": training}, run.log)
    for epoch in sorted({*range(1, len(trained.curve.train) + 1)} & {*run.recipe.sample_epochs}):
        version = published if epoch == kept else _publish_epoch(run, trained, epoch, saved, store)
        if version:
            store.label(version.id, f"epoch-{epoch}")
            run.log(f"{run.name}@epoch-{epoch} is {version.id}")
    run.emit("published", version=published.id)
    return published


def _publish_epoch(run: TrainingRun, trained: TrainedRun, epoch: int, saved: SavedRun, store: Store) -> Version | None:
    """The adapter after `epoch`, which is never promoted; None if it fails validation."""
    adapter = saved.epoch(epoch)
    # After one step at the beginning of the warm-up, whose learning rate is 0, an adapter changes nothing.
    if reasons := reasons_against(adapter, run.base, published=False):
        run.log(f"the model after epoch {epoch} is not published: {'; '.join(reasons)}")
        return None
    seconds = float((adapter / SECONDS_FILE).read_text())
    not_kept = {"passed": False, "reasons": [f"it is the model after epoch {epoch} of a run that kept another"]}
    training = trained.fields(trained.curve.until(epoch), epoch, seconds)
    fields = _fields(run, trained) | {"training": training, "evaluation": not_kept}
    return store.publish(run.name, adapter, fields, card.render)


def started_from(run: TrainingRun) -> str | None:
    return f"{run.start.id} {run.start.digest}" if run.start else None


def _fields(run: TrainingRun, trained: TrainedRun) -> dict[str, Any]:
    """The manifest's fields that all versions of the run share."""
    rows = trained.rows
    modules = sorted(trained.trainer.model.peft_config["default"].target_modules)
    return {
        "base_name": run.base.name,
        "base_source": run.base.source,
        "base_fingerprint": run.base.fingerprint,
        "lora": run.recipe.model_dump(include={"rank", "alpha", "rslora"}) | {"target_modules": modules},
        "data_sha256": digest(rows.train),
        "heldout_sha256": digest(rows.heldout) if rows.heldout else None,
        "data_licence": run.licence,
        "instruction": run.recipe.instruction,
        "trained_from": started_from(run),
        "recipe": run.recipe.model_dump(mode="json"),
    }
