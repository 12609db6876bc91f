"""How many threads compute on a CPU, and in which process: chosen at the start, before vLLM reads its environment.

vLLM itself has a process for its worker, which the engine and the worker wait for by turning in circles, and so leaves
one core out of the computing. Here the worker is in the engine's process, and every core computes, on few of them also
that which answers HTTP: threads that have nothing to do sleep soon instead of keeping it from the others. On two cores
that is 1.2 to 1.3 times as many tokens a second (DECISIONS.md). Nothing is bound to a core, so that other programs of
the machine find room. Whoever sets one of vLLM's or OpenMP's variables decides instead.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import psutil  # type: ignore[import-untyped]

THREADS, SPIN, OWN_WORKER, BINDING = (
    *("OMP_NUM_THREADS", "GOMP_SPINCOUNT"),
    *("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND"),
)
SPINS = "1000"
"""Rounds in which a thread waits for more to compute: libgomp's 300,000 take the API's time where requests are short,
none at all halves the tokens a second, as waking a thread takes longer than most of what it is woken for."""


def cores() -> int:
    """Physical cores that this process may use; two threads on one of them only share what it has."""
    physical: int = psutil.cpu_count(logical=False) or 1
    return min(physical, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical)


def chosen(cores: int) -> int:
    """All of up to two cores, and beyond that all but one, which the API's process has then for itself."""
    return cores if cores <= 2 else cores - 1


def arrange(environment: MutableMapping[str, str]) -> str:
    """Set what `environment` leaves open; returns what it has come to, for the user."""
    if environment.get(BINDING, "nobind") != "nobind":
        return f"as {BINDING}={environment[BINDING]} says"
    environment.setdefault(OWN_WORKER, "0")
    environment.setdefault(SPIN, SPINS)
    environment.setdefault(THREADS, str(chosen(cores())))
    return f"{environment[THREADS]} compute, of {cores()} cores"
