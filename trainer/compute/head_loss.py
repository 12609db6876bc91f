"""The cross entropy of tokens from the hidden states before a model's head, some rows of logits at a time.

With a vocabulary of 152,000 the logits of one email take 60 MB in float32, and their gradient as much. A frozen head
needs only the gradient of the hidden states, which is computed with the loss, so that no logits are kept; Liger's
fused linear cross entropy does the same on a GPU (arXiv 2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from trainer.compute.attention import Layout
from trainer.compute.packed import Packed

# Rows at once: 152,000 logits of each take 117 MB in bf16 and float32 together. Every piece reads the whole head.
ROWS = 128
# Settings of models that change the logits after the head.
RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def losses_at(causal: Any, ids_1N: Tensor, layout: Layout, places_S: Tensor, labels_S: Tensor) -> Tensor:
    """The loss in nats of each label, predicted by the token at its place in one row; [S]."""
    inputs = {"input_ids": ids_1N, "position_ids": layout.positions.to(ids_1N.device), "use_cache": False}
    if _plain_head(causal):
        hidden_SH = causal.base_model(**inputs, layout=layout).last_hidden_state[0, places_S]
        return _HeadLoss.apply(hidden_SH, causal.get_output_embeddings(), labels_S)
    # The class's own: where all weights are trained, `forward` is wrapped in an autocast, and entering that a second
    # time would leave it on for good.
    logits_SV = type(causal).forward(causal, **inputs, layout=layout, logits_to_keep=places_S).logits[0]
    return cross_entropy(logits_SV.float(), labels_S, reduction="none")


def _plain_head(causal: Any) -> bool:
    """Whether the logits are a product of the last hidden states with weights that get no gradient, nothing else."""
    head = causal.get_output_embeddings()
    trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in head.parameters())
    return (
        type(head) is nn.Linear
        and not trained
        and not any(getattr(causal.config, setting, None) for setting in RESCALED)
    )


class _HeadLoss(torch.autograd.Function):  # type: ignore[misc]  # torch gives it no type
    @staticmethod
    def forward(ctx: Any, hidden_SH: Tensor, head: nn.Linear, labels_S: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        ctx.gradient_SH = torch.empty_like(hidden_SH) if wanted else None
        nats_S = torch.empty(len(hidden_SH), device=hidden_SH.device)
        for start in range(0, len(hidden_SH), ROWS):
            rows = slice(start, start + ROWS)
            logs_RV = log_softmax(head(hidden_SH[rows]), -1, dtype=torch.float32)
            nats_S[rows] = nll_loss(logs_RV, labels_S[rows], reduction="none")
            if wanted:
                ctx.gradient_SH[rows] = _gradient(head, logs_RV, labels_S[rows])
        return nats_S

    @staticmethod
    def backward(ctx: Any, dnats_S: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.gradient_SH * dnats_S[:, None]).to(ctx.gradient_SH.dtype), None, None


def _gradient(head: nn.Linear, logs_RV: Tensor, labels_R: Tensor) -> Tensor:
    """Of the hidden states, for a loss of weight 1; overwrites the logarithms."""
    guessed_RV = logs_RV.exp_()
    guessed_RV[torch.arange(len(labels_R), device=labels_R.device), labels_R] -= 1
    packed: Packed | None = getattr(head, "packed", None)
    return packed.backward(guessed_RV) if packed else guessed_RV.to(head.weight.dtype) @ head.weight
