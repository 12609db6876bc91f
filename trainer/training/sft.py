"""One training run, top to bottom: examples -> LoRA adapter -> published version.

    trainer sft --data trainer/data/shipped/voices/formal.jsonl --name formal --recipe quick

The loop is TRL's, set up by trainer/training/sft_trainer.py, in this process. This file does not know flags or how
results are printed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, EarlyStoppingCallback, TrainerCallback

from adapters.errors import AdapterUnusable, ConfigError, TrainingDiverged
from adapters.models.base_models import BaseModel, shaping_config
from adapters.models.validate import reasons_against
from adapters.store.manifest import check_name
from adapters.store.store import Store
from adapters.store.version import WEIGHTS, Version
from trainer.compute import distributed
from trainer.compute.attention import ATTENTION
from trainer.compute.cpu_loss import fused_lora
from trainer.compute.device import choose
from trainer.console import Log, bar
from trainer.data.check import check_before_training
from trainer.data.examples import Example, digest
from trainer.evaluation import card, forgetting
from trainer.evaluation.acceptance import Acceptance
from trainer.evaluation.memorisation import trained_on
from trainer.training import callbacks, checkpoints
from trainer.training.dataset import Rows
from trainer.training.diagnose import Curve, Verdict, diagnose
from trainer.training.events import Tell, nobody
from trainer.training.explain import Explanation
from trainer.training.mix import rows_of_run
from trainer.training.out_of_memory import learn_in_memory, step_settings
from trainer.training.recipe import Recipe, learning_rate_prior
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer

SECONDS = "seconds"
"""Beside the adapter of an epoch: how long the run had taken."""


def train(
    examples: Sequence[Example],
    name: str,
    base: BaseModel,
    recipe: Recipe,
    store: Store,
    licence: str,
    log: Log,
    resume: bool = False,
    save_every: float = checkpoints.SAVE_EVERY,
    tell: Tell = nobody,
    heldout: Sequence[Example] | None = None,
    start: Version | None = None,
    explain: bool = False,
    report_to: str = "none",
) -> Version:
    """Train, validate, evaluate and publish the next version of `name`.

    The first version of a name is promoted, unless it misses a limit of the recipe. A recipe without limits has nothing
    evaluated. The state is saved every `save_every` seconds; `resume` goes on with that of an unfinished run of `name`.
    `tell` hears the events of trainer/training/events.py. `heldout` are held out instead of a part of the emails.
    The adapter begins as that of `start`, whose rank and scale count. `explain` says it in words, `report_to` is TRL's.

    Raises:
        DataError: emails that are too long, all listed, before the model is loaded.
        ConfigError: there is nothing to go on with, or it is a run of something else; `start` is of another base model.
        TrainingDiverged: the loss is no number; nothing is published, and the state before is kept.
        AdapterUnusable: the result fails validation; nothing is published.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM came; the state is kept.
    """
    check_name(name)
    recipe = shaped_as(start, recipe, base) if start else recipe
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    check_before_training(examples, tokenizer, recipe.max_length, log)
    device = choose()
    share = distributed.meet(recipe.batch_size, device.kind == "cpu")
    with distributed.first_before_others():
        rows = rows_of_run(examples, recipe, base, device, log, heldout)
    learning_rate = _learning_rate(recipe, base, log)
    started = checkpoints.identity(digest([*rows.train, *rows.heldout]), base.fingerprint, recipe, _from(start))
    with checkpoints.opened(store, name, started, resume, log) as run:
        trainer, seconds = learn_in_memory(
            lambda at_once: completion_trainer(
                *(rows.train, rows.heldout, base, recipe, learning_rate, tokenizer, device, str(run.path)),
                start=start.path if start else None,
                report_to=report_to,
                **step_settings(share, at_once),
            ),
            lambda trainer: _learn(
                *(trainer, rows, recipe, run, log, save_every), listeners(trainer, rows, recipe, log, tell, explain)
            ),
            share,
            log,
        )
        distributed.leave_the_rest_to_the_first()
        curve = _curve(trainer, learning_rate, rows, split=not heldout)
        verdict = _judge(curve, recipe, run, log, tell)
        learnt = Learnt(trainer, rows, recipe, base, licence, curve, verdict, seconds, _from(start))
        return _publish(learnt, store, run, log, tell)


def listeners(
    trainer: CompletionTrainer, rows: Rows, recipe: Recipe, log: Log, tell: Tell, explain: bool
) -> list[TrainerCallback]:
    """What `log` and `tell` hear while the run is under way; to `explain`, the loop in words too."""
    if not distributed.FIRST:
        return []

    def sample() -> str:
        return sample_email(trainer, (rows.heldout or rows.train)[0], recipe.sample_tokens)

    explained = [Explanation(log, trainer, rows.train[0])] if explain else []
    return [callbacks.EpochReport(log, sample, recipe.sample_epochs), callbacks.Told(tell), *explained]


def _learning_rate(recipe: Recipe, base: BaseModel, log: Log) -> float:
    rate = recipe.learning_rate or learning_rate_prior(shaping_config(base.path)["hidden_size"])
    source = "given" if recipe.learning_rate else "prior for its size"
    log(f"base model {base.name}, learning rate {rate:g} ({source})")
    return rate


def _judge(curve: Curve, recipe: Recipe, run: checkpoints.Run, log: Log, tell: Tell) -> Verdict:
    """Raises:
    TrainingDiverged: the last loss is no number.
    """
    verdict = diagnose(curve, recipe)
    tell_verdict(verdict, log, tell)
    if not math.isfinite(curve.steps[-1]):
        raise _diverged(run, verdict)
    return verdict


def tell_verdict(verdict: Verdict, log: Log, tell: Tell) -> None:
    log(f"verdict: {verdict.name}: {verdict.because}")
    tell("verdict", verdict=verdict.name, because=verdict.because, hint=verdict.hint)
    if verdict.hint:
        log(f"hint: {verdict.hint}")


def shaped_as(start: Version, recipe: Recipe, base: BaseModel) -> Recipe:
    """The recipe with the rank and scale of `start`.

    Raises:
        ConfigError: it is of another base model.
    """
    manifest = start.manifest()
    if manifest.base_fingerprint != base.fingerprint:
        raise ConfigError(
            f"{start.id} was trained on another base model ({manifest.base_name})", f"give --base {manifest.base}"
        )
    return recipe.model_copy(update=manifest.lora.model_dump(include={"rank", "alpha", "rslora"}))


def _from(start: Version | None) -> str | None:
    return f"{start.id} {start.digest}" if start else None


@dataclass(frozen=True)
class Learnt:
    """A run that is over, not yet published."""

    trainer: CompletionTrainer
    rows: Rows
    recipe: Recipe
    base: BaseModel
    licence: str
    curve: Curve
    verdict: Verdict
    seconds: float
    trained_from: str | None

    @property
    def epoch(self) -> int:
        """The one whose model is published: the last, or the best of a run that may have been stopped early."""
        stopped = self.trainer.args.load_best_model_at_end
        return self.curve.best_epoch if stopped else len(self.curve.train)

    def facts(self) -> dict[str, Any]:
        """The manifest's fields of the last model."""
        training = self._training(self.curve, self.epoch, self.seconds)
        found = self.verdict
        verdict = {"verdict": found.name, "because": found.because, "hint": found.hint, "remedy": found.remedy}
        return self._of_every_model() | {"training": training | verdict}

    def facts_of(self, epoch: int, seconds: float) -> dict[str, Any]:
        """Those of the model after `epoch`; they say that it is not the run's, and so it is not promoted."""
        not_done = {"passed": False, "reasons": [f"it is the model after epoch {epoch} of a run that kept another"]}
        training = self._training(self.curve.until(epoch), epoch, seconds)
        return self._of_every_model() | {"training": training, "evaluation": not_done}

    def _of_every_model(self) -> dict[str, Any]:
        recipe, rows = self.recipe, self.rows
        modules = sorted(self.trainer.model.peft_config["default"].target_modules)
        return {
            "base_name": self.base.name,
            "base_source": self.base.source,
            "base_fingerprint": self.base.fingerprint,
            "lora": recipe.model_dump(include={"rank", "alpha", "rslora"}) | {"target_modules": modules},
            "data_sha256": digest(rows.train),
            "heldout_sha256": digest(rows.heldout) if rows.heldout else None,
            "data_licence": self.licence,
            "trained_from": self.trained_from,
            "recipe": recipe.model_dump(mode="json"),
        }

    def _training(self, curve: Curve, kept: int, seconds: float) -> dict[str, Any]:
        return {
            "examples": len(self.rows.emails),
            "practice_examples": self.rows.practice,
            "heldout_examples": len(self.rows.heldout),
            "epochs": len(curve.train),
            "steps": len(curve.steps),
            "tokens": self.trainer.tokens_an_epoch * len(curve.train),
            "seconds": round(seconds, 1),
            "learning_rate": curve.learning_rate,
            "train_loss": round(curve.train[kept - 1], 4),
            "heldout_loss_before": curve.heldout_before and round(curve.heldout_before, 4),
            "heldout_loss": round(curve.heldout[kept - 1], 4) if curve.heldout else None,
            "versions": {package: installed_version(package) for package in ("torch", "transformers", "trl", "peft")},
            "general_loss_before": curve.general_before and round(curve.general_before, 4),
            "general_loss": curve.general and round(curve.general, 4),
            "train_losses": [round(loss, 4) for loss in curve.train],
            "heldout_losses": [round(loss, 4) for loss in curve.heldout],
        }


