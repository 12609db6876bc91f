"""How many threads compute on a CPU, and in which process: the most before vLLM starts, fewer beside other programs.

vLLM runs its worker in a second process. Engine and worker busy-wait on each other, which costs a core, so vLLM leaves
one out of the computing. Here the worker runs in the engine's process and every core computes, on two cores 1.2 to 1.3
times as many tokens a second (docs/decisions/cpu-serving.md). A user's own value of a variable wins.

While the server runs, each step computes with as many threads as there are cores that no other program uses.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, MutableMapping
from typing import Any

import psutil  # type: ignore[import-untyped]

from adapters import free_cores

THREADS = "OMP_NUM_THREADS"
SPIN = "GOMP_SPINCOUNT"
OWN_WORKER = "VLLM_ENABLE_V1_MULTIPROCESSING"
BINDING = "VLLM_CPU_OMP_THREADS_BIND"


def cores() -> int:
    """Physical cores that this process may use; two threads on one core share its arithmetic units."""
    physical: int = psutil.cpu_count(logical=False) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    # Rounded down: threads that use up a container's limit are stopped in the middle of a step.
    return max(1, int(min(physical, allowed, free_cores.quota())))


def chosen(cores: int) -> int:
    """All of up to two cores; of more, all but one, which the API's process then has for itself."""
    return cores if cores <= 2 else cores - 1


def arrange(environment: MutableMapping[str, str]) -> str:
    """Set the variables that `environment` leaves open; returns a line for the user."""
    # No thread is bound to a core, so that other programs of the machine find room.
    if environment.get(BINDING, "nobind") != "nobind":
        return f"as {BINDING}={environment[BINDING]} sets"
    environment.setdefault(OWN_WORKER, "0")
    environment.setdefault(SPIN, free_cores.SPINS)
    environment.setdefault(THREADS, str(chosen(cores())))
    return f"{environment[THREADS]} compute, of {cores()} cores; fewer while other programs need them"


def install(environment: Mapping[str, str]) -> None:
    """Patch vLLM in this process, if it computes on a CPU; a second call changes nothing."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or environment.get(BINDING, "nobind") != "nobind" or not free_cores.readable():
        return
    import torch
    from vllm import _custom_ops
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    most = torch.get_num_threads()
    if most == 1 or "execute_model" in vars(CPUModelRunner):
        return
    # Taken before vLLM's worker replaces it with one that does nothing, for threads that are bound to cores.
    before, set_threads = CPUModelRunner.execute_model, torch.set_num_threads
    # Of a CPU with two threads a core, or of a container's limit, others may use what we do not.
    spare = len(os.sched_getaffinity(0)) - most - (cores() - chosen(cores()))
    server = multiprocessing.parent_process()
    free = free_cores.FreeCores(most, max(0, spare), [server.pid] if server and server.pid else [], cores() / 2)

    # Patch: vLLM 0.32 chooses its threads once. Remove when it has a number of threads that changes while it runs.
    def execute_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        if free.changed():
            set_threads(free.threads)
        return before(self, *args, **kwargs)

    CPUModelRunner.execute_model = execute_model
    _forget_threads(_custom_ops)


def _forget_threads(operators: Any) -> None:
    # Patch: for each number of rows that a product has met, vLLM keeps oneDNN's code, of the last 32 numbers, and with
    # it the threads of that time: what began beside another program would stay at one thread. With the code of one
    # number kept, the next request begins anew. Remove together with the patch above.
    for name in ("create_onednn_mm", "create_onednn_scaled_mm"):
        create = getattr(operators, name)
        setattr(operators, name, lambda *args, create=create: create(*args[:-1], 1))
