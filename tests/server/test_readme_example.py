"""The README's Python example runs as it stands there, against the real server."""

import re
from pathlib import Path

import pytest

from tests.serving import ROOT, RunningServer

EXAMPLE = re.search(r"```python\n(.*?)```", (Path(ROOT) / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.vllm
def test_the_python_example_gets_an_answer(server: RunningServer) -> None:
    assert EXAMPLE
    called_at = EXAMPLE[1].replace("http://127.0.0.1:8000", server.url).replace("client.chat", "answer = client.chat")
    names: dict[str, object] = {}
    exec(called_at, names)
    assert names["answer"].model == "formal@1"  # type: ignore[attr-defined]
