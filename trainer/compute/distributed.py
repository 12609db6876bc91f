"""Several processes that train one adapter together, on CPUs: each reads its share of a step's emails.

    accelerate launch --multi_gpu --num_processes 2 -m trainer.cli sft --data mine.jsonl --name mine

`--multi_gpu` is how accelerate starts several; they stay on the CPUs and add their gradients with gloo. The first
process logs, saves and publishes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.errors import ConfigError

COUNT = int(os.environ.get("WORLD_SIZE", "1"))
FIRST = os.environ.get("RANK", "0") == "0"


def meet(batch: int, on_cpu: bool) -> None:
    """Wait for the others.

    Raises:
        ConfigError: the emails of a step cannot be shared equally, or the run is on a GPU.
    """
    if COUNT == 1:
        return
    if not on_cpu:
        raise ConfigError("several processes train on CPUs only, and this machine has a GPU", "start one process")
    if batch % COUNT:
        raise ConfigError(
            f"a step of {batch} emails cannot be shared among {COUNT} processes",
            f"give a --batch-size that {COUNT} divides, or start another number of processes",
        )
    from accelerate import PartialState

    PartialState(cpu=True)


def wait() -> None:
    """Until all processes have come here."""
    if COUNT > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def leave_the_rest_to_the_first() -> None:
    """End this process, unless it is the first."""
    if not FIRST:
        sys.exit()


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs the context before the others, which find what it left in the cache."""
    if COUNT == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def any_of_them(here: bool) -> bool:
    """Collective OR over all processes; every one must call it."""
    if COUNT == 1:
        return here
    import torch

    flag = torch.tensor(int(here))
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)
