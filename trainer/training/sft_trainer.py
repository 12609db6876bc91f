"""The trainer of one run, the only file that imports TRL: its settings for a device, and its loss on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from adapters.models.base_models import BaseModel
from adapters.store.version import WEIGHTS
from trainer.compute import cpu_loss, distributed
from trainer.compute.attention import ATTENTION
from trainer.compute.device import Device
from trainer.compute.memory import check_free, in_parts, tokens_at_once, training_bytes
from trainer.compute.packed import pack
from trainer.data.examples import Example
from trainer.evaluation import forgetting
from trainer.training.recipe import Recipe

# Of general text, for a run's verdict; an evaluation reads more.
GENERAL_PASSAGES = 12


class CompletionTrainer(SFTTrainer):
    """SFTTrainer with the loss of trainer/compute/cpu_loss.py on a CPU.

    On a CPU TRL's own loss scores every token, prompt and padding too, and multiplies gradients in float32. The value
    is the same (tests/trainer/training/test_sft_trainer.py: to 1e-3).
    """

    tokens_an_epoch = 0
    tokens_at_once = 0
    loraplus = 1.0
    optimizer: Any

    def create_optimizer(self, model: Any = None) -> Any:
        """The Trainer's, with LoRA+ at another learning rate for each layer's B."""
        if self.loraplus == 1 or self.optimizer is not None:
            return super().create_optimizer(model)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args)
        ratio, decay = self.loraplus, self.args.weight_decay
        self.optimizer = create_loraplus_optimizer(
            self.model, kind, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay, **options
        )
        return self.optimizer

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """The Trainer's; on a CPU in parts, so that a step of many tokens takes no more memory than one of few."""
        # Several processes must go backward together; rows without a mask are one row for flash attention.
        whole = self.args.device.type != "cpu" or distributed.COUNT > 1 or "attention_mask" not in inputs
        if whole or num_items_in_batch is None:
            return super().training_step(model, inputs, num_items_in_batch)
        loss = torch.zeros(())
        for part in in_parts(inputs, self.tokens_at_once):
            loss += super().training_step(model, part, num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if return_outputs or self.args.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # Through the model's own forward, where several processes hook in to add their gradients.
        nats_S = model(**inputs, completion_losses=True)
        if num_items_in_batch is None:
            return nats_S.mean()
        # The items of all processes are counted, and their gradients averaged.
        return nats_S.sum() * self.accelerator.num_processes / num_items_in_batch

    def general_losses(self, advance: Callable[[float], None]) -> tuple[float, float]:
        """The loss on general text of the base model, and with the adapter; reads 2 * GENERAL_PASSAGES passages."""
        base = self.model.get_base_model()
        trained_with = base.config._attn_implementation
        # On a GPU a run has another attention, and texts are read with ours.
        base.set_attn_implementation(ATTENTION)
        with self.accelerator.autocast():
            losses = forgetting.general_losses(self.model, self.processing_class, advance, GENERAL_PASSAGES)
        base.set_attn_implementation(trained_with)
        return losses


def sft_settings(
    device: Device, recipe: Recipe, learning_rate: float, emails: int, heldout: int, scratch: str
) -> dict[str, Any]:
    """The fields of TRL's SFTConfig for a run on `emails` emails, with `heldout` others held out."""
    cuda = device.kind == "cuda"
    model: dict[str, str] = {"dtype": device.dtype}
    if not cuda:
        model["attn_implementation"] = ATTENTION
    elif device.flash_attention:
        # Also the name under which transformers finds the hub's kernel, where `kernels` is installed.
        model["attn_implementation"] = "flash_attention_2"
    # Not TRL's packing, which cuts what does not fit, keeps the same emails together in every epoch, and makes
    # `batch_size` count rows.
    padding_free = device.flash_attention
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
        # Never cut: check_before_training has refused longer emails.
        "max_length": None,
        "padding_free": padding_free,
        "train_sampling_strategy": "group_by_length" if cuda and not device.flash_attention else "random",
        "eval_strategy": "epoch" if heldout else "no",
        "save_strategy": "epoch" if recipe.early_stop else "no",
        "load_best_model_at_end": recipe.early_stop > 0,
        "metric_for_best_model": "eval_loss",
        "save_total_limit": 1,
        "restore_callback_states_from_checkpoint": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        # A batch without padding has no mask to count by.
        "include_num_input_tokens_seen": "all" if padding_free else "non_padding",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
        "seed": recipe.seed,
    }


