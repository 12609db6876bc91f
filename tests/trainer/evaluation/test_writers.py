"""The real peft and transformers on a tiny random Llama, and a server that answers as Mailwright's does."""

import json
import math
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from adapters.errors import ServerProblem
from adapters.store.store import Store
from tests.serving import RunningServer
from trainer.evaluation import writers
from trainer.evaluation.results import Answer
from trainer.evaluation.writers import BASE, InProcess, ThroughServer, reason_against_server, server_address

PROMPTS = [[{"role": "user", "content": text}] for text in ("Hi", "Thank Ada for the 12 chairs.", "Greet Bo.")]


@pytest.fixture(scope="module")
def process(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    from tests import tiny

    directory = tmp_path_factory.mktemp("adapters")
    adapters = {f"formal@{n}": tiny.make_adapter(tiny_base, directory / str(n), seed=n) for n in (1, 2)}
    return InProcess(tiny_base, adapters)


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "MAX_NEW_TOKENS", 12)


def texts(process: InProcess, model: str, seed: int | None = None) -> list[str]:
    return [written.text for written in process.write(model, PROMPTS, seed, lambda _: None)]


def test_the_base_model_and_each_version_write_for_themselves_in_any_order(process: InProcess):
    first = {model: texts(process, model) for model in (BASE, "formal@1", "formal@2")}
    again = {model: texts(process, model) for model in ("formal@2", BASE, "formal@1")}
    assert first == again
    assert len({tuple(written) for written in first.values()}) == 3


def test_answers_do_not_depend_on_their_batch(process: InProcess, monkeypatch: pytest.MonkeyPatch):
    together = texts(process, "formal@1")
    monkeypatch.setattr(writers, "BATCH_PROMPTS", 1)
    assert texts(process, "formal@1") == together


def test_a_seed_samples_and_gives_the_same_answers_again(process: InProcess):
    assert texts(process, BASE, seed=1) == texts(process, BASE, seed=1)
    assert len({tuple(texts(process, BASE, seed)) for seed in (None, 1, 2)}) == 3


def test_what_is_written_adds_up_to_the_emails(process: InProcess):
    steps: list[float] = []
    process.write(BASE, PROMPTS, None, steps.append)
    assert sum(steps) == pytest.approx(3)
    assert len(steps) > 3


def test_an_answer_has_whether_it_ended_by_itself(process: InProcess, monkeypatch: pytest.MonkeyPatch):
    assert [written.ended for written in process.write(BASE, PROMPTS, None, lambda _: None)] == [False] * 3
    every = set(range(200))
    monkeypatch.setattr(process, "_ends", every)
    assert [written.ended for written in process.write(BASE, PROMPTS, None, lambda _: None)] == [True] * 3


def test_a_loss_is_of_the_text_and_its_end_and_not_of_the_prompt(process: InProcess):
    steps: list[float] = []
    losses = process.losses(BASE, PROMPTS, ["Hi Ada", "Bo", "Hello"], steps.append)
    assert [loss.tokens for loss in losses] == [7, 3, 6]
    assert sum(steps) == 3
    (alone,) = process.losses(BASE, PROMPTS[1:2], ["Bo"], lambda _: None)
    assert alone.nats == pytest.approx(losses[1].nats, rel=1e-3)
    assert process.losses("formal@1", PROMPTS[1:2], ["Bo"], lambda _: None)[0].nats != pytest.approx(alone.nats)


def test_the_text_that_a_model_writes_has_the_least_loss(process: InProcess):
    """Greedy text against the same shuffled: a loss that is off by one position would not tell them apart."""
    told = texts(process, BASE)
    own = process.losses(BASE, PROMPTS, told, lambda _: None)
    turned = process.losses(BASE, PROMPTS, [text[::-1] for text in told], lambda _: None)
    assert sum(loss.nats for loss in own) < sum(loss.nats for loss in turned) / 2
    assert all(math.isfinite(loss.nats) for loss in own)


