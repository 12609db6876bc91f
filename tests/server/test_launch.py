"""The command line, and the real server over HTTP with the unmodified OpenAI client."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from safetensors.numpy import load_file, save_file

from adapters.errors import ConfigError
from adapters.models import catalog
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from server import launch, process
from server.cpu import threads
from server.engine.device import Device
from server.launch import main, refuse_shadowed_names
from server.plugin import Service
from server.settings import read
from server.vllm_server import vllm_arguments
from tests import tiny
from tests.serving import ROOT, RunningServer

SECRET = "Xylophon Quetzalcoatl 4711"


def test_an_error_is_two_lines_and_status_2(capsys: pytest.CaptureFixture[str]):
    assert main(["--host", "0.0.0.0"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    error, hint = said.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")


def test_debug_shows_the_traceback():
    with pytest.raises(ConfigError):
        main(["--host", "0.0.0.0", "--debug"])


def test_an_unexpected_error_is_named_by_its_type_and_has_its_traceback_with_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(_: object) -> int:
        raise PermissionError(13, "Permission denied", "/cache/base.json")

    monkeypatch.setattr(launch, "run", fail)
    assert main([]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: PermissionError: [Errno 13] Permission denied: '/cache/base.json'"
    assert "--debug" in hint
    with pytest.raises(PermissionError):
        main(["--debug"])


def test_a_base_model_that_is_none_is_refused_before_the_engine_starts(tmp_path: Path):
    command = [sys.executable, "-m", "server.launch", "--base", str(tmp_path), "--store", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    # The last words are ours, although vLLM is being imported in another process meanwhile.
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert "is not a base model" in error
    assert hint.startswith("hint: ")
    assert "Traceback" not in done.stderr


def test_the_rank_is_rounded_up_to_one_of_vllms(base_model: BaseModel):
    settings = read(["--max-rank", "9", "--max-loras", "100"], {})
    arguments = vllm_arguments(settings, base_model, ("tiny-llama", "base"))
    assert "--max-lora-rank=16" in arguments
    assert "--max-cpu-loras=101" in arguments


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, base_model: BaseModel, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs the start on a device up to vLLM, and gives vLLM's arguments; the default base models are the tiny one."""

    def start(device: Device, *flags: str) -> list[str]:
        handed_over: list[list[str]] = []

        def serve(service: Service) -> bool:
            handed_over.append(vllm_arguments(service.settings, service.base, service.base_names))
            return True

        monkeypatch.setattr(process, "_take_signals", lambda: None)
        monkeypatch.setattr(process.engine_process, "begin", lambda: None)
        monkeypatch.setattr(launch, "_device", lambda _: device)
        monkeypatch.setattr(launch.vllm_server, "serve", serve)
        monkeypatch.setattr(launch, "find", lambda wanted, _: replace(base_model, name=wanted.lower()))
        monkeypatch.setenv("VLLM_PLUGINS", "")
        monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "compiled"))
        monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        for name in (threads.THREADS, threads.SPIN, threads.OWN_WORKER):
            monkeypatch.setenv(name, "1")
        assert main(["--store", str(tmp_path), *flags]) == 0
        (arguments,) = handed_over
        return arguments

    return start


GPU = Device(cuda=True, kv_cache_gib=None, description="CUDA, NVIDIA H100, bf16")
CPU = Device(cuda=False, kv_cache_gib=1, description="CPU, 2 cores")


@pytest.mark.parametrize(
    ("device", "free", "name", "why"),
    [
        (GPU, 0, "qwen3-4b-instruct-2507", "the default on a GPU"),
        (CPU, 9, "qwen2.5-coder-1.5b-instruct", "the default without a GPU (9.0 GB of memory free)"),
        (CPU, 3, "smollm2-135m-instruct", "the default without a GPU with less than 8 GB (3.0 GB of memory free)"),
    ],
)
def test_the_start_says_the_device_and_its_default_base_model(
    started: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    free: int,
    name: str,
    why: str,
):
    monkeypatch.delenv("MAILWRIGHT_BASE")
    monkeypatch.setattr(catalog, "free_memory", lambda: free * 10**9)
    started(device)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"device   {device.description}"
    assert f"no --base given: {name}, {why}" in said
    assert any(line.startswith("lora     compiled") for line in said) == (not device.cuda)
    assert any(line.startswith(f"base     {name}  ") for line in said)


