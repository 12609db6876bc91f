"""The real server on a tiny base model, started once for all tests that talk to it.

MAILWRIGHT_TEST_STOCK=1 starts vLLM without any of our plugins instead, to see which tests bite.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests import tiny
from tests.parallel import refuse_a_second

ROOT = Path(__file__).parents[1]
START_SECONDS = 240
"""Twenty on an idle machine; training runs may share it."""
LEAVE_SECONDS = 20
"""How long the engine may take to be gone once the server has ended."""
STOCK = os.environ.get("MAILWRIGHT_TEST_STOCK") == "1"
FIELDS = "ignore_eos,min_tokens,skip_special_tokens"
"""vLLM's own, with which a test says how long an answer gets."""
MAX_QUEUED = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Several servers share two cores in a test run."""
UNBOUND = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""vLLM without our plugins would bind every server's threads to the first core."""
VOICES = ["formal", "friendly", "terse", "warm"]
"""One for each of the four slots."""


@dataclass(frozen=True)
class RunningServer:
    url: str
    store: Store
    base: BaseModel
    log: Path
    process: subprocess.Popen[bytes]

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def ask(self, model: str, **options: object) -> httpx.Response:
        """A short answer of `model`, whatever its status."""
        body = {"model": model, "prompt": "Write.", "max_tokens": 8, "temperature": 0} | options
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=120)

    def metric(self, beginning: str) -> float:
        """The sum of the series whose lines begin like that."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(beginning))

    def loads(self, name: str, result: str = "loaded") -> float:
        """How often a version of `name` was loaded, or failed to be, so far."""
        return self.metric(f'mailwright_adapter_loads_total{{adapter="{name}",result="{result}"}}')

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel) -> Store:
    store = Store(tmp_path_factory.mktemp("voices") / "store")
    for seed, name in enumerate([*VOICES, "formal"], start=1):
        tiny.publish(store, base_model, name, seed)
    return store


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel, voices: Store) -> Iterator[RunningServer]:
    refuse_a_second("server", tmp_path_factory.getbasetemp().parent)
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(base_model, voices, 4, log, compiled=True) as server:
        yield server


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel) -> Iterator[RunningServer]:
    """A server with the operator's key `sesame`, a queue of MAX_QUEUED, and a store that tests may change."""
    refuse_a_second("keyed", tmp_path_factory.getbasetemp().parent)
    directory = tmp_path_factory.mktemp("keyed")
    store = Store(directory / "store")
    for seed, name in enumerate(["formal", "formal", "friendly"], start=1):
        tiny.publish(store, base_model, name, seed)
    flags, settings = ["--max-queued", str(MAX_QUEUED)], {"MAILWRIGHT_API_KEY": "sesame"}
    with running_server(base_model, store, 4, directory / "server.log", arguments=flags, **settings) as server:
        yield server


@contextmanager
def running_server(
    base: BaseModel,
    store: Store,
    max_loras: int,
    log: Path,
    dtype: str = "float32",
    arguments: Sequence[str] = (),
    compiled: bool = False,
    **environment: str,
) -> Iterator[RunningServer]:
    """A server process on a free port, ready to answer. In the end it gets what Ctrl-C in a terminal sends.

    `compiled`: with vLLM's compiler, as people start it, which costs a start 20 s.

    Whatever that leaves behind fails the test run, and is killed. A server that has ended by then is left alone.
    """
    port = free_port()
    command = (
        _stock_command(base, store) if STOCK else [sys.executable, "-m", "server.launch", "--base", str(base.path)]
    )
    command += ["--port", str(port), "--max-loras", str(max_loras), "--dtype", dtype]
    if not STOCK:
        command += ["--store", str(store.directory), "--kv-cache", "0.25", "--allow-fields", FIELDS, *arguments]
    if not STOCK and not compiled:
        command += ["--enforce-eager"] if "--" in arguments else ["--", "--enforce-eager"]
    environment = {**os.environ, **({"VLLM_PLUGINS": "", **UNBOUND} if STOCK else {}), **ONE_THREAD, **environment}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, url, log)
        yield RunningServer(url, store, base, log, process)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            status = process.wait(60)
            left = left_in_group(process.pid)
            wrong = f"it ended with {status} and left {left}:\n{log.read_text()[-5000:]}"
            assert STOCK or (status, left) == (0, []), wrong
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def left_in_group(group: int) -> list[str]:
    """What is still alive of a group whose leader has ended, after the time that a busy machine needs to end it."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while (left := alive_in_group(group)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def alive_in_group(group: int) -> list[str]:
    """Command lines, without that of Python's resource tracker, which ends by itself a moment later."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            command = " ".join(process.cmdline())
            living = process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in command
            found += [command] if living and os.getpgid(process.pid) == group else []
    return found


def memory_mb(process: int) -> float:
    """Resident memory of a server and its engine, in MB."""
    parent = psutil.Process(process)
    return sum(member.memory_info().rss for member in [parent, *parent.children(recursive=True)]) / 2**20


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}:\n{log.read_text()[-5000:]}"
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"the server was not ready after {START_SECONDS} s:\n{log.read_text()[-5000:]}")


def free_port() -> int:
    """Below the ports that the kernel gives to clients, which would take one before a server has started on it."""
    while True:
        # Not the shared generator, which Hypothesis seeds: two processes would get the same ports.
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def stock_command(base: BaseModel, *flags: str) -> list[str]:
    """vLLM's own server, which is then to be told where to listen."""
    program = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(base.path)]
    return [*program, "--served-model-name", "base", "--max-model-len", "2048", *flags]


def stock_lora() -> list[str]:
    """What our server tells vLLM of LoRA, for vLLM's own."""
    from server.vllm_server import LORA_MODULES

    return ["--enable-lora", "--max-cpu-loras", "32", "--max-lora-rank", "16", "--lora-target-modules", *LORA_MODULES]


def _stock_command(base: BaseModel, store: Store) -> list[str]:
    """With the settings of ours, and the same adapters under the same names."""
    adapters = [version for name in VOICES for version in store.versions(name)]
    lora = [*stock_lora(), "--lora-modules", *[f"{version.id}={version.path}" for version in adapters]]
    return stock_command(base, "--host", "127.0.0.1", "--kv-cache-memory-bytes", str(2**28), *lora)
