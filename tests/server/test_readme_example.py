"""The calls of the README and of docs/, in Python and by curl, work as they stand there against the real server."""

import itertools
import json

import httpx
import pytest

from tests.pages import commands, fences
from tests.serving import RunningServer

DEFAULT = "http://127.0.0.1:8000"


@pytest.mark.vllm
@pytest.mark.parametrize("example", dict.fromkeys(fences("python")))
def test_the_python_example_gets_an_answer(server: RunningServer, example: str) -> None:
    called_at = example.replace(DEFAULT, server.url).replace("client.chat", "answer = client.chat")
    names: dict[str, object] = {}
    exec(called_at, names)
    assert names["answer"].model == "formal@1"  # type: ignore[attr-defined]


@pytest.mark.vllm
@pytest.mark.parametrize("words", commands("curl"), ids=" ".join)
def test_the_curl_command_gets_an_answer(server: RunningServer, words: list[str]) -> None:
    url = next(word for word in words if word.startswith(DEFAULT)).replace(DEFAULT, server.url)
    options = dict(itertools.pairwise(words))
    if "-d" not in options:
        answer = httpx.get(url, timeout=120)
    else:
        name, _, value = options["-H"].partition(": ")
        answer = httpx.post(url, content=options["-d"], headers={name: value}, timeout=120)
        assert json.loads(answer.text)["model"] == "formal@1"
    assert answer.status_code == 200, answer.text
