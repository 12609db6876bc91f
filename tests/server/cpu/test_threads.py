"""Which threads a server on a CPU gets, by what its environment says already."""

import os

import pytest

from server.cpu.threads import arrange, chosen, cores


@pytest.mark.parametrize(("of", "threads"), [(1, 1), (2, 2), (3, 2), (8, 7)])
def test_every_core_computes_where_there_are_few_and_all_but_one_where_there_are_more(of: int, threads: int):
    assert chosen(of) == threads


def test_nothing_set_means_a_worker_in_the_engine_and_threads_that_sleep_soon():
    environment: dict[str, str] = {}
    assert arrange(environment) == f"{chosen(cores())} compute, of {cores()} cores"
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