def _publish(learnt: Learnt, store: Store, run: checkpoints.Run, log: Log, tell: Tell) -> Version:
    """The model of the run, evaluated if the recipe has limits; then those of `sample_epochs`, as `NAME@epoch-N`.

    Raises:
        AdapterUnusable: it fails validation; nothing is published.
    """
    adapter = run.path / "adapter"
    _save(learnt.trainer, adapter)
    reasons = reasons_against(adapter, learnt.base, published=False)
    if reasons:
        raise AdapterUnusable(run.name, reasons)
    acceptance = Acceptance(run.name, learnt.base, learnt.recipe.limits, learnt.rows.emails, learnt.rows.heldout)
    published = acceptance.publish(store, adapter, learnt.facts(), log)
    reached = range(1, len(learnt.curve.train) + 1)
    for epoch in sorted({*reached} & {*learnt.recipe.sample_epochs}):
        version = published
        if epoch != learnt.epoch:
            seconds = float((run.epoch(epoch) / SECONDS).read_text())
            version = store.publish(run.name, run.epoch(epoch), learnt.facts_of(epoch, seconds), card.render)
        store.label(version.id, f"epoch-{epoch}")
        log(f"{run.name}@epoch-{epoch} is {version.id}")
    tell("published", version=published.id)
    return published


