"""Several processes that train one adapter together, on CPUs: each reads its share of a step's emails.

    accelerate launch --multi_gpu --num_processes 2 -m trainer.cli sft --data mine.jsonl --name mine

(`--multi_gpu` is how accelerate starts more than one; they stay on the CPUs and add their gradients up with gloo.) The
first process speaks, saves and publishes. This file knows the launcher's variables and torch's, no trainers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.errors import ConfigError

COUNT = int(os.environ.get("WORLD_SIZE", "1"))
FIRST = os.environ.get("RANK", "0") == "0"


def meet(batch: int, on_cpu: bool) -> int:
    """Wait for the others; gives this process's share of `batch` emails.

    Raises:
        ConfigError: the emails of a step cannot be shared alike, or it is a GPU's run.
    """
    if COUNT == 1:
        return batch
    if not on_cpu:
        raise ConfigError("several processes train on CPUs only, and this machine has a GPU", "start one process")
    if batch % COUNT:
        raise ConfigError(
            f"a step of {batch} emails cannot be shared among {COUNT} processes",
            f"give a --batch-size that {COUNT} divides, or start another number of processes",
        )
    from accelerate import PartialState

    PartialState(cpu=True)
    return batch // COUNT


def wait() -> None:
    """Until all have come here."""
    if COUNT > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def leave_the_rest_to_the_first() -> None:
    """End this process, whose part is done, unless it is the first.

    Raises:
        SystemExit: it is not.
    """
    if not FIRST:
        sys.exit()


@contextmanager
def first_before_others() -> Iterator[None]:
    """The others begin what is within once the first has done it, and find what it left."""
    if COUNT == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def any_of_them(here: bool) -> bool:
    """Whether it is so in some process; all ask at the same point of the run, and all get the same answer."""
    if COUNT == 1:
        return here
    import torch

    flag = torch.tensor(int(here))
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)
