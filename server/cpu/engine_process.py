"""vLLM's engine process on a CPU: it imports while the server still prepares, which saves six seconds of a start.

Python calls it a fork server: a process that only imports, and from which vLLM's engine is forked. It has used no
thread and holds neither our sockets nor our signal handlers; forking the server itself would copy all of these.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import context, forkserver

import psutil  # type: ignore[import-untyped]

MODULES = ("vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "server.plugin", "server.cpu.lora")

# vLLM sets these for its engine on a CPU (platforms/cpu.py). torch reads them once, at its import, so that vLLM would
# set them too late here.
READ_AT_IMPORT = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1"}


class EngineProcess(context.ForkServerProcess):
    """Has the environment of its start, as a process that vLLM spawns would have."""

    def start(self) -> None:
        self._environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        import setproctitle

        # This finds the place of the process title by the environment, so it must run before that changes.
        setproctitle.getproctitle()
        os.environ.clear()
        os.environ.update(self._environment)
        super().run()


class EngineContext(context.ForkServerContext):
    Process = EngineProcess


def begin(modules: Sequence[str] = MODULES) -> None:
    """Start the process, which imports `modules` and reads the environment while it does: set that before."""
    os.environ.update(READ_AT_IMPORT)
    multiprocessing.set_forkserver_preload(list(modules))
    forkserver.ensure_running()


def end() -> None:
    """End the process, so that it logs nothing after the server's last line."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if any("multiprocessing.forkserver" in part for part in child.cmdline()):
                child.kill()


def install() -> None:
    """Patch: vLLM forks its engine from the process that `begin` started. Remove when vLLM preloads its own engine."""
    from vllm.v1.engine import utils

    utils.get_mp_context = EngineContext
