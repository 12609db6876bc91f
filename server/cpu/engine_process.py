"""vLLM's engine process on a CPU, whose imports are done while the server does its own: six seconds of a start.

Python calls it a fork server: a process that imports, does nothing else, and from which the engine is forked when
vLLM asks for it. It has used no thread and holds neither our sockets nor our signal handlers, all of which speak
against forking the server itself. On a GPU the engine is started as vLLM does it. This file does not know what is
served.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import context, forkserver

import psutil  # type: ignore[import-untyped]

MODULES = ("vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "server.plugin", "server.cpu.lora")

READ_AT_IMPORT = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1"}
"""What vLLM sets for its engine on a CPU (platforms/cpu.py) and torch looks at only once, which is sooner here."""


class EngineProcess(context.ForkServerProcess):
    """Has the environment of its start, as a process that vLLM spawns would have."""

    def start(self) -> None:
        self._environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        import setproctitle

        # It finds the place of the title by what the environment was.
        setproctitle.getproctitle()
        os.environ.clear()
        os.environ.update(self._environment)
        super().run()


class EngineContext(context.ForkServerContext):
    Process = EngineProcess


def begin(modules: Sequence[str] = MODULES) -> None:
    """Start importing in a process of its own, which reads the environment while it imports: that must be complete."""
    os.environ.update(READ_AT_IMPORT)
    multiprocessing.set_forkserver_preload(list(modules))
    forkserver.ensure_running()


def end() -> None:
    """Have nothing go on importing, and saying what it imports, after the server's last word."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if any("multiprocessing.forkserver" in part for part in child.cmdline()):
                child.kill()


def install() -> None:
    """Have vLLM fork its engine from what `begin` has started."""
    from vllm.v1.engine import utils

    utils.get_mp_context = EngineContext
