"""LoRA arithmetic on a CPU: against plain torch, and in the real vLLM, where base and adapter rows share a batch.

Stock vLLM fails the last two tests: run them with MAILWRIGHT_TEST_STOCK=1 to see it.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests.by_peft import next_token
from tests.serving import ROOT, STOCK, VOICES, RunningServer, running_server

torch = pytest.importorskip("torch")

SLOTS, RANK = 3, 3
INPUTS, WIDTHS = 70, (44, 35, 5)
"""No multiple of a vector, so that there is something left over; several slices, as in q, k and v."""
PROMPTS = [f"Write mail {number:02} about topic {chr(97 + number)}."[:32].ljust(32, ".") for number in range(20)]
slots_of_rows = st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=24)
KINDS = {"compiled": True, "torch": False}
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
"""Of the largest number, for sums that were rounded once."""


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    from server.cpu import build

    assert build.build(print) is None
    assert build.load()


def wrapper_for(slots: list[int], compiled: bool = False) -> Any:
    """Our arithmetic, as vLLM has prepared it for a step in which row i belongs to slots[i]."""
    from vllm.lora.layers import LoRAMapping

    from server.cpu.lora import GroupedLora

    wrapper = GroupedLora(max_num_batched_tokens=64, max_batches=64, device="cpu")
    wrapper._compiled = compiled
    ids = tuple(slot + 1 if slot >= 0 else 0 for slot in slots)
    mapping = LoRAMapping(index_mapping=ids, prompt_mapping=ids, is_prefill=True)
    wrapper.update_metadata(mapping, [slot + 1 for slot in range(SLOTS)], SLOTS, 100)
    return wrapper


def random_weights(seed: int, dtype: Any = None, widths: tuple[int, ...] = WIDTHS) -> tuple[Any, Any, Any, Any]:
    """x, y, and the stacked A and B of a packed module, as vLLM keeps them: (slots, 1, rows, columns)."""
    from server.cpu.lora import lay_out

    torch.manual_seed(seed)
    dtype = dtype or torch.float32
    layer = SimpleNamespace(
        lora_a_stacked=tuple(torch.zeros(SLOTS, 1, RANK, INPUTS, dtype=dtype) for _ in widths),
        lora_b_stacked=tuple(torch.zeros(SLOTS, 1, width, RANK, dtype=dtype) for width in widths),
    )
    lay_out(layer)
    for part in (*layer.lora_a_stacked, *layer.lora_b_stacked):
        part.copy_(torch.randn(part.shape))
    x, y = torch.randn(24, INPUTS, dtype=dtype), torch.randn(24, sum(widths), dtype=dtype)
    return x, y, layer.lora_a_stacked, layer.lora_b_stacked


def one_row_at_a_time(y: Any, x: Any, a: Any, b: Any, slots: list[int], scale: float) -> Any:
    """In float32, rounded to the type of `y` in the end."""
    expected = y.float().clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            parts = [
                b_part[slot, 0].float() @ (a_part[slot, 0].float() @ x[row].float())
                for a_part, b_part in zip(a, b, strict=True)
            ]
            expected[row] += torch.cat(parts) * scale
    return expected.to(y.dtype)


@pytest.mark.parametrize("compiled", KINDS.values(), ids=KINDS)
@settings(max_examples=60, deadline=None)
@given(slots=slots_of_rows, seed=st.integers(0, 999), widths=st.sampled_from([WIDTHS, (64,), (32, 32), (7,)]))
def test_every_row_gets_its_own_adapter_and_base_rows_stay_bit_for_bit(
    compiled: bool, slots: list[int], seed: int, widths: tuple[int, ...]
):
    x, y, a, b = random_weights(seed, widths=widths)
    x, y = x[: len(slots)], y[: len(slots)].clone()
    before = y.clone()
    wrapper_for(slots, compiled).add_lora_linear(y, x, a, b, 1.0, widths)
    torch.testing.assert_close(y, one_row_at_a_time(before, x, a, b, slots, 1.0), rtol=1e-4, atol=1e-4)
    base_rows = torch.tensor([slot < 0 for slot in slots])
    assert torch.equal(y[base_rows], before[base_rows])


@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=30, deadline=None)
@given(slots=slots_of_rows, seed=st.integers(0, 999))
def test_compiled_a_row_alone_is_what_it_is_in_any_mixture(dtype: str, slots: list[int], seed: int):
    x, y, a, b = random_weights(seed, getattr(torch, dtype))
    x, y = x[: len(slots)], y[: len(slots)].clone()
    alone = []
    for row, slot in enumerate(slots):
        single = y[row : row + 1].clone()
        wrapper_for([slot], compiled=True).add_lora_linear(single, x[row : row + 1], a, b, 1.0, WIDTHS)
        alone.append(single)
    expected = one_row_at_a_time(y, x, a, b, slots, 1.0)
    wrapper_for(slots, compiled=True).add_lora_linear(y, x, a, b, 1.0, WIDTHS)
    assert torch.equal(y, torch.cat(alone))
    largest = expected.float().abs().max()
    assert (y.float() - expected.float()).abs().max() <= TOLERANCE[dtype] * largest


@pytest.mark.parametrize("operation", ["add_lora_logits", "add_lora_embedding", "add_shrink", "add_expand"])
def test_layers_that_no_adapter_may_have_are_refused(operation: str):
    x, y, a, b = random_weights(7)
    with pytest.raises(NotImplementedError, match="only whole linear layers"):
        getattr(wrapper_for([0]), operation)(y, x, a[0], b[0], 1.0)


def test_weights_of_another_precision_are_converted():
    x, y, a, b = random_weights(3, torch.bfloat16)
    y = y[:2].float()
    before = y.clone()
    wrapper_for([0, -1]).add_lora_linear(y, x[:2].float(), a, b, 1.0, WIDTHS)
    assert not torch.equal(y[0], before[0])
    assert torch.equal(y[1], before[1])


def test_neighbouring_rows_need_no_copy():
    from server.cpu.lora import group_rows

    whole, scattered = group_rows(torch.tensor([-1, 0, 0, 1, -1, 1]))
    assert (whole.slot, whole.rows) == (0, slice(1, 3))
    assert (scattered.slot, scattered.rows.tolist()) == (1, [3, 5])


def test_on_a_gpu_vllms_own_kernels_stay_and_are_not_refused(monkeypatch: pytest.MonkeyPatch):
    from server.cpu import lora
    from server.plugin import refuse_stock_workers, register

    kernels = "vllm.lora.punica_wrapper.punica_gpu.PunicaWrapperGPU"

    class Cuda:
        def is_cpu(self) -> bool:
            return False

        @classmethod
        def get_punica_wrapper(cls) -> str:
            return kernels

    monkeypatch.setattr(lora, "current_platform", Cuda())
    register()
    assert lora.WorkerProbe().lora_wrapper() == kernels
    refuse_stock_workers([kernels])


def test_vllm_still_needs_us():
    """When this fails, vLLM has mended its own arithmetic: look whether ours is still the faster one."""
    from vllm.lora.ops.torch_ops import bgmv_expand

    y = torch.zeros(1, 4)
    bgmv_expand(torch.ones(1, 2), torch.ones(1, 1, 4, 2), y, torch.tensor([-1]))
    assert y.any()


@pytest.fixture(scope="module", params=[4, 1], ids=["max_loras=4", "max_loras=1"])
def server_and_voices(
    request: pytest.FixtureRequest, voices: Store, base_model: BaseModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningServer, list[str]]]:
    """A server with so many slots, and an adapter for each of them."""
    if request.param == 4:
        yield request.getfixturevalue("server"), [f"{name}@1" for name in VOICES]
    else:
        log = tmp_path_factory.mktemp("server") / "server.log"
        with running_server(base_model, voices, request.param, log) as server:
            yield server, ["formal@1"]


async def write(client: openai.AsyncOpenAI, model: str, prompt: str) -> str:
    # Every request to its full length, so that all of them share most of their steps; special tokens shown, so that
    # equal texts are equal tokens.
    exact = {"ignore_eos": True, "skip_special_tokens": False}
    answer = await client.completions.create(model=model, prompt=prompt, max_tokens=32, temperature=0, extra_body=exact)
    return answer.choices[0].text


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_the_base_model_answers_the_same_with_adapters_in_its_batch(server_and_voices: tuple[RunningServer, list[str]]):
    server, voices = server_and_voices
    pairs = [(voices[number % len(voices)], prompt) for number, prompt in enumerate(PROMPTS)]

    async def both() -> tuple[list[str], list[str], list[str], list[str]]:
        async with server.async_client() as client:
            alone = [await write(client, "base", prompt) for prompt in PROMPTS]
            # This also fills every slot: in stock vLLM the last one decides what the base model says.
            voices_alone = [await write(client, voice, prompt) for voice, prompt in pairs]
            mixed = [(write(client, "base", prompt), write(client, voice, prompt)) for voice, prompt in pairs]
            answers = await asyncio.gather(*[request for pair in mixed for request in pair])
        return alone, answers[::2], voices_alone, answers[1::2]

    alone, mixed, voices_alone, voices_mixed = asyncio.run(both())
    assert len(set(alone)) == len(PROMPTS)
    assert not set(alone) & set(voices_alone)
    different = sum(before != after for before, after in zip(alone, mixed, strict=True))
    assert different == 0, f"{different} of {len(PROMPTS)} answers of the base model changed"
    assert voices_mixed == voices_alone


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_compiled_it_says_what_peft_says(server: RunningServer):
    from server.cpu import build

    assert "lora     compiled" in server.log.read_text()
    # Its own log may be silenced by what other tests imported.
    assert list((build.directory() / "vllm" / "torch_compile_cache").rglob("rank_0_0/model"))
    for voice in [None, *VOICES]:
        expected = next_token(server.base.path, server.store.resolve(f"{voice}@1").path if voice else None, PROMPTS[:6])
        for prompt, by_peft in zip(PROMPTS, expected, strict=False):
            answer = server.ask(voice or "base", prompt=prompt, max_tokens=1, logprobs=5).json()
            [top] = answer["choices"][0]["logprobs"]["top_logprobs"]
            assert len(top) >= 5
            for token, logprob in top.items():
                assert logprob == pytest.approx(by_peft[token], abs=1e-3)


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_in_one_list_in_bf16_the_base_model_answers_the_same(voices: Store, base_model: BaseModel):
    script = Path(__file__).parents[1] / "generate_mixed.py"
    adapters = [str(voices.resolve(f"{name}@1").path) for name in VOICES]
    environment = {**os.environ, "VLLM_PLUGINS": "" if STOCK else "mailwright_general", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(base_model.path), *adapters]
    given = json.dumps({"prompts": PROMPTS, "max_loras": [4, 1]})
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
    results = json.loads(done.stdout.splitlines()[-1])
    different = {
        max_loras: sum(before != after for before, after in zip(result["alone"], result["mixed"], strict=True))
        for max_loras, result in results.items()
    }
    assert different == {"4": 0, "1": 0}, f"answers of the base model that changed, of {len(PROMPTS)}"
    for result in results.values():
        assert all(voice != base for voice, base in zip(result["voices"], result["alone"], strict=True))
