"""Which threads a server on a CPU gets, by what its environment says already, and beside other programs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters import free_cores
from adapters.free_cores import Reading
from server.cpu.threads import arrange, chosen, cores, install
from tests.serving import RunningServer, running_server


@pytest.mark.parametrize(("of", "threads"), [(1, 1), (2, 2), (3, 2), (8, 7)])
def test_every_core_computes_where_there_are_few_and_all_but_one_where_there_are_more(of: int, threads: int):
    assert chosen(of) == threads


def test_nothing_set_means_a_worker_in_the_engine_and_threads_that_sleep_soon():
    environment: dict[str, str] = {}
    assert (
        arrange(environment) == f"{chosen(cores())} compute, of {cores()} cores; fewer while other programs need them"
    )
    assert environment == {
        "OMP_NUM_THREADS": str(chosen(cores())),
        "GOMP_SPINCOUNT": "1000",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def test_what_is_set_already_stays():
    environment = {"OMP_NUM_THREADS": "5", "GOMP_SPINCOUNT": "7", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    assert arrange(environment).startswith("5 compute")
    assert environment == {"OMP_NUM_THREADS": "5", "GOMP_SPINCOUNT": "7", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}


def test_a_binding_of_vllms_is_left_to_vllm():
    environment = {"VLLM_CPU_OMP_THREADS_BIND": "0-1"}
    assert arrange(environment) == "as VLLM_CPU_OMP_THREADS_BIND=0-1 sets"
    assert list(environment) == ["VLLM_CPU_OMP_THREADS_BIND"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux says which cores a process may use")
def test_a_process_that_may_use_one_core_has_one(request: pytest.FixtureRequest):
    before = os.sched_getaffinity(0)
    request.addfinalizer(lambda: os.sched_setaffinity(0, before))
    os.sched_setaffinity(0, {min(before)})
    assert cores() == 1


def test_a_containers_limit_counts_as_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(free_cores, "quota", lambda: 1.5)
    assert cores() == 1
    monkeypatch.setattr(free_cores, "quota", lambda: 0.2)
    assert cores() == 1


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Has vLLM's steps, which here return the number of threads and their input; torch has two threads."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    from vllm import _custom_ops
    from vllm.v1.worker import cpu_model_runner

    class Base:
        def execute_model(self, step: str) -> tuple[int, str]:
            return torch.get_num_threads(), step

    class Runner(Base):
        pass

    monkeypatch.setattr(cpu_model_runner, "CPUModelRunner", Runner)
    for name in ("create_onednn_mm", "create_onednn_scaled_mm"):
        monkeypatch.setattr(_custom_ops, name, lambda *args: args)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Runner()
    torch.set_num_threads(threads)


def test_a_step_has_the_threads_that_other_programs_leave(runner: Any, monkeypatch: pytest.MonkeyPatch):
    # Of two cores for a second each: first we, then another program too, then again we alone.
    said = [Reading(-9.0, 0, 0, 0), Reading(-8.0, 2, 0, 2), Reading(-7.0, 4, 0, 3), Reading(-6.0, 5, 0, 4)]
    monkeypatch.setattr(free_cores, "reading", lambda own: said.pop(0))
    monkeypatch.setattr("server.cpu.threads.cores", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    install({})
    install({})
    assert [runner.execute_model("step") for _ in range(3)] == [(2, "step"), (1, "step"), (2, "step")]


def test_onednn_keeps_the_threads_of_one_number_of_rows(runner: Any):
    from vllm import _custom_ops

    install({})
    assert _custom_ops.create_onednn_mm("weight", 32) == ("weight", 1)
    assert _custom_ops.create_onednn_scaled_mm("weight", "scale", 32) == ("weight", "scale", 1)


def test_threads_that_vllm_binds_stay(runner: Any, monkeypatch: pytest.MonkeyPatch):
    install({"VLLM_CPU_OMP_THREADS_BIND": "0-1"})
    monkeypatch.setattr(free_cores, "reading", lambda own: pytest.fail("read"))
    assert runner.execute_model("step") == (2, "step")


@pytest.mark.vllm
def test_a_busy_program_changes_no_token(server: RunningServer, tmp_path: Path):
    def told(by: RunningServer) -> list[str]:
        asked = [by.ask(model, prompt=prompt, max_tokens=60, ignore_eos=True) for model, prompt in PROMPTS]
        return [answer.json()["choices"][0]["text"] for answer in asked]

    with running_server(server.base, server.store, 4, tmp_path / "log", OMP_NUM_THREADS="2") as two:
        alone = told(two)
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                beside = [told(two) for _ in range(3)]
            finally:
                busy.kill()
        assert [*beside, told(two)] == [alone] * 4


PROMPTS = [(model, "Write. " * length) for model in ("base", "formal") for length in (1, 30)]
