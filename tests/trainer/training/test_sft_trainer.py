"""The loss and its gradients beside TRL's own, and which tokens are learned, on the tiny model."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from vllm.lora.peft_helper import PEFTHelper

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel, find
from adapters.models.validate import reasons_against
from adapters.store.store import Store
from adapters.store.version import CONFIG
from tests import tiny
from tests.trainer.training.test_sft import RECIPE, emails, run_of
from trainer.compute import memory
from trainer.compute.device import Device, choose
from trainer.compute.fused_lora import fused_lora
from trainer.data.examples import Example, task_example
from trainer.training import sft
from trainer.training.recipe import Recipe
from trainer.training.sft_trainer import CompletionTrainer, completion_trainer

pytestmark = [pytest.mark.training]
Build = Callable[..., CompletionTrainer]


@pytest.fixture
def build(base_model: BaseModel, tmp_path: Path) -> Build:
    """Makes the trainer of a run, in float32 or bf16, with an adapter that is not zero, or from scratch."""

    def make(
        examples: list[Example],
        bf16: bool = False,
        recipe: Recipe = RECIPE,
        base: BaseModel = base_model,
        **settings: bool,
    ) -> CompletionTrainer:
        device = Device("cpu", "bfloat16" if bf16 else "float32", False, "CPU")
        tokenizer = AutoTokenizer.from_pretrained(base.path)
        trainer = completion_trainer(*(examples, [], base, recipe, 1e-3, tokenizer, device, str(tmp_path)), **settings)
        return with_an_adapter(trainer)

    return make


def with_an_adapter(trainer: CompletionTrainer) -> CompletionTrainer:
    """One that changes what the base model says; a new one is zero."""
    torch.manual_seed(1)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return trainer


def batch_of(trainer: CompletionTrainer) -> dict[str, torch.Tensor]:
    return trainer.data_collator([dict(row) for row in trainer.train_dataset])


def loss_and_gradients(trainer: CompletionTrainer, stock: bool, items: int | None) -> tuple[float, torch.Tensor]:
    """The loss on all of the trainer's rows, and the gradient of every trained weight as one vector."""
    kind = super(CompletionTrainer, trainer) if stock else trainer
    trainer.model.train()
    trainer.model.zero_grad()
    # The Trainer runs the stock loss under the accelerator's autocast; ours brings its own.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=trainer.args.bf16):
        loss = kind.compute_loss(trainer.model, batch_of(trainer), num_items_in_batch=items)
    loss.backward()
    gradients = [w.grad.float().flatten() for w in trainer.model.parameters() if w.requires_grad]
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("kind", ["biases", "qwen"], ids=["qwen2", "qwen3"])
def test_other_architectures_have_the_stock_trainers_loss_and_are_published(
    build: Build, tmp_path: Path, store: Store, kind: str
):
    base = find(str(tiny.make_base(tmp_path / "tiny", **{kind: True})))
    trainer = build(emails(5), base=base)
    expected, expected_gradients = loss_and_gradients(trainer, stock=True, items=100)
    with fused_lora(trainer.model):
        loss, gradients = loss_and_gradients(trainer, stock=False, items=100)
    assert loss == pytest.approx(expected, rel=1e-3)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-2, atol=1e-5)
    version = sft.train(run_of(base), store)
    assert reasons_against(version.path, base) == []
    losses = version.manifest().training.train_losses
    assert losses[-1] < losses[0]


def test_a_run_that_the_free_memory_does_not_hold_ends_before_it_starts(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "FIXED_BYTES", 10**15)
    with pytest.raises(ConfigError, match="takes about 1000000"):
        sft.train(run_of(base_model), store)
    assert "mine" not in store.names()


def test_a_step_in_parts_has_the_loss_and_gradients_of_a_whole_one(build: Build):
    trainer = build(emails(5))

    def step(most_tokens: int) -> tuple[float, torch.Tensor]:
        trainer.tokens_at_once = most_tokens
        trainer.model.zero_grad()
        loss = trainer.training_step(trainer.model, batch_of(trainer), torch.tensor(100))
        return loss.item(), torch.cat([w.grad.flatten() for w in trainer.model.parameters() if w.requires_grad])

    whole, parts = step(most_tokens=10**6), step(most_tokens=1)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("from_scratch", [False, True])
