"""Tests of the server that are repeated on a GPU, where vLLM's own LoRA kernels compute.

Left out is the mixed batch over HTTP, bit for bit: on a GPU a sum depends on how many rows share a step. In one list,
with the same rows in every step, the base model's answers must be the same.
"""

import pytest

from tests.server.cpu.test_lora import test_in_one_list_in_bf16_the_base_model_answers_the_same
from tests.server.test_launch import (
    test_a_broken_adapter_is_422_with_every_reason_and_the_others_go_on,
    test_a_stream_says_the_same_and_ends_with_usage,
    test_an_adapter_published_while_it_runs_answers_its_first_request_and_a_promote_the_next,
    test_fifty_promotes_under_six_writing_clients_lose_no_request,
    test_the_answer_names_the_exact_version_and_the_voices_differ,
)
from tests.serving import RunningServer

__all__ = [
    "test_a_broken_adapter_is_422_with_every_reason_and_the_others_go_on",
    "test_a_stream_says_the_same_and_ends_with_usage",
    "test_an_adapter_published_while_it_runs_answers_its_first_request_and_a_promote_the_next",
    "test_fifty_promotes_under_six_writing_clients_lose_no_request",
    "test_in_one_list_in_bf16_the_base_model_answers_the_same",
    "test_the_answer_names_the_exact_version_and_the_voices_differ",
]
pytestmark = pytest.mark.timeout(900)


def test_the_server_says_that_it_serves_on_the_gpu(server: RunningServer):
    assert any(
        line.startswith("device   CUDA, ") and line.endswith("vLLM's own LoRA kernels")
        for line in server.log.read_text().splitlines()
    )
