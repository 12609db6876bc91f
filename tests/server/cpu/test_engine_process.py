"""The process that imports ahead, and what is forked from it; each in a Python of its own, which has no other."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import psutil

from tests.serving import ROOT


def run(script: str, directory: Path, **environment: str) -> list[str]:
    """The lines that a script prints which begins with `begin`; its functions are in a module, as in vLLM."""
    (directory / "said.py").write_text(
        dedent("""
            import multiprocessing, os, signal, sys

            def say(*names):
                print(*(os.environ.get(name) for name in names), flush=True)

            def say_modules(name):
                print(name in sys.modules, flush=True)

            def say_parent():
                print(multiprocessing.parent_process().pid, os.getppid(), flush=True)

            def wait():
                from server.engine.shutdown import end_with_parent
                print(os.getpid(), flush=True)
                end_with_parent()
                signal.pause()
        """)
    )
    main = "import os, said\nfrom server.cpu import engine_process\nif __name__ == '__main__':\n"
    (directory / "main.py").write_text(main + "\n".join(f"    {line}" for line in dedent(script).strip().splitlines()))
    known = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"} | environment
    done = subprocess.run(
        [sys.executable, directory / "main.py"], env=known, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


START = """
    def start(target, *arguments):
        process = engine_process.EngineContext().Process(target=target, args=arguments)
        process.start()
        process.join(30)
        assert process.exitcode == 0
"""


def test_the_engine_has_the_environment_of_its_start_and_what_was_imported_ahead(tmp_path: Path):
    said = run(
        dedent(START)
        + dedent("""
            engine_process.begin(["colorsys", "a_module_that_is_not_there"])
            start(said.say_modules, "colorsys")
            os.environ["SET_LATER"] = "yes"
            os.environ.pop("TAKEN_AWAY")
            start(said.say, "SET_LATER", "TAKEN_AWAY", "TORCHINDUCTOR_COMPILE_THREADS")
        """),
        tmp_path,
        TAKEN_AWAY="not yet",
    )
    assert said == ["True", "yes None 1"]


def test_it_is_forked_from_what_has_imported_and_belongs_to_who_started_it(tmp_path: Path):
    (said,) = run(
        dedent(START)
        + dedent("""
            engine_process.begin([])
            start(said.say_parent)
        """),
        tmp_path,
    )
    belongs_to, forked_from = said.split()
    assert belongs_to != forked_from


def test_it_ends_when_who_started_it_is_killed(tmp_path: Path):
    (pid,) = run(
        """
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        else:
            engine_process.begin([])
            reading, writing = os.pipe()
            process = engine_process.EngineContext().Process(target=said.wait)
            process.start()
            import psutil
            engine = psutil.Process(process.pid)
            while engine.num_threads() < 2:
                pass
            os.kill(os.getpid(), 9)
        """,
        tmp_path,
    )
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid)).wait(30)