@pytest.mark.parametrize("items", [None, 100])
@pytest.mark.parametrize(("bf16", "loss_tolerance", "least_cosine"), [(False, 1e-3, 0.99999), (True, 2e-2, 0.98)])
def test_the_loss_and_its_gradients_are_the_stock_trainers(
    build: Build, bf16: bool, loss_tolerance: float, least_cosine: float, items: int | None, from_scratch: bool
):
    if bf16 and choose().dtype != "bfloat16":
        pytest.skip("this CPU has no bf16 arithmetic")
    trainer = build(emails(5), bf16, from_scratch=from_scratch)
    assert type(trainer).__mro__[1].__name__ == "SFTTrainer"
    loss, gradients = loss_and_gradients(trainer, stock=False, items=items)
    stock_loss, stock_gradients = loss_and_gradients(trainer, stock=True, items=items)
    assert loss == pytest.approx(stock_loss, rel=loss_tolerance)
    assert torch.cosine_similarity(gradients, stock_gradients, dim=0) > least_cosine
    assert gradients.norm().item() == pytest.approx(stock_gradients.norm().item(), rel=10 * loss_tolerance)


def test_the_loss_does_not_depend_on_the_prompts_length(build: Build):
    """Padding on the short rows must not count."""
    trainer = build(emails(2))
    alone = loss_and_gradients(trainer, stock=False, items=1)[0]
    longer = build([*emails(2), task_example("Greet Bo. " * 40, "Hi Bo,\n\nHow are you?\n\nBest,\nKim")])
    short = batch_of(longer)
    rows = {name: tensor[:2] for name, tensor in short.items()}
    assert rows["input_ids"].shape[1] > 400
    assert longer.compute_loss(longer.model, rows, num_items_in_batch=1).item() == pytest.approx(alone, rel=1e-4)


def learned_text(trainer: CompletionTrainer, row: int) -> str:
    batch = batch_of(trainer)
    wanted = batch["labels"][row] != -100
    return str(trainer.processing_class.decode(batch["input_ids"][row][wanted]))


def test_exactly_the_email_and_its_stop_token_are_learned(build: Build):
    examples = [*emails(2), task_example("Shorter.", "Hi", previous=[("Greet Bo.", "Hello Bo"), ("Again.", "Hi Bo")])]
    trainer = build(examples)
    learned = [learned_text(trainer, row) for row in range(3)]
    assert learned == [f"{example.email}<|im_end|>\n" for example in examples]


def test_rslora_scales_by_the_root_of_the_rank_as_vllm_does(build: Build, tmp_path: Path):
    trainer = build(emails(2), recipe=RECIPE.model_copy(update={"rslora": True}))
    scales = {layer.scaling["default"] for layer in trainer.model.modules() if hasattr(layer, "lora_A")}
    trainer.save_model(str(tmp_path))
    served = PEFTHelper.from_dict(json.loads((tmp_path / CONFIG).read_text()))
    assert scales == {RECIPE.alpha / math.sqrt(RECIPE.rank)} == {served.vllm_lora_scaling_factor}


def test_lora_plus_moves_b_faster_than_a(build: Build):
    """Adam's first step is the learning rate, whatever the gradient."""

    def moved(loraplus: float) -> tuple[float, float]:
        recipe = RECIPE.model_copy(update={"loraplus": loraplus, "epochs": 1, "warmup": 0, "batch_size": 5})
        trainer = build(emails(5), recipe=recipe)
        weights = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        trainer.train()
        change = {name: float((weight.detach() - before[name]).abs().max()) for name, weight in weights.items()}
        return tuple(max(each for name, each in change.items() if part in name) for part in ("lora_A", "lora_B"))

    a, b = moved(1)
    assert a == pytest.approx(b, rel=1e-2)
    a, b = moved(16)
    assert b / a == pytest.approx(16, rel=1e-2)