def _learn(
    trainer: CompletionTrainer,
    rows: Rows,
    recipe: Recipe,
    run: checkpoints.Run,
    log: Log,
    save_every: float,
    reporting: Sequence[TrainerCallback],
) -> float:
    """The loop, from the state that the run has or from the beginning; gives its seconds, those before included.

    Raises:
        KeyboardInterrupt, SystemExit: a signal ended it; the state is saved.
    """
    weights = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    run.check_room(weights, versions=1 + len(recipe.sample_epochs))
    began, before, checkpoint = time.monotonic(), run.seconds(), run.checkpoint()

    def seconds() -> float:
        return before + time.monotonic() - began

    interruption = callbacks.Interruption()
    progress = callbacks.Progress()
    for callback in (
        progress,
        *reporting,
        callbacks.KeptEpochs(recipe.sample_epochs, lambda epoch: _keep(trainer, run.epoch(epoch), seconds())),
        callbacks.Saving(save_every, lambda: run.note(seconds()) if distributed.FIRST else None),
        callbacks.LearningRate(trainer.args.learning_rate),
        interruption,
        *([EarlyStoppingCallback(recipe.early_stop)] if recipe.early_stop else []),
    ):
        trainer.add_callback(callback)
    trainer.args.eval_on_start = bool(rows.heldout) and not checkpoint
    if checkpoint:
        log(f"going on with {run.name}, saved in {checkpoint}")
    with disable_input_dtype_casting(trainer.model), fused_lora(trainer.model), interruption.listening(), progress:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if interruption.received and trainer.state.global_step < trainer.state.max_steps:
        log(f"saved at step {trainer.state.global_step} of {trainer.state.max_steps}; go on: the same with --resume")
        interruption.end()
    return seconds()


def _keep(trainer: CompletionTrainer, directory: Path, seconds: float) -> None:
    _save(trainer, directory)
    if distributed.FIRST:
        (directory / SECONDS).write_text(f"{seconds:.1f}")


def _save(trainer: CompletionTrainer, directory: Path) -> None:
    """The adapter in bf16, which vLLM serves it in: half as much to keep and to load, and judged as it will answer."""
    trainer.save_model(str(directory))
    if distributed.FIRST:
        weights = load_file(directory / WEIGHTS)
        halves = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
        save_file(halves, directory / WEIGHTS, metadata={"format": "pt"})


def _curve(trainer: CompletionTrainer, learning_rate: float, rows: Rows, split: bool) -> Curve:
    """The run's losses. Held-out emails of a `split` share nothing with what is trained on."""
    leaked = 0 if split else trained_on(rows.heldout, rows.train)
    curve = replace(callbacks.curve(trainer.state.log_history, learning_rate), leaked=leaked)
    return _with_general_loss(curve, trainer)


def _with_general_loss(curve: Curve, trainer: CompletionTrainer) -> Curve:
    """What the run cost the base model, if it learnt anything."""
    if not math.isfinite(curve.steps[-1]):
        return curve
    model = trainer.model.get_base_model()
    learnt_with = model.config._attn_implementation
    # On a GPU a run has another attention, and texts are read with ours.
    model.set_attn_implementation(ATTENTION)
    with bar("reading general text", 2 * forgetting.PASSAGES) as advance, trainer.accelerator.autocast():
        before, after = forgetting.general_losses(trainer.model, trainer.processing_class, advance)
    model.set_attn_implementation(learnt_with)
    return replace(curve, general_before=before, general=after)


def _diverged(run: checkpoints.Run, verdict: Verdict) -> TrainingDiverged:
    slower = verdict.hint.partition("... ")[2]
    saved = run.checkpoint()
    kept = f", or go on with the state that was saved before: add --resume {slower}" if saved else ""
    return TrainingDiverged(
        f"{verdict.because}, and nothing is published", f"begin anew with {slower}{kept}", verdict.remedy
    )


def sample_email(trainer: CompletionTrainer, example: Example, max_tokens: int) -> str:
    """The email that the model as it is now writes for the example's task, greedy."""
    tokenizer, model = trainer.processing_class, trainer.model
    prompt = tokenizer.apply_chat_template(
        list(example.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    was_training = model.training
    model.eval()
    with torch.inference_mode(), trainer.accelerator.autocast():
        written = model.generate(**prompt.to(model.device), max_new_tokens=max_tokens, do_sample=False)
    model.train(was_training)
    return str(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()
