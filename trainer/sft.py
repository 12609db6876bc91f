"""One training run, top to bottom: examples -> LoRA adapter -> published version. The only file that imports TRL.

    trainer sft --data trainer/data/formal.jsonl --name formal --recipe quick

The loop is TRL's SFTTrainer with a PEFT LoRA adapter, in this process. This file does not know flags or how results
are printed.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from adapters.base_model import BaseModel, shaping_config
from adapters.errors import AdapterUnusable, ConfigError
from adapters.manifest import check_name
from adapters.store import Store, Version
from adapters.validate import reasons_against
from trainer.check import check_before_training
from trainer.data import Example, digest, split
from trainer.device import Device, choose
from trainer.diagnose import Curve, Verdict, diagnose
from trainer.notes import from_notes
from trainer.practice import VOICES, practice_examples
from trainer.proof import Proof
from trainer.recipe import Recipe, learning_rate_prior
from trainer.vary import vary

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from peft.helpers import disable_input_dtype_casting
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, EarlyStoppingCallback, PreTrainedTokenizerBase
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from trainer.attention import ATTENTION
from trainer.callbacks import EpochReport, Progress
from trainer.copied import Copied, summed
from trainer.cpu_loss import completion_losses, fused_lora
from trainer.packed import pack

Say = Callable[[str], None]


@dataclass(frozen=True)
class Rows:
    """What one run trains on and what it holds out; `practice` is how many of `train` were generated or varied."""

    train: list[Example]
    heldout: list[Example]
    practice: int

    @property
    def emails(self) -> list[Example]:
        """The person's own of `train`, which stand first."""
        return self.train[: len(self.train) - self.practice]


def train(
    examples: Sequence[Example], name: str, base: BaseModel, recipe: Recipe, store: Store, licence: str, say: Say
) -> Version:
    """Train, validate, evaluate and publish the next version of `name`.

    The first version of a name is promoted, unless it misses a limit of the recipe. A recipe without limits has nothing
    evaluated.

    Raises:
        DataError: emails that are too long, all listed, before the model is loaded.
        AdapterUnusable: the result fails validation; nothing is published.
    """
    check_name(name)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    check_before_training(examples, tokenizer, recipe.max_length, say)
    rows = choose_rows(examples, recipe, say)
    if recipe.early_stop and not rows.heldout:
        raise ConfigError("early_stop looks at the held-out loss, and no email is held out", "add --heldout 0.2")
    device = choose()
    learning_rate = recipe.learning_rate or learning_rate_prior(shaping_config(base.path)["hidden_size"])
    source = "given" if recipe.learning_rate else "prior for its size"
    say(f"base model {base.name}, learning rate {learning_rate:g} ({source})")
    with tempfile.TemporaryDirectory(prefix="mailwright-sft-") as scratch:
        trainer = _trainer(rows, base, recipe, learning_rate, tokenizer, device, scratch)
        report = EpochReport(say, lambda: _sample(trainer, (rows.heldout or rows.train)[0], recipe.sample_tokens))
        trainer.add_callback(Progress())
        trainer.add_callback(report)
        if recipe.early_stop:
            trainer.add_callback(EarlyStoppingCallback(recipe.early_stop))
        started = time.monotonic()
        before = trainer.evaluate()["eval_loss"] if rows.heldout else None
        with disable_input_dtype_casting(trainer.model), fused_lora(trainer.model):
            trainer.train()
        seconds = time.monotonic() - started
        curve = Curve(report.steps, report.train, report.heldout, before, learning_rate)
        verdict = diagnose(curve, recipe)
        say(f"verdict: {verdict.name}: {verdict.because}")
        if verdict.hint:
            say(f"hint: {verdict.hint}")
        trainer.save_model(scratch)
        reasons = reasons_against(Path(scratch), base, published=False)
        if reasons:
            raise AdapterUnusable(name, reasons)
        training = _summary(trainer, rows, curve, verdict, seconds)
        facts = {
            "base_name": base.name,
            "base_source": base.source,
            "base_fingerprint": base.fingerprint,
            "lora": {"rank": recipe.rank, "alpha": recipe.alpha, "target_modules": _target_modules(trainer)},
            "data_sha256": digest(rows.train),
            "heldout_sha256": digest(rows.heldout) if rows.heldout else None,
            "data_licence": licence,
            "recipe": recipe.model_dump(mode="json"),
            "training": training,
        }
        proof = Proof(name, base, recipe.limits, rows.emails, rows.heldout)
        return proof.publish(store, Path(scratch), facts, say)


