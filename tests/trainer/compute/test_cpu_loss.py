"""The loss and gradients of a batch without padding, against transformers' and PEFT's own on padded rows."""

from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from trainer.compute.attention import ATTENTION
from trainer.compute.cpu_loss import completion_losses
from trainer.compute.fused_lora import fused_lora

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
KINDS: dict[str, Any] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE)),
    "qwen2, with biases": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "logits divided by 4": (GraniteForCausalLM, GraniteConfig(**SHAPE, logits_scaling=4)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=8)),
    "a window of 8": (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=8)),
}
Row = tuple[list[int], list[int]]
"""Prompt and completion."""


def model(kind: str = "llama", **lora: Any) -> Any:
    torch.manual_seed(1)
    architecture, config = KINDS[kind]
    made = get_peft_model(
        architecture(config), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **lora)
    )
    for name, weight in made.named_parameters():
        if "lora_B" in name or name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.1)
    return made.train()


def batch(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Padded on the right, as TRL's collator does it."""
    width = max(len(prompt + completion) for prompt, completion in rows)
    made: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for prompt, completion in rows:
        padding = width - len(prompt + completion)
        made["input_ids"].append(prompt + completion + padding * [0])
        made["labels"].append(len(prompt) * [-100] + completion + padding * [-100])
        made["attention_mask"].append(len(prompt + completion) * [1] + padding * [0])
    return {name: torch.tensor(values) for name, values in made.items()}


def measured(model: Any, loss: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The loss, and the gradients of every LoRA weight as one vector."""
    model.zero_grad()
    loss.backward()
    return loss.item(), torch.cat([w.grad.flatten() for n, w in model.named_parameters() if "lora_" in n])


def padded(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    model.base_model.model.set_attn_implementation("eager")
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return measured(
        model, cross_entropy(logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), reduction="sum")
    )


def laid_out(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    model.base_model.model.set_attn_implementation(ATTENTION)
    with fused_lora(model):
        nats_S = completion_losses(model.base_model.model, inputs, autocast=False)
        assert len(nats_S) == (inputs["labels"] != -100).sum()
        return measured(model, nats_S.sum())


def assert_equal(model: Any, rows: list[Row]) -> None:
    expected, expected_gradients = padded(model, batch(rows))
    loss, gradients = laid_out(model, batch(rows))
    assert loss == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-4)


tokens = st.lists(st.integers(1, 49), min_size=1, max_size=12)


@given(
    beginning=st.lists(st.integers(1, 49), max_size=6), rows=st.lists(st.tuples(tokens, tokens), min_size=1, max_size=4)
)
@settings(deadline=None)
def test_the_loss_is_that_of_padded_rows_whatever_they_share(beginning: list[int], rows: list[Row]):
    assert_equal(model(), [(beginning + prompt, completion) for prompt, completion in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_models(kind: str):
    rows = [
        ([1, 2, 3, 4, 5, *prompt], list(range(10, 10 + length)))
        for prompt, length in (([6], 12), ([7, 8], 3), ([9], 20))
    ]
    assert_equal(model(kind), rows)


@pytest.mark.parametrize(
    "rows",
    [
        [([5, 6], [7, 8]), ([5, 6], [7, 8])],
        [([5], [6, 7]), ([5], [6, 8, 9])],
        [([5, 6, 7], [8]), ([5, 6], [7, 8])],
    ],
    ids=["the same twice", "the same guess from the same token", "one's completion in another's prompt"],
)
def test_rows_that_share_what_is_scored(rows: list[Row]):
    assert_equal(model(), rows)


def test_no_row_sees_another():
    inputs = batch([([1, 2, 3], [4, 5, 6]), ([1, 2, 9], [8, 7])])
    alone = [laid_out(model(), batch([row]))[0] for row in (([1, 2, 3], [4, 5, 6]), ([1, 2, 9], [8, 7]))]
    assert laid_out(model(), inputs)[0] == pytest.approx(sum(alone), rel=1e-5)


def test_what_all_rows_begin_with_is_computed_once():
    seen: list[int] = []
    made = model()
    made.base_model.model.model.embed_tokens.register_forward_hook(lambda _, given, __: seen.append(given[0].numel()))
    laid_out(made, batch([([1, 2, 3, 4, number], [5, 6]) for number in (10, 11, 12)]))
    assert seen == [4 + 3 * 3]


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.5}, {"use_dora": True}], ids=["dropout", "DoRA"])
def test_other_lora_layers_stay_pefts(lora: dict[str, Any]):
    made = model(**lora)
    with fused_lora(made):
        assert not any("forward" in vars(module) for module in made.modules())


def test_afterwards_the_layers_are_as_they_were():
    made = model()
    with suppress(ZeroDivisionError), fused_lora(made):
        assert any("forward" in vars(module) for module in made.modules())
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in made.modules())


def test_a_model_that_keeps_the_layout_from_its_attention_is_refused():
    made = model()
    made.base_model.model.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="LlamaForCausalLM"):
        completion_losses(made.base_model.model, batch([([1, 2], [3, 4]), ([1, 5], [3])]), autocast=False)
