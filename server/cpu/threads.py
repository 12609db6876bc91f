"""How many threads compute on a CPU, and in which process; chosen before vLLM reads its environment.

vLLM runs its worker in a second process. Engine and worker busy-wait on each other, which costs a core, so vLLM leaves
one out of the computing. Here the worker runs in the engine's process and every core computes, on two cores 1.2 to 1.3
times as many tokens a second (docs/decisions/cpu-serving.md). A user's own value of a variable wins.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import psutil  # type: ignore[import-untyped]

THREADS = "OMP_NUM_THREADS"
SPIN = "GOMP_SPINCOUNT"
OWN_WORKER = "VLLM_ENABLE_V1_MULTIPROCESSING"
BINDING = "VLLM_CPU_OMP_THREADS_BIND"

# Rounds in which an idle thread spins before it sleeps. libgomp's 300,000 take the API's time where requests are short;
# none at all halves the tokens a second, because waking a thread takes longer than most of its work.
SPINS = "1000"


def cores() -> int:
    """Physical cores that this process may use; two threads on one core share its arithmetic units."""
    physical: int = psutil.cpu_count(logical=False) or 1
    return min(physical, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical)


def chosen(cores: int) -> int:
    """All of up to two cores; of more, all but one, which the API's process then has for itself."""
    return cores if cores <= 2 else cores - 1


def arrange(environment: MutableMapping[str, str]) -> str:
    """Set the variables that `environment` leaves open; returns a line for the user."""
    # No thread is bound to a core, so that other programs of the machine find room.
    if environment.get(BINDING, "nobind") != "nobind":
        return f"as {BINDING}={environment[BINDING]} sets"
    environment.setdefault(OWN_WORKER, "0")
    environment.setdefault(SPIN, SPINS)
    environment.setdefault(THREADS, str(chosen(cores())))
    return f"{environment[THREADS]} compute, of {cores()} cores"
