"""A canary in everything that a client can send turns up in nothing that the server writes: log, metrics, traces, audit
log, keys, errors; at the lowest log level, and also when the engine dies in the middle of an answer."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from server.api.keys import Keys, Order
from tests import tiny
from tests.serving import RunningServer, running_server

CANARY = "canary7f3a"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {CANARY: {"type": "string", "maxLength": 5}}, "required": [CANARY]}
SAID = [{"role": "user", "content": f"Dear {CANARY},"}]


class Collector(BaseHTTPRequestHandler):
    """Takes the spans that OpenTelemetry exports."""

    def do_POST(self) -> None:
        self.server.spans.append(self.rfile.read(int(self.headers["content-length"])))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[tuple[str, list[bytes]]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.spans = []  # type: ignore[attr-defined]
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{collector.server_port}/v1/traces", collector.spans  # type: ignore[attr-defined]
        collector.shutdown()


class Client:
    """Sends the canary everywhere, and keeps the errors that come back for it."""

    def __init__(self, server: RunningServer, token: str) -> None:
        self._url = server.url
        self._headers = {
            "Authorization": f"Bearer {token}",
            "X-Request-Id": CANARY,
            "User-Agent": CANARY,
            "Cookie": f"session={CANARY}",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "tracestate": f"{CANARY}=1",
            "X-Session-Id": CANARY,
            "Referer": f"http://{CANARY}",
        }
        self.errors: list[str] = []

    def send(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        sent = {**self._headers, **(headers or {})}
        answer = httpx.request(method, f"{self._url}{path}", headers=sent, timeout=120, **options)
        if not answer.is_success:
            self.errors.append(answer.text)
        return answer

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.send("POST", path, json={"model": "formal", "max_tokens": 4} | fields)


def say_it_everywhere(client: Client) -> None:
    """What succeeds, what vLLM refuses, and what is refused before it."""
    assert client.post(COMPLETIONS, prompt=f"Dear {CANARY}", echo=True, max_tokens=20).is_success
    assert client.post(CHAT, messages=SAID, user=CANARY, stop=[CANARY], metadata={CANARY: CANARY}).is_success
    assert client.post(CHAT, messages=SAID, stream=True, logprobs=True, top_logprobs=2).is_success
    assert client.post("/v1/messages", messages=SAID, system=CANARY).is_success
    assert client.send("POST", "/v1/responses", json={"model": "formal", "input": CANARY, "max_output_tokens": 4})
    wanted = {"type": "json_schema", "json_schema": {"name": CANARY, "schema": SCHEMA}}
    assert client.post(CHAT, messages=SAID, max_tokens=60, response_format=wanted).is_success
    refused = [
        *({"messages": CANARY}, {"messages": SAID, "temperature": CANARY}, {"messages": [{"role": CANARY}]}),
        *({"messages": SAID, "seed": [CANARY]}, {"messages": SAID, "n": CANARY}),
        *({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}]},),
        *({"messages": SAID, "response_format": {"type": CANARY}}, {"messages": SAID, "tools": [{"x": CANARY}]}),
        {"messages": SAID * 200},
    ]
    for fields in refused:
        assert 400 <= client.post(CHAT, **fields).status_code < 500, fields
    client.post("/v1/messages", messages=CANARY)
    client.send("POST", "/v1/responses", json={"model": "formal", "input": [{"type": CANARY}], "store": CANARY})
    for body in (CANARY, f'{{"model": "formal", "{CANARY}', f'"{CANARY}"', f'{{"{CANARY}": "\\ud800"}}'):
        client.send("POST", CHAT, headers={"content-type": "application/json"}, content=body)
    client.send("POST", CHAT, headers={"content-type": CANARY}, content="{}")
    client.send("GET", "/v1/models", headers={"Authorization": f"Bearer {CANARY}"})


def name_it(client: Client) -> None:
    """Names, paths, fields and schemas: an error may say these to whoever sent them, and to nobody else."""
    client.post(CHAT, model=CANARY, messages=SAID)
    client.post(CHAT, model=f"formal@{CANARY}", messages=SAID)
    client.post(CHAT, **{CANARY: 1})
    client.post(CHAT, messages=SAID, logit_bias={CANARY: 1})
    wrong = {"name": "email", "schema": {"type": CANARY}}
    client.post(CHAT, messages=SAID, response_format={"type": "json_schema", "json_schema": wrong})
    client.send("GET", f"/v1/models/{CANARY}")
    client.send("GET", f"/{CANARY}?{CANARY}={CANARY}")
    client.send("GET", f"/v1/models?versions={CANARY}")
    client.send("POST", f"/v1/adapters/{CANARY}/load")
    client.send("POST", "/v1/adapters/formal@1/promote", json={CANARY: CANARY})


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_what_people_send_is_in_nothing_that_the_server_writes(base_model: BaseModel, tmp_path: Path):
    store = Store(tmp_path / "store")
    tiny.publish(store, base_model, "formal", 1)
    _, token = Keys(store.directory).create(Order("app", scopes=("infer", "admin", "metrics")))
    log = tmp_path / "server.log"
    debug = {"VLLM_LOGGING_LEVEL": "DEBUG", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    # This server alone has a process for its worker, and binds its threads as vLLM does.
    debug |= {"VLLM_CPU_OMP_THREADS_BIND": "auto"}
    with collecting() as (traces, spans):
        arguments = ["--debug", "--", "--otlp-traces-endpoint", traces, "--uvicorn-log-level", "trace"]
        with running_server(base_model, store, 4, log, arguments=arguments, **debug) as server:
            limits = Path(f"/proc/{server.process.pid}/limits").read_text()
            assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
            client = Client(server, token)
            say_it_everywhere(client)
            errors = "\n".join(client.errors)
            name_it(client)
            metrics = client.send("GET", "/metrics").text
            kill_worker_in_an_answer(server, client)
    written = log.read_text()
    assert "DEBUG" in written
    assert "Dumping scheduler output" in written
    assert spans
    assert metrics.count("mailwright_requests_total") > 1
    files = {str(file): file.read_text() for file in (store.directory / "audit.jsonl", store.directory / "keys.json")}
    for where, text in {"log": written, "metrics": metrics, "errors": errors, **files}.items():
        assert CANARY not in text, f"{where}: {lines_with_canary(text)}"
        assert token not in text
        assert token.split("-", 2)[2] not in text
    assert not any(CANARY.encode() in span or token.encode() in span for span in spans)


def kill_worker_in_an_answer(server: RunningServer, client: Client) -> None:
    """So that the engine writes down what it was doing; the server ends."""
    engine = psutil.Process(server.process.pid).children(recursive=True)
    # Longer than it takes to find the worker, on a busy machine too.
    length = {"max_tokens": 1900, "n": 8, "temperature": 1, "ignore_eos": True}
    body = {"model": "formal", "messages": SAID, "stop": [CANARY], "stream": True} | length
    headers = client._headers
    with httpx.stream("POST", f"{server.url}{CHAT}", headers=headers, json=body) as answer:
        events = answer.iter_lines()
        next(events)
        for process in engine:
            if "Worker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGABRT)
        last = [line for line in events if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"]
    assert server.process.wait(60) == 1


def lines_with_canary(text: str) -> list[str]:
    return [line[:300] for line in text.splitlines() if CANARY in line][:5]