@pytest.mark.parametrize(
    ("missing", "headers", "said"),
    [
        ("no C++ compiler found", True, "torch's own products, half as fast: no C++ compiler found; install g++"),
        (None, False, "compiled, and the model is not, because Python.h is missing; install python3.11-dev"),
    ],
)
def test_the_start_says_what_it_could_not_compile(
    started: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    missing: str | None,
    headers: bool,
    said: str,
):
    monkeypatch.setattr(process.build, "build", lambda _: missing)
    monkeypatch.setattr(process.build, "compiles_models", lambda: headers)
    started(CPU)
    assert f"lora     {said} and start again" in capsys.readouterr().out


def test_a_base_model_that_is_given_is_no_default(
    started: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
):
    started(GPU, "--base", "mine")
    assert "default" not in capsys.readouterr().out


def test_the_start_says_how_much_memory_adapters_may_take(
    started: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], base_model: BaseModel
):
    store = Store(base_model.path.parent / "for-its-size")
    version = tiny.publish(store, base_model, "formal", 1)
    numbers = sum(tensor.size for tensor in load_file(version.path / "adapter_model.safetensors").values())
    started(CPU, "--max-resident", "64", "--max-loras", "16", "--max-rank", str(tiny.RANK))
    [said] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("adapters ")]
    assert said.startswith(f"adapters 64 in memory, 16 in a batch: {80 * 2 * numbers / 1e6:.0f} MB at most")


def test_a_cpu_always_gets_a_cache_size_and_a_gpu_only_the_one_that_was_given(started: Callable[..., list[str]]):
    assert f"--kv-cache-memory-bytes={2**30}" in started(CPU)
    assert f"--kv-cache-memory-bytes={2**29}" in started(CPU, "--kv-cache", "0.5")
    assert f"--kv-cache-memory-bytes={8 * 2**30}" in started(GPU, "--kv-cache", "8")
    assert not any("kv-cache" in argument or "utilization" in argument for argument in started(GPU))


def test_tokens_are_guessed_ahead_only_if_told(started: Callable[..., list[str]]):
    def guesses(*flags: str) -> list[int]:
        given = [value for value in started(CPU, *flags) if value.startswith("--speculative-config=")]
        return [json.loads(value.partition("=")[2])["num_speculative_tokens"] for value in given]

    assert (guesses(), guesses("--speculate", "0"), guesses("--speculate", "5")) == ([], [], [5])


