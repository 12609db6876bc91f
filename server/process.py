"""The process of the server before vLLM is imported: its signals, its environment, no core dumps, how it ends early."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import NoReturn

import psutil  # type: ignore[import-untyped]

from adapters.settings import silence_telemetry
from server.cpu import build, engine_process, threads
from server.plugin import GENERAL, ROUTES
from server.vllm_version import is_cpu_build

INTERRUPTED = 130


@contextmanager
def prepared() -> Iterator[None]:
    """Set up this process for vLLM; must begin before anything imports vLLM."""
    _take_signals()
    silence_telemetry()
    # A core dump would hold the mail that was being written; vLLM's processes inherit this.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # One allow-list over all of vLLM's plugin groups: no other plugin that is installed gets in.
    os.environ["VLLM_PLUGINS"] = f"{GENERAL},{ROUTES}"
    # A process that has computed in threads cannot be forked safely; see also server/cpu/engine_process.py.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if is_cpu_build():
        os.environ.setdefault("VLLM_CACHE_ROOT", str(build.directory() / "vllm"))
        threads.arrange(os.environ)
        engine_process.begin()
    try:
        yield
    finally:
        # Otherwise it continues to import, and logs after the server's last line.
        engine_process.end()


def prepare_cpu(log: Callable[[str], None]) -> None:
    """Compile the LoRA arithmetic before vLLM needs it, and log what computes with how many threads."""
    log(f"lora     {build.prepare(log)}")
    log(f"threads  {threads.arrange(os.environ)}")


def end_at_once(status: int) -> NoReturn:
    """End without waiting: before vLLM serves, no answer is being written."""
    for child in psutil.Process().children(recursive=True):
        # Python's resource tracker ends by itself, once it has removed the shared memory of the others.
        if not any("resource_tracker" in part for part in child.cmdline()):
            child.kill()
    os._exit(status)


def _take_signals() -> None:
    """Turn Ctrl-C into a SIGTERM to this process alone, which ends the start; vLLM changes that when it serves.

    A terminal sends Ctrl-C to the whole process group: vLLM's engine would die under the requests that it should
    finish. The processes that vLLM starts inherit the blocked signal; here one thread waits for it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end_at_once(INTERRUPTED))
    # Python unblocks SIGINT when it starts the resource tracker, so that must happen before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGINT})
            # To the main thread: only there handlers run, and it may be waiting for the engine to start.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    threading.Thread(target=wait, name="interrupts", daemon=True).start()
