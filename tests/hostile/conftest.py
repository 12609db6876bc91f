"""What takes too long for `make test`: `make fuzz` runs it. MAILWRIGHT_FUZZ_EXAMPLES (1,000) says how many examples a
property gets, MAILWRIGHT_FUZZ_OUT a directory for the figures as JSON."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Show = Callable[[str, dict[str, object]], None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Prints the figures of a run, and writes them where the caller wants them."""

    def shown(name: str, figures: dict[str, object]) -> None:
        with capsys.disabled():
            print(f"\n{name}")
            for what, value in sorted(figures.items()):
                print(f"  {what:40} {value}")
        if directory := os.environ.get("MAILWRIGHT_FUZZ_OUT"):
            (Path(directory) / f"{name}.json").write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")

    return shown
