"""Training beside other programs: at a lower priority, with the threads that they leave."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import accumulate, cycle
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapters import free_cores
from adapters.free_cores import Reading
from adapters.models.base_models import BaseModel
from tests.trainer.training.test_sft import dataset
from trainer.cli import main
from trainer.compute import threads


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def comes_and_goes() -> Callable[[object], Reading]:
    """Readings a second apart: another program uses a core in every other second, beginning with the second one."""
    used = accumulate(cycle([0.0, 0.0, 1.0]))
    seconds = iter(range(-1_000_000, 0))
    return lambda own: Reading(next(seconds), next(used), 0, 0)


def test_each_layer_forward_and_backward_has_the_threads_that_other_programs_leave(
    base_model: BaseModel, two_threads: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(free_cores, "reading", comes_and_goes())
    model = AutoModelForCausalLM.from_pretrained(base_model.path)
    had: list[int] = []
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda *_: had.append(torch.get_num_threads()))
        layer.mlp.register_full_backward_hook(lambda *_: had.append(torch.get_num_threads()))
    with threads.following_free_cores(model):
        for _ in range(3):
            model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    assert set(had[:6]) == set(had[6:]) == {1, 2}
    assert torch.get_num_threads() == 2
    # What followed them is gone.
    monkeypatch.setattr(free_cores, "reading", lambda own: pytest.fail("read"))
    model(torch.tensor([[5, 6, 7]]))


def test_a_run_of_one_thread_stays_as_it_is(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(free_cores, "reading", lambda own: pytest.fail("read"))
    with threads.following_free_cores(AutoModelForCausalLM.from_pretrained(base_model.path)) as model:
        assert model is None
    assert torch.get_num_threads() == 1


@pytest.mark.training
def test_threads_that_come_and_go_keep_the_losses(
    tiny_base: Path, tmp_path: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
):
    def losses(name: str) -> list[float]:
        events = tmp_path / f"{name}.jsonl"
        flags = ["--name", name, "--base", tiny_base, "--store", tmp_path / "store", "--data", dataset(tmp_path)]
        flags += ["--recipe", "article", "--epochs", 2, "--sample-tokens", 5, "--events", events]
        assert main(["sft", *map(str, flags)]) == 0
        lines = map(json.loads, events.read_text().splitlines())
        return [event["loss"] for event in lines if event["event"] == "step"]

    alone = losses("alone")
    monkeypatch.setattr(free_cores, "reading", comes_and_goes())
    assert losses("beside") == pytest.approx(alone, rel=1e-2)
    assert len(alone) > 2


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="this system has no priorities")
def test_a_run_says_that_it_yields_to_others_and_never_raises_itself():
    program = (
        "import os, sys; from trainer.compute import threads; print(threads.yield_to_others()); "
        "assert 'torch' not in sys.modules and 'GOMP_SPINCOUNT' in os.environ; "
        "print(os.getpriority(os.PRIO_PROCESS, 0)); os.nice(5); threads.yield_to_others(); "
        "print(os.getpriority(os.PRIO_PROCESS, 0))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    line, first, second = said.splitlines()
    lowered = int(first)
    assert line.startswith(f"{lowered} of 19, so that other programs come first")
    assert int(second) == lowered + 5