def test_a_cpu_serves_the_copy_with_8_bits_if_told(
    started: Callable[..., list[str]], base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    prepared = []
    monkeypatch.setattr(launch.int8, "prepare", lambda base, *_: prepared.append(base.fingerprint))
    assert f"--model={base_model.path}" in started(CPU)
    assert f"--model={launch.int8.directory(base_model)}" in started(CPU, "--int8")
    assert prepared == [base_model.fingerprint]


def test_an_engine_that_died_ends_the_server_with_status_1(
    started: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    started(CPU)
    monkeypatch.setattr(launch.vllm_server, "serve", lambda *_: False)
    assert main(["--store", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: vLLM's engine process ended by itself\nhint: ")


@pytest.mark.vllm
def test_a_server_that_only_prepares_ends_when_it_is_ready(base_model: BaseModel, tmp_path: Path):
    command = [sys.executable, "-m", "server.launch", "--base", str(base_model.path), "--store", str(tmp_path)]
    command += ["--prepare", "--kv-cache", "0.25", "--", "--enforce-eager"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [said] = [line for line in done.stdout.splitlines() if line.startswith("prepared ")]
    assert "engine" in said
    assert "address " not in done.stdout


def test_an_adapter_with_the_base_models_name_is_refused(tmp_path: Path, base_model: BaseModel):
    store = Store(tmp_path)
    tiny.publish(store, base_model, "tiny-llama", 1)
    with pytest.raises(ConfigError, match="tiny-llama"):
        refuse_shadowed_names(Service(read(["--store", str(tmp_path)], {}), base_model))


def chat(
    server: RunningServer, model: str, text: str = "Ask for a meeting.", **options: object
) -> openai.types.chat.ChatCompletion:
    with server.client() as client:
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], max_tokens=24, temperature=0, **options
        )


@pytest.mark.vllm
def test_it_says_at_start_what_it_serves_and_where(server: RunningServer):
    said = server.log.read_text()
    assert any(line.startswith("device   CPU, ") for line in said.splitlines())
    for line in (
        f"base     tiny-llama  {server.base.path}",
        f"store    {server.store.directory}",
        f"address  {server.url}/v1",
    ):
        assert line in said.splitlines()


@pytest.mark.vllm
def test_models_are_the_base_names_the_promoted_names_and_on_request_every_version(server: RunningServer):
    with server.client() as client:
        assert "formal@1" not in {card.id for card in client.models.list()}
        cards = {card.id: card.model_dump() for card in client.models.list(extra_query={"versions": "all"})}
        assert {"tiny-llama", "base", "formal", "formal@1", "formal@2", "friendly", "friendly@1"} <= set(cards)
        assert client.models.retrieve("formal").model_dump() == cards["formal"]
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve("frmal")
    assert (cards["formal"]["root"], cards["formal"]["parent"]) == ("formal@1", "tiny-llama")
    assert (cards["base"]["root"], cards["base"]["parent"]) == ("tiny-llama", None)
    assert refused.value.code == "model_not_found"


@pytest.mark.vllm
def test_the_answer_names_the_exact_version_and_the_voices_differ(server: RunningServer):
    answers = {model: chat(server, model) for model in ("base", "tiny-llama", "formal", "formal@2", "friendly")}
    assert {asked: answer.model for asked, answer in answers.items()} == {
        "base": "tiny-llama",
        "tiny-llama": "tiny-llama",
        "formal": "formal@1",
        "formal@2": "formal@2",
        "friendly": "friendly@1",
    }
    texts = {answer.model: answer.choices[0].message.content for answer in answers.values()}
    assert len(set(texts.values())) == 4


@pytest.mark.vllm
def test_a_stream_says_the_same_and_ends_with_usage(server: RunningServer):
    whole = chat(server, "formal")
    with server.client() as client:
        messages = [{"role": "user", "content": "Ask for a meeting."}]
        stream = client.chat.completions.create(
            model="formal", messages=messages, max_tokens=24, temperature=0, stream=True
        )
        chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {"formal@1"}
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.vllm
def test_completions_work_for_base_and_adapters(server: RunningServer):
    with server.client() as client:
        for asked, exact in {"base": "tiny-llama", "friendly": "friendly@1"}.items():
            answer = client.completions.create(model=asked, prompt="Dear all,", max_tokens=8, temperature=0)
            assert answer.model == exact
            assert answer.choices[0].text


@pytest.mark.vllm
def test_an_unknown_name_is_404_and_never_the_base_model(server: RunningServer):
    with pytest.raises(openai.NotFoundError) as refused:
        chat(server, "frmal")
    assert (refused.value.code, refused.value.param, refused.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "formal" in refused.value.message


@pytest.mark.vllm
def test_an_adapter_published_while_it_runs_answers_its_first_request_and_a_promote_the_next(server: RunningServer):
    tiny.publish(server.store, server.base, "newcomer", seed=11)
    first = chat(server, "newcomer")
    assert first.model == "newcomer@1"
    tiny.publish(server.store, server.base, "newcomer", seed=12)
    assert chat(server, "newcomer").model == "newcomer@1"
    server.store.promote("newcomer@2")
    second = chat(server, "newcomer")
    assert second.model == "newcomer@2"
    assert second.choices[0].message.content != first.choices[0].message.content
    server.store.promote("newcomer@1")
    assert chat(server, "newcomer").choices[0].message.content == first.choices[0].message.content


@pytest.mark.vllm
def test_a_broken_adapter_is_422_with_every_reason_and_the_others_go_on(server: RunningServer, tmp_path: Path):
    files = tiny.make_adapter(server.base.path, tmp_path / "broken", seed=13, rank=32)
    tensors = load_file(files / "adapter_model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name] * float("nan")
    save_file(tensors, files / "adapter_model.safetensors")
    server.store.publish("broken", files, tiny.facts(server.base.name, "sha256:" + "0" * 64, 32))
    for _ in range(2):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            chat(server, "broken@1")
        assert refused.value.code == "adapter_unusable"
        for reason in ("rank is 32", "NaN", "trained on tiny-llama (sha256:000000000000...)", "`server --base "):
            assert reason in refused.value.message
    shutil.rmtree(server.store.directory / "broken")
    assert chat(server, "formal").model == "formal@1"


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/invocations", b'{"model": "base"}', 404, "not_found"),
        ("POST", "/v1/load_lora_adapter", b"{}", 404, "not_found"),
        ("POST", "/tokenize", b"{}", 404, "not_found"),
        ("GET", "/docs", b"", 404, "not_found"),
        ("POST", "/v1/chat/completions", b"{", 400, "invalid_request"),
        ("POST", "/v1/chat/completions", b'{"messages": []}', 400, "invalid_request"),
        ("POST", "/v1/chat/completions", b'{"model": "base", "messages": 7}', 400, "invalid_request"),
        (
            "POST",
            "/v1/completions",
            b'{"model": "base", "prompt": "%s"}' % (b"a" * 3000),
            400,
            "context_length_exceeded",
        ),
        ("POST", "/v1/completions", b'{"model": "base", "prompt": "%s"}' % (b"a" * 2**21), 413, "request_too_large"),
    ],
)
def test_every_error_is_an_openai_error(
    server: RunningServer, method: str, path: str, body: bytes, status: int, code: str
):
    answer = httpx.request(method, f"{server.url}{path}", content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert sorted(error) == ["code", "message", "param", "type"]


@pytest.mark.vllm
def test_health_and_metrics_answer(server: RunningServer):
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert "vllm:" in httpx.get(f"{server.url}/metrics").text


@pytest.mark.vllm
def test_nobodys_mail_is_in_the_log(server: RunningServer):
    assert chat(server, "formal", SECRET).choices
    body = {"model": "base", "messages": [{"role": SECRET, "content": [{"type": SECRET}]}], "max_tokens": SECRET}
    assert httpx.post(f"{server.url}/v1/chat/completions", content=json.dumps(body)).status_code == 400
    with server.client() as client:
        client.completions.create(model="friendly", prompt=SECRET, max_tokens=4)
    log = server.log.read_text()
    assert not any(word in log for word in SECRET.split())


@pytest.mark.vllm
def test_fifty_promotes_under_six_writing_clients_lose_no_request(server: RunningServer):
    async def play() -> Counter[str]:
        models: Counter[str] = Counter()
        answered, done = asyncio.Event(), asyncio.Event()

        async def keep_writing(client: openai.AsyncOpenAI, number: int) -> None:
            while not done.is_set():
                messages = [{"role": "user", "content": f"Letter {number}.{models.total()}"}]
                answer = await client.chat.completions.create(model="formal", messages=messages, max_tokens=8)
                models[answer.model] += 1
                answered.set()

        async with server.async_client() as client, asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(keep_writing(client, number))
            for promotion in range(50):
                server.store.promote(f"formal@{2 - promotion % 2}")
                answered.clear()
                await answered.wait()
            done.set()
        return models

    models = asyncio.run(play())
    assert set(models) == {"formal@1", "formal@2"}
    assert models.total() >= 50
    assert server.store.promoted("formal").number == 1


@pytest.mark.vllm
def test_the_log_says_how_long_each_phase_of_the_start_took(server: RunningServer):
    seconds = r"\d+\.\d"
    phases = ["imports", "LoRA's arithmetic", "base model", "arguments", "engine", "routes"]
    line = rf"^ready    after {seconds} s: {', '.join(f'{phase} {seconds}' for phase in phases)}$"
    assert re.search(line, server.log.read_text(), re.MULTILINE)
