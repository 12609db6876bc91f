import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from adapters.errors import ConfigError, ServerProblem
from trainer.mail.importer import Draft, silent
from trainer.mail.task_model import described, describer, host, prompt
from trainer.mail.task_rules import Request

EMAIL = (
    "Subject: Boat\n\nHi Anna,\n\nI wanted to tell you that the boat will be here on 14 May and that it is red.\n\nBob"
)
DRAFT = Draft(Request("Write to Anna.", (("Anna",), ("14 May", "May 14"))), EMAIL, "t")
REPLY = Draft(Request("Answer Anna.", (), "When does it come?", "Anna"), EMAIL, "t")


class Endpoint(ThreadingHTTPServer):
    """Answers as OpenAI does: with `answer`, or with an error of `status`; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Any] = []
        self.status = 200
        self.asked: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answers[min(len(self.server.asked), len(self.server.answers) - 1)]
        self.server.asked.append((self.headers["Authorization"], body))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
        answered = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        data = json.dumps(answered if self.server.status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("MAILWRIGHT_API_KEY", raising=False)
    with Endpoint() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_every_email_is_described_and_the_user_is_told_first(endpoint: Endpoint):
    told: list[tuple[str, int]] = []
    endpoint.answers = ["Tell Anna that it comes on 14 May."]
    tasks = describer(endpoint.url, "m", lambda text: told.append((text, len(endpoint.asked))))([DRAFT] * 20, silent)
    assert tasks == ["Tell Anna that it comes on 14 May."] * 20
    assert told == [(f"sending 20 emails to {host(endpoint.url)}, for m to describe; Ctrl-C stops it", 0)]
    assert len(endpoint.asked) == 20
    key, body = endpoint.asked[0]
    assert key == "Bearer none"
    assert body["model"] == "m"
    assert EMAIL in body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"OPENAI_API_KEY": "sk-1", "MAILWRIGHT_API_KEY": "mw-2"}, "Bearer sk-1"),
        ({"MAILWRIGHT_API_KEY": "mw-2"}, "Bearer mw-2"),
    ],
)
def test_the_key_comes_from_the_environment(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], key: str
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    endpoint.answers = ["Tell Anna."]
    describer(endpoint.url, "m", print)([DRAFT], silent)
    assert endpoint.asked[0][0] == key


def test_an_answer_that_is_none_leaves_the_rule_and_each_task_its_place(endpoint: Endpoint):
    endpoint.answers = ["Tell Anna: 14 May.", None]
    tasks = describer(endpoint.url, "m", print)([DRAFT, DRAFT, DRAFT], silent)
    assert tasks == ["Tell Anna: 14 May.", None, None]


def test_an_endpoint_that_refuses_the_first_email_ends_the_import(endpoint: Endpoint):
    endpoint.answers, endpoint.status = ["x"], 401
    with pytest.raises(ServerProblem, match="AuthenticationError"):
        describer(endpoint.url, "m", print)([DRAFT, DRAFT], silent)
    assert len(endpoint.asked) == 1


def test_the_message_answered_is_shown_too():
    assert prompt(REPLY).endswith("\nWhen does it come?")
    assert "answers this message" not in prompt(DRAFT)


@pytest.mark.parametrize(
    ("answer", "task"),
    [
        ("Tell Anna it comes May 14.", "Tell Anna it comes May 14."),
        ('"Tell Anna it comes 14 May."\n', "Tell Anna it comes 14 May."),
        ("Tell her about the boat.", "Tell her about the boat. Mention Anna and 14 May."),
        ("", None),
        ("Say: I wanted to tell you that the boat will be here on 14 May and that it is red.", None),
    ],
)
def test_an_answer_becomes_a_task_with_every_fact_or_none(answer: str, task: str | None):
    assert described(answer, DRAFT) == task


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://", "http://me:secret@host.example/v1"])
def test_an_address_that_is_no_endpoint_is_refused_without_its_password(url: str):
    with pytest.raises(ConfigError) as caught:
        describer(url, "m", print)
    assert "secret" not in str(caught.value)