class Server(ThreadingHTTPServer):
    """Answers as Mailwright's server: `cards` is what it lists; `refuse` a status for every chat."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.cards: list[dict[str, str]] = []
        self.refuse = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        found = {"/health": {}, "/v1/models?versions=all": {"data": self.server.cards}}.get(self.path)
        self._answer(404 if found is None else 200, found)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        text = f" {body['model']}: {body['messages'][-1]['content']} "
        choice = {"index": 0, "finish_reason": "stop" if "Bo" in text else "length"}
        message = {"role": "assistant", "content": text}
        full = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        self._answer(self.server.refuse or 200, full | {"choices": [choice | {"message": message}]})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(store: Store) -> Iterator[Server]:
    server = Server()
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.cards = [
        {"id": "base", "root": "tiny-llama"},
        *({"id": version.id, "digest": version.digest} for version in store.versions("formal")),
    ]
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_gets_the_exact_version_and_answers_stay_in_order(served: Server):
    done: list[float] = []
    writer = ThroughServer(served.address)
    assert writer.write("formal@2", PROMPTS, None, done.append) == [
        Answer("formal@2: Hi", False),
        Answer("formal@2: Thank Ada for the 12 chairs.", False),
        Answer("formal@2: Greet Bo.", True),
    ]
    assert done == [1, 1, 1]
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in served.asked} == {("formal@2", 0, 12)}
    assert all("seed" not in body for body in served.asked)
    assert writer.losses(BASE, PROMPTS, ["a", "b", "c"], done.append) == []
    assert writer.forgetting("formal@2", "sha256:0", done.append) == {}


def test_a_seed_gives_each_request_its_own_and_the_same_every_time(served: Server):
    writer = ThroughServer(served.address)
    runs = []
    for _ in range(2):
        served.asked.clear()
        writer.write(BASE, PROMPTS, 7, lambda _: None)
        runs.append({(body["messages"][0]["content"], body["seed"], body["temperature"]) for body in served.asked})
    assert runs[0] == runs[1]
    assert len({seed for _, seed, _ in runs[0]}) == 3
    assert {temperature for *_, temperature in runs[0]} == {0.7}


def test_a_server_that_refuses_is_an_error_with_a_way_out(served: Server):
    served.refuse = 404
    with pytest.raises(ServerProblem, match="did not answer for formal@9") as caught:
        ThroughServer(served.address).write("formal@9", PROMPTS, None, lambda _: None)
    assert "--server none" in caught.value.hint


def test_a_server_fits_that_knows_every_version_and_the_base_model(served: Server, store: Store):
    assert reason_against_server(served.address, store.versions("formal"), "tiny-llama") == ""


def test_a_server_does_not_fit_where_anything_differs(served: Server, store: Store):
    versions = store.versions("formal")
    assert "serves the base model tiny-llama, not big-llama" in reason_against_server(
        served.address, versions, "big-llama"
    )
    assert "does not know friendly@1" in reason_against_server(served.address, store.versions("friendly"), "tiny-llama")
    served.cards[1]["digest"] = "0" * 12
    assert "does not know formal@1" in reason_against_server(served.address, versions, "tiny-llama")
    assert "does not know formal@2" not in reason_against_server(served.address, versions, "tiny-llama")
    served.cards = []
    assert "serves the base model None" in reason_against_server(served.address, versions, "tiny-llama")


@pytest.mark.vllm
@pytest.mark.usefixtures("float32")
def test_the_real_server_writes_what_this_process_writes(server: RunningServer):
    versions = server.store.versions("formal")
    assert reason_against_server(server.url, versions, server.base.name) == ""
    here = InProcess(server.base.path, {version.id: version.path for version in versions})
    there = ThroughServer(server.url)
    for model in (BASE, *(version.id for version in versions)):
        expected = [answer.text[:8] for answer in here.write(model, PROMPTS, None, lambda _: None)]
        assert [answer.text[:8] for answer in there.write(model, PROMPTS, None, lambda _: None)] == expected
    assert there.write(BASE, PROMPTS, 7, lambda _: None) == there.write(BASE, PROMPTS, 7, lambda _: None)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "nonsense", "http://", "http://[::1"])
def test_without_a_server_that_is_the_reason(address: str):
    assert reason_against_server(address, [], "tiny-llama").startswith(f"no Mailwright server answers at {address}")


@pytest.mark.parametrize("text", ["http://a:1", "http://a:1/", "http://a:1/v1", " http://a:1/v1/ "])
def test_an_address_is_the_same_with_and_without_v1(text: str):
    assert server_address(text) == "http://a:1"
