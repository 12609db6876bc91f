"""The words of a vocabulary with 8-bit weights: the lookup of a token's vector, and the logits of all tokens.

The copy that server/cpu/int8.py makes says so by its `quant_method`. Where embedding and head are one tensor, as in
Qwen2.5-1.5B, it is kept once. server/cpu/words.cpp computes the logits; where it could not be compiled, torch does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsConfig
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from server.cpu import build
from server.cpu.int8 import WITH_WORDS


class RoundedWords(QuantizeMethodBase):  # type: ignore[misc]  # vLLM's classes are untyped for us
    """vLLM's method for a layer with `weight` int8 (words, inputs) and `weight_scale` float32 (words, 1)."""

    def create_weights(
        self,
        layer: nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **attributes: Any,
    ) -> None:
        words = sum(output_partition_sizes)
        for name, width, dtype in [
            ("weight", input_size_per_partition, torch.int8),
            ("weight_scale", 1, torch.float32),
        ]:
            parameter = nn.Parameter(torch.empty(words, width, dtype=dtype), requires_grad=False)
            # By these vLLM fills the rows beyond the vocabulary with zeros.
            for key, value in (attributes | {"input_dim": 1, "output_dim": 0}).items():
                setattr(parameter, key, value)
            layer.register_parameter(name, parameter)
        layer.vector_dtype = params_dtype

    def tie_weights(self, layer: nn.Module, embed_tokens: nn.Module) -> nn.Module:
        layer.weight, layer.weight_scale = embed_tokens.weight, embed_tokens.weight_scale
        return layer

    def embedding(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        return (layer.weight[tokens].float() * layer.weight_scale[tokens]).to(layer.vector_dtype)

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Float32, as vLLM's sampler wants them: rounded to bf16, likely words would often tie."""
        logits = logits_of(x, layer.weight, layer.weight_scale)
        return logits if bias is None else logits + bias


def logits_of(x: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
    """x (rows, inputs), weights int8 (words, inputs), scale float32 (words, 1) -> float32 (rows, words)."""
    if build.load():
        logits: Tensor = torch.ops.mailwright.logits(x, weights, scale)
        return logits
    return torch._weight_int8pack_mm(x.float(), weights, scale.squeeze(1))


class WithWords(CompressedTensorsConfig):  # type: ignore[misc]
    """The scheme of server/cpu/int8.py for linear layers, and `RoundedWords` for embedding and head."""

    def get_name(self) -> str:
        return WITH_WORDS

    def get_quant_method(self, layer: nn.Module, prefix: str) -> QuantizeMethodBase | None:
        if isinstance(layer, VocabParallelEmbedding):
            return RoundedWords()
        return super().get_quant_method(layer, prefix)


def install() -> None:
    """Tell vLLM in this process what WITH_WORDS means; a second call changes nothing."""
    register_quantization_config(WITH_WORDS)(WithWords)
