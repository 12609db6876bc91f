"""Clients of OpenAI's API, as they come, against the real server; MAILWRIGHT_CLIENTS=all asks for everything they can.

Each client has a script, which does what one of its users would write. Those for Python run in .venv/clients, and
those for Node with tests/clients/node_modules; neither can import anything of the server's. With everything asked for,
the table of what passed, in docs/serving.md, is written anew.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests.clients.flaky import REFUSALS, refusing_first
from tests.serving import ROOT, RunningServer, running_server

HERE = Path(__file__).parent
PAGE = ROOT / "docs/serving.md"
TABLE = re.compile(r"(?<=<!-- clients -->\n).*(?=<!-- /clients -->)", re.DOTALL)
ALL = os.environ.get("MAILWRIGHT_CLIENTS") == "all"
KEY = "key-of-the-clients" if ALL else "none"
CHECKS = {
    "chat": "chat",
    "stream": "stream with usage",
    "tools": "tools",
    "json_schema": "`json_schema`",
    "logprobs": "logprobs",
    "seed": "seed",
    "stop": "stop",
    "turns": "several turns",
    "errors": "errors",
    "retries": "retries",
    "responses": "`/v1/responses`",
    "completions": "`/v1/completions`",
}
"""Every check and the head of its column; a client is not asked for what it has no notion of."""
SHORT = ("chat", "stream", "errors")
OFF = {
    "DO_NOT_TRACK": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
    "AI_SDK_LOG_WARNINGS": "false",
}
"""Nothing is sent to anyone but our server; whoever tries all the same fails (checks.py, checks.mjs)."""


@dataclass(frozen=True)
class Client:
    """`script` without its ending; `pins` is the file that has the version of `package`."""

    name: str
    package: str
    script: str
    pins: Path = HERE / "requirements.txt"
    python: Path = ROOT / ".venv/clients/bin/python"

    @property
    def node(self) -> bool:
        return self.pins.suffix == ".json"

    @property
    def version(self) -> str:
        text = self.pins.read_text()
        if self.node:
            return str(json.loads(text)["dependencies"][self.package])
        return next(line.partition("==")[2] for line in text.splitlines() if line.startswith(f"{self.package}=="))

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def command(self) -> list[str]:
        if self.node:
            return ["node", str(HERE / f"{self.script}.mjs")]
        return [str(self.python), "-m", f"tests.clients.{self.script}"]


OUR_OPENAI = Client(
    "openai-python", "openai", "openai_python", ROOT / "deploy/requirements-cpu.txt", ROOT / ".venv/bin/python"
)
"""The newest one, which the page uses too; other clients ask for an older one."""
CLIENTS = [
    OUR_OPENAI,
    Client("openai-python", "openai", "openai_python"),
    Client("openai-node", "openai", "openai_node", HERE / "package.json"),
    Client("langchain-openai", "langchain-openai", "langchain"),
    Client("llama-index-llms-openai-like", "llama-index-llms-openai-like", "llama_index"),
    Client("LiteLLM", "litellm", "litellm"),
    Client("llm", "llm", "llm"),
    Client("@ai-sdk/openai-compatible", "@ai-sdk/openai-compatible", "ai_sdk", HERE / "package.json"),
    Client("instructor", "instructor", "instructor"),
    Client("anthropic", "anthropic", "anthropic"),
]
Outcome = dict[str, str | bool]


@pytest.fixture(scope="module")
def asked(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """The server that all tests share, or one with a key where everything is asked for: a wrong key is refused too."""
    if not ALL:
        yield request.getfixturevalue("server")
        return
    base: BaseModel = request.getfixturevalue("base_model")
    store: Store = request.getfixturevalue("voices")
    log = request.getfixturevalue("tmp_path_factory").mktemp("clients") / "server.log"
    with running_server(base, store, 4, log, MAILWRIGHT_API_KEY=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def passed() -> dict[str, dict[str, Outcome]]:
    """By a client's title: what came out of each check."""
    return {}


def table(found: dict[str, dict[str, Outcome]]) -> str:
    lines = [["client", *CHECKS.values()], ["---"] * (len(CHECKS) + 1)]
    lines += [[client.title, *(cell(found[client.title].get(check)) for check in CHECKS)] for client in CLIENTS]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "-"
    return str(outcome["detail"] or "yes") if outcome["ok"] else "no"


@pytest.mark.vllm
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.title)
def test_a_client_as_it_comes_gets_what_it_asks_for(
    client: Client, asked: RunningServer, passed: dict[str, dict[str, Outcome]], tmp_path: Path
) -> None:
    if not client.node:
        assert client.python.exists(), "the clients are not there: run `make test-tools`"
    # Not the session's own environment: it may hold keys for servers elsewhere.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LLM_USER_PATH": str(tmp_path), **OFF}
    with refusing_first(asked.url) as (flaky, statuses):
        arguments = [f"{asked.url}/v1", f"{flaky}/v1", KEY, "formal", *(() if ALL else SHORT)]
        done = subprocess.run(
            [*client.command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
        )
    # LiteLLM prints something of its own when it fails.
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    found = {line.pop("check"): line for line in lines}
    passed[client.title] = found
    assert done.returncode == 0, done.stderr[-2000:]
    assert {name: outcome["detail"] for name, outcome in found.items() if not outcome["ok"]} == {}
    assert set(SHORT) <= found.keys() <= CHECKS.keys()
    if "retries" in found:
        assert statuses == [*REFUSALS, 200]


def test_the_page_says_what_passed_for_just_the_clients_and_versions_that_are_pinned(
    passed: dict[str, dict[str, Outcome]],
) -> None:
    if ALL and passed.keys() == {client.title for client in CLIENTS}:
        PAGE.write_text(TABLE.sub(lambda _: table(passed), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    found = TABLE.search(PAGE.read_text(encoding="utf-8"))
    assert found, f"{PAGE} has no table of clients"
    head, _, *rows = [[part.strip() for part in line.strip("|").split("|")] for line in found[0].splitlines()]
    again = "write it again: make test-clients"
    assert head == ["client", *CHECKS.values()], again
    assert [row[0] for row in rows] == [client.title for client in CLIENTS], again
    assert {cell for row in rows for cell in row[1:]} <= {"yes", "400", "-"}


PRYING = {
    "checks.py": (
        "import socket\nfrom tests.clients.checks import run\n"
        "run(chat=lambda: socket.create_connection(('telemetry.invalid', 80)))"
    ),
    "checks.mjs": (
        f'import {{ run }} from "{HERE}/checks.mjs";\nawait run({{ chat: () => fetch("http://telemetry.invalid/") }});'
    ),
}


@pytest.mark.parametrize("guard", PRYING)
def test_a_client_that_sends_anything_elsewhere_fails(guard: str, tmp_path: Path) -> None:
    script = tmp_path / f"prying-{guard}"
    script.write_text(PRYING[guard])
    command = "node" if script.suffix == ".mjs" else CLIENTS[1].python
    arguments = ["http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1", "none", "formal"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [command, script, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "it wanted to reach" in done.stderr
    assert "telemetry.invalid" in done.stderr


def test_no_pin_says_where_a_package_is_fetched_from() -> None:
    assert "://" not in (HERE / "requirements.txt").read_text()
    assert "resolved" not in (HERE / "package-lock.json").read_text()