def _summary(trainer: CompletionTrainer, rows: Rows, curve: Curve, verdict: Verdict, seconds: float) -> dict[str, Any]:
    """The manifest's `training`."""
    kept = curve.best_epoch if trainer.args.load_best_model_at_end else len(curve.train)
    return {
        "examples": len(rows.emails),
        "practice_examples": rows.practice,
        "heldout_examples": len(rows.heldout),
        "epochs": len(curve.train),
        "steps": trainer.state.global_step,
        "tokens": trainer.tokens_an_epoch * len(curve.train),
        "seconds": round(seconds, 1),
        "learning_rate": curve.learning_rate,
        "train_loss": round(curve.train[kept - 1], 4),
        "heldout_loss_before": curve.heldout_before and round(curve.heldout_before, 4),
        "heldout_loss": round(curve.heldout[kept - 1], 4) if curve.heldout else None,
        "versions": {package: installed_version(package) for package in ("torch", "transformers", "trl", "peft")},
        "train_losses": [round(loss, 4) for loss in curve.train],
        "heldout_losses": [round(loss, 4) for loss in curve.heldout],
        "verdict": verdict.name,
        "because": verdict.because,
        "hint": verdict.hint,
    }


def choose_rows(examples: Sequence[Example], recipe: Recipe, say: Say) -> Rows:
    """Split the emails; to the training ones add varied copies, with their tasks and with notes, and practice."""
    emails, heldout = split(examples, recipe.heldout, recipe.seed)
    voices = {example.voice for example in emails}
    practice: list[Example] = []
    if recipe.practice and len(voices) == 1 and voices <= set(VOICES):
        practice = practice_examples(voices.pop() or "", recipe.practice, recipe.seed)
    elif recipe.practice:
        say("no generated practice: it exists for rows whose voice is formal or friendly")
    chance = random.Random(recipe.seed)
    varied = [vary(email, chance) for _ in range(recipe.repeats - 1) for email in emails]
    copies = (vary(email, chance) for _ in range(recipe.notes) for email in emails)
    noted = [example for copy in copies if (example := from_notes(copy, chance))]
    say(
        f"{len(emails)} emails to learn from, {len(varied)} copies with other names and numbers, "
        f"{len(noted)} with notes for a task, {len(practice)} generated for practice; {len(heldout)} held out"
    )
    made = [*varied, *noted, *practice]
    return Rows([*emails, *made], heldout, len(made))


class CompletionTrainer(SFTTrainer):
    """SFTTrainer whose loss on a CPU is that of trainer/cpu_loss.py, and which may count copied tokens more.

    Off a GPU, TRL's fused head scores every token, prompt and padding too, and multiplies gradients in float32. The
    loss is the same (tests/trainer/test_sft.py holds it to 1e-3).
    """

    tokens_an_epoch = 0
    copied: Copied | None = None
    copy_weight = 1.0

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        on_cpu = self.args.device.type == "cpu"
        if return_outputs or not (on_cpu or self.copied):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels_BT = inputs["labels"]
        scored_BT = labels_BT[:, 1:] != -100
        if on_cpu:
            causal = self.accelerator.unwrap_model(model).base_model.model
            nats_S = completion_losses(causal, inputs, autocast=self.args.bf16)
        else:
            logits_BTV = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
            nats_S = cross_entropy(logits_BTV[scored_BT].float(), labels_BT[:, 1:][scored_BT], reduction="none")
        loss = nats_S.sum()
        if self.copied:
            copied_BT = self.copied.among(inputs["input_ids"], labels_BT)
            loss = summed(nats_S, copied_BT[:, 1:][scored_BT], self.copy_weight)
        return loss / (len(nats_S) if num_items_in_batch is None else num_items_in_batch)


