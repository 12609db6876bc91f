"""What pytest-xdist may run side by side: files, but all that use the session's own servers in one process.

For `pytest -n 2 --dist loadfile`. xdist's own `--dist loadgroup` does nothing under pytest 9.2, which keeps the names
of tests where xdist would change them.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    "tests/clients/test_clients.py",
    "tests/server/api/test_adapters_route.py",
    "tests/server/api/test_allowed.py",
    "tests/server/api/test_bad_adapters.py",
    "tests/server/cpu/test_lora.py",
    "tests/server/drafts/test_checked.py",
    "tests/server/cpu/test_sampling.py",
    "tests/server/cpu/test_threads.py",
    "tests/server/api/test_hostile.py",
    "tests/server/cpu/test_int8.py",
    "tests/server/test_launch.py",
    "tests/server/test_metrics.py",
    "tests/server/test_readme_example.py",
    "tests/server/api/test_swap.py",
    "tests/trainer/evaluation/test_writers.py",
    "tests/ui/test_with_server.py",
}
"""Whatever asks for the fixtures `server` or `keyed` of tests/serving.py."""


class Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "servers" if file in TOGETHER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def refuse_a_second(what: str, run: Path) -> None:
    """Fail where another process of the same run has started the session's `what` too; `run` is the run's directory."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        try:
            (run / what).touch(exist_ok=False)
        except FileExistsError:
            pytest.fail(f"a second {what} in one run: name the test's file in tests/parallel.py")
