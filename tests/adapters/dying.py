"""Runs one command on copies of a store, each time killed one step later; prints after how many steps it was through.

    python -m tests.adapters.dying publish TEMPLATE COPIES

A step is a file event that Python audits, or a line of adapters/: between two of them the kill lies before or after
each fsync, write and rename. COPIES gets `1`, `2`, ...: the stores as the killed processes left them, and in the last
the command was through.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import adapters
from adapters.store.gc import collect
from adapters.store.store import Store
from tests import tiny

FACTS = tiny.facts("tiny-llama", f"sha256:{'a' * 64}")
FILE_EVENTS = ("open", "os.", "fcntl.", "shutil.", "tempfile.")
COMMANDS: dict[str, Callable[[Store, Path], object]] = {
    "publish": lambda store, files: store.publish("formal", files, FACTS),
    "promote": lambda store, files: store.promote("formal@2"),
    "canary": lambda store, files: store.promote("formal@2", percent=10),
    "retire": lambda store, files: store.retire("formal"),
    "collect": lambda store, files: collect(store, watch_seconds=0),
}


def die_at(step: int) -> None:
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    ours = str(Path(adapters.__file__).parent)

    def trace(frame, event, _argument):
        if not frame.f_code.co_filename.startswith(ours):
            return None
        if event == "line":
            count()
        return trace

    sys.addaudithook(lambda event, _arguments: count() if event.startswith(FILE_EVENTS) else None)
    sys.settrace(trace)


def run_until_step(step: int, command: str, store: Store, files: Path) -> bool:
    """In a process of its own; whether it was through before that step."""
    child = os.fork()
    if child == 0:
        die_at(step)
        COMMANDS[command](store, files)
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if ended_by not in (signal.SIGKILL, signal.SIGTERM):
        raise SystemExit(f"step {step}: the command failed with status {status}")
    return ended_by == signal.SIGTERM


def main(command: str, template: Path, copies: Path) -> None:
    step, through = 0, False
    while not through:
        step += 1
        shutil.copytree(template, copies / str(step))
        through = run_until_step(step, command, Store(copies / str(step) / "store"), template / "files")
    print(step)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