def sft_settings(
    device: Device, recipe: Recipe, learning_rate: float, emails: int, heldout: int, scratch: str
) -> dict[str, Any]:
    """The fields of TRL's SFTConfig for a run on `emails` emails, `heldout` of them kept back beside those.

    With flash attention, and on a CPU, the emails of a batch stand in one row without padding. TRL's packing would save
    as much, but cuts what does not fit, keeps the same emails together in every epoch, and makes `batch_size` count
    rows, not emails. Everything else that a GPU needs is TRL's default: gradient checkpointing, fused AdamW, fused
    loss.
    """
    cuda = device.kind == "cuda"
    model: dict[str, str] = {"dtype": device.dtype}
    if not cuda:
        model["attn_implementation"] = ATTENTION
    elif device.flash_attention:
        # Also the name under which transformers finds the hub's kernel, where `kernels` is installed.
        model["attn_implementation"] = "flash_attention_2"
    return {
        "output_dir": scratch,
        "use_cpu": not cuda,
        "bf16": device.dtype == "bfloat16",
        "fp16": device.dtype == "float16",
        "model_init_kwargs": model,
        "gradient_checkpointing": cuda,
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "weight_decay": recipe.weight_decay,
        "neftune_noise_alpha": recipe.neftune or None,
        "warmup_steps": int(recipe.warmup * recipe.epochs * math.ceil(emails / recipe.batch_size)),
        # Never cut: check_before_training has seen the emails, and generated ones are shorter.
        "max_length": None,
        # What is copied is told row by row.
        "padding_free": device.flash_attention and recipe.copy_weight == 1,
        "train_sampling_strategy": "group_by_length" if cuda and not device.flash_attention else "random",
        "eval_strategy": "epoch" if heldout else "no",
        "save_strategy": "epoch" if recipe.early_stop else "no",
        "load_best_model_at_end": recipe.early_stop > 0,
        "metric_for_best_model": "eval_loss",
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
        "seed": recipe.seed,
    }


def _trainer(
    rows: Rows,
    base: BaseModel,
    recipe: Recipe,
    learning_rate: float,
    tokenizer: PreTrainedTokenizerBase,
    device: Device,
    scratch: str,
) -> CompletionTrainer:
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    disable_progress_bars()
    logging.disable_progress_bar()
    trainer = CompletionTrainer(
        model=str(base.path),
        args=SFTConfig(**sft_settings(device, recipe, learning_rate, len(rows.train), len(rows.heldout), scratch)),
        train_dataset=_dataset(rows.train),
        eval_dataset=_dataset(rows.heldout) if rows.heldout else None,
        processing_class=tokenizer,
        peft_config=lora,
    )
    pack(trainer.model)
    # Stock callbacks print raw dictionaries of numbers; ours say the same in words.
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    trainer.tokens_an_epoch = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    if recipe.copy_weight > 1:
        completions = ([token for token in row["labels"] if token != -100] for row in trainer.train_dataset)
        trainer.copied = Copied(completions, trainer.model.config.vocab_size)
        trainer.copy_weight = recipe.copy_weight
    return trainer


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list(
        [{"prompt": list(e.messages), "completion": [{"role": "assistant", "content": e.email}]} for e in examples]
    )


def _sample(trainer: CompletionTrainer, example: Example, max_tokens: int) -> str:
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


def _target_modules(trainer: CompletionTrainer) -> list[str]:
    return sorted(trainer.model.peft_config["default"].target_modules)