def check_memory(base: BaseModel, recipe: Recipe, device: Device, from_scratch: bool = False) -> None:
    """Raises:
    ConfigError: less memory is free than a training on this CPU takes.
    """
    if device.kind == "cpu":
        most_tokens = recipe.batch_size * recipe.max_length
        needed = training_bytes(base.path, recipe.rank, device.value_bytes, most_tokens, from_scratch)
        check_free(needed, base.name)


def completion_trainer(
    train: Sequence[Example],
    heldout: Sequence[Example],
    base: BaseModel,
    recipe: Recipe,
    learning_rate: float,
    tokenizer: PreTrainedTokenizerBase,
    device: Device,
    scratch: str,
    start: Path | None = None,
    from_scratch: bool = False,
    **settings: Any,
) -> CompletionTrainer:
    """Ready to train in the directory `scratch`; `settings` replace those of `sft_settings`.

    `start` is the directory of an adapter of the recipe's rank to continue. `from_scratch`: instead of an adapter, all
    weights of a model are trained that has the base model's shape and random weights.
    """
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        use_rslora=recipe.rslora,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    disable_progress_bars()
    logging.disable_progress_bar()
    fields = sft_settings(device, recipe, learning_rate, len(train), len(heldout), scratch) | settings
    model: Any = str(base.path)
    if from_scratch:
        model = random_model(base, recipe.seed, fields.pop("model_init_kwargs").get("attn_implementation"))
    trainer = CompletionTrainer(
        model=model,
        args=SFTConfig(**fields),
        train_dataset=_dataset(train),
        eval_dataset=_dataset(heldout) if heldout else None,
        processing_class=tokenizer,
        peft_config=None if from_scratch else lora,
    )
    if start:
        set_peft_model_state_dict(trainer.model, load_file(start / WEIGHTS))
    if device.kind == "cpu":
        causal = trainer.model.get_base_model() if isinstance(trainer.model, PeftModel) else trainer.model
        causal.forward = partial(_forward, causal, causal.forward, trainer.args.bf16)
    trainer.tokens_at_once = tokens_at_once(base.path, device.value_bytes)
    pack(trainer.model)
    # Stock callbacks print raw dictionaries; ours log the same in words.
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    if not from_scratch:
        trainer.loraplus = recipe.loraplus
    trainer.tokens_an_epoch = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    return trainer


def _forward(
    causal: Any, forward: Callable[..., Any], bf16: bool, *inputs: Any, completion_losses: bool = False, **named: Any
) -> Any:
    """The model's forward pass, or with `completion_losses` the loss of each scored token."""
    if completion_losses:
        return cpu_loss.completion_losses(causal, named, autocast=bf16)
    return forward(*inputs, **named)


def random_model(base: BaseModel, seed: int, attention: str | None) -> Any:
    """A model of the base model's shape with random weights."""
    # In float32: all weights are trained, and bf16 would lose small changes. The arithmetic may still be in bf16.
    set_seed(seed)
    config = AutoConfig.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    if (base.path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(base.path)
    return model


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


def save_adapter(trainer: CompletionTrainer, directory: Path) -> None:
    """In bf16, in which vLLM serves it: half as much to keep and to load, and evaluated as it is served."""
    trainer.save_model(str(directory))
    if distributed.FIRST:
        weights = load_file(directory / WEIGHTS)
        halves = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
        save_file(halves, directory / WEIGHTS, metadata={"format": "pt"})


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list(
        [{"prompt": list(e.messages), "completion": [{"role": "assistant", "content": e.email}]} for e in examples]
    )
