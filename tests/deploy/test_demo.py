import json
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def answer(demo: ModuleType, text: str = "Dear Ada,\n\nThank you.", tokens: int = 12):
    return demo.Answer("formal@1", text, tokens, 0.456, 81.6)


def test_a_column_has_a_head_and_the_answer_below_it(demo: ModuleType):
    lines = demo.column(answer(demo), 34)
    assert lines[:3] == ["formal@1", "first token 0.46 s, 82 tokens/s", "-" * 34]
    assert lines[3:] == ["Dear Ada,", "", "Thank you.", ""]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.integers(34, 60))
def test_no_line_of_a_column_is_wider_than_the_column(demo: ModuleType, text: str, width: int):
    lines = demo.column(answer(demo, text), width)
    assert max(map(len, lines)) <= width
    assert "".join("".join(lines[3:]).split()) == "".join(text.split())


def test_an_answer_that_was_cut_says_so(demo: ModuleType):
    assert demo.column(answer(demo, tokens=demo.MAX_TOKENS), 34)[-2] == "... (cut at 256 tokens)"


def test_below_an_email_stands_what_it_keeps_misses_and_invents(demo: ModuleType):
    task = demo.compared_tasks()[0]
    text = (
        "Dear Mr Wieczorek,\n\nthe flute assessment is on Wednesday 4 June, not Monday 2 June. It costs £30.\n\nNkechi"
    )
    found = demo.findings(task, text)
    assert found == ("keeps 5 of 7 facts", "misses: 5:40 pm, studio 6", "invents: £30")
    assert demo.column(replace(answer(demo), findings=found), 60)[-3:] == [f"* {each}" for each in found]
    assert demo.findings(task, task.task)[0] == "keeps 7 of 7 facts"


def test_the_demo_shows_three_tasks(demo: ModuleType):
    assert [task.id for task in demo.compared_tasks()] == ["heldout-02", "heldout-18", "heldout-25"]


def test_the_answers_stand_side_by_side(demo: ModuleType, capsys: Capture):
    answers = [answer(demo, "one"), answer(demo, "two\nthree"), answer(demo, "four")]
    demo.show("Thank Ada.", answers)
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert rows[0] == ["formal@1"] * 3
    assert rows[3:5] == [["one", "two", "four"], ["", "three", ""]]


def test_the_task_and_a_curl_line_are_shown(demo: ModuleType, capsys: Capture, monkeypatch: Patch):
    monkeypatch.setattr(demo.shutil, "which", lambda _: None)
    demo.show("Thank Ada.", [answer(demo)])
    demo.show_curl(8123)
    shown = capsys.readouterr().out
    assert "  Thank Ada." in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("curl ")]
    assert "http://127.0.0.1:8123/v1/chat/completions" in line
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {line[5:]}"], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(words.splitlines()[-1])["model"] == "formal"


class Guarded(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == "Bearer it's a secret"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b'{"choices": []}' if known else b"{}")

    def log_message(self, *_: object) -> None: ...


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_line_sends_the_operators_key_without_showing_it(
    demo: ModuleType, capsys: Capture, monkeypatch: Patch
):
    monkeypatch.setenv("MAILWRIGHT_API_KEY", "it's a secret")
    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        demo.show_curl(server.server_port)
    assert "secret" not in capsys.readouterr().out


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_the_demo_sends_none(demo: ModuleType, capsys: Capture, monkeypatch: Patch, key: str | None):
    monkeypatch.delenv("MAILWRIGHT_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("MAILWRIGHT_API_KEY", key)
    monkeypatch.setattr(demo.shutil, "which", lambda _: None)
    demo.show_curl(8123)
    assert "Authorization" not in capsys.readouterr().out


def test_an_empty_key_is_none(demo: ModuleType, monkeypatch: Patch):
    monkeypatch.setenv("MAILWRIGHT_API_KEY", "")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(demo.StepFailed, match="formal did not answer: Error code: 401"):
            demo.write(server.server_port, "formal", demo.compared_tasks()[0])


def test_a_curl_line_that_does_not_work_fails_the_demo(demo: ModuleType, monkeypatch: Patch):
    monkeypatch.setattr(
        demo.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 7, "", "refused")
    )
    monkeypatch.setattr(demo.shutil, "which", lambda _: "/usr/bin/curl")
    with pytest.raises(demo.StepFailed, match=r"exit status 7.*refused"):
        demo.show_curl(8123)


def test_a_free_port_is_taken_as_wished(demo: ModuleType):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert demo.free_port(port) == port


def test_a_port_in_use_is_passed_over(demo: ModuleType):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port < demo.free_port(port) < port + 100


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_a_server_answers_when_its_health_does(demo: ModuleType, status: int, healthy: bool):
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        server.status = status
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert demo.answers(f"http://127.0.0.1:{server.server_port}/health") is healthy


def test_nothing_answers_on_an_unused_port(demo: ModuleType):
    assert demo.answers(f"http://127.0.0.1:{demo.free_port(20000)}/") is False


class Scripts:
    """Stands for `trainer` and `adapters`: what was run, and what they print."""

    def __init__(self, demo: ModuleType, monkeypatch: Patch, failing: str = "") -> None:
        self.demo, self.failing = demo, failing
        self.runs: list[list[str]] = []
        monkeypatch.setattr(demo.subprocess, "run", self.run)

    def run(self, command: list[object], **_: object) -> subprocess.CompletedProcess[str]:
        words = [str(word).rpartition("/")[2] for word in command[:2]]
        self.runs.append(words)
        if words[0] == self.failing:
            return subprocess.CompletedProcess(command, 2, "", "error: no")
        (self.demo.STORE / "formal").mkdir(parents=True, exist_ok=True)
        (self.demo.STORE / "formal" / "pointers.json").write_text('{"promoted": 1}')
        version = {"id": "formal@1", "training": {"seconds": 1.0}}
        return subprocess.CompletedProcess(command, 0, json.dumps(version), "")


def test_a_voice_is_taught_promoted_and_reused_the_next_time(demo: ModuleType, monkeypatch: Patch, capsys: Capture):
    scripts = Scripts(demo, monkeypatch)
    demo.teach("formal", "tiny")
    assert scripts.runs == [["trainer", "sft"], ["adapters", "promote"]]
    demo.teach("formal", "tiny")
    assert len(scripts.runs) == 2
    assert capsys.readouterr().err.endswith("voice formal: taught before, reused\n")


def test_a_voice_is_taught_again_when_its_store_is_gone(demo: ModuleType, monkeypatch: Patch):
    scripts = Scripts(demo, monkeypatch)
    demo.teach("formal", "tiny")
    (demo.STORE / "formal" / "pointers.json").unlink()
    demo.teach("formal", "tiny")
    assert len(scripts.runs) == 4


def test_a_voice_is_taught_again_for_another_base_model(demo: ModuleType, monkeypatch: Patch):
    scripts = Scripts(demo, monkeypatch)
    demo.teach("formal", "tiny")
    demo.teach("formal", "another")
    assert len(scripts.runs) == 4


@pytest.mark.parametrize(
    "changed",
    [
        "trainer/data/shipped/voices/formal.jsonl",
        "trainer/mail/phrases.yaml",
        "trainer/training/recipes/quick.yaml",
        "trainer/training/sft.py",
        "adapters/emails/prompts.py",
    ],
)
def test_a_voice_is_taught_again_when_what_teaches_it_changes(
    demo: ModuleType, monkeypatch: Patch, tmp_path: Path, changed: str
):
    shutil.copytree(demo.ROOT / "trainer", tmp_path / "trainer")
    shutil.copytree(demo.ROOT / "adapters", tmp_path / "adapters")
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    scripts = Scripts(demo, monkeypatch)
    demo.teach("formal", "tiny")
    (tmp_path / "trainer/__pycache__").mkdir(exist_ok=True)
    (tmp_path / "trainer/__pycache__/sft.cpython-311.pyc").write_bytes(b"compiled")
    demo.teach("formal", "tiny")
    assert len(scripts.runs) == 2
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    demo.teach("formal", "tiny")
    assert len(scripts.runs) == 4


def test_the_demo_takes_the_packaged_base_model_where_there_is_no_gpu(demo: ModuleType, monkeypatch: Patch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert demo.default_base() == "smollm2-135m-instruct"


@pytest.mark.parametrize(
    ("script", "sentence"), [("trainer", "teaching the voice formal failed"), ("adapters", "promoting formal@1 failed")]
)
def test_a_step_that_fails_says_which_and_is_not_taken_for_done(
    demo: ModuleType, monkeypatch: Patch, script: str, sentence: str
):
    Scripts(demo, monkeypatch, failing=script)
    with pytest.raises(demo.StepFailed, match=sentence):
        demo.teach("formal", "tiny")
    assert not (demo.DEMO / "formal.taught").exists()


def test_the_demo_fails_with_status_1_and_a_sentence(demo: ModuleType, monkeypatch: Patch, capsys: Capture):
    Scripts(demo, monkeypatch, failing="trainer")
    monkeypatch.setattr(sys, "argv", ["demo.py", "--check"])
    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)
    assert demo.main() == 1
    assert "error: teaching the voice formal failed" in capsys.readouterr().err


def test_a_server_that_ends_at_once_fails_the_demo_with_its_last_words(demo: ModuleType, monkeypatch: Patch, tmp_path):
    (tmp_path / "server").write_text("#!/bin/sh\necho 'error: no base model'\nexit 2\n")
    (tmp_path / "server").chmod(0o755)
    monkeypatch.setattr(demo, "SCRIPTS", tmp_path)
    with pytest.raises(demo.StepFailed, match=r"did not start:\n  error: no base model\nhint: .*server\.log"):
        demo.start("server", [], f"http://127.0.0.1:{demo.free_port(21000)}/health")


def test_stop_ends_the_server_and_its_children(demo: ModuleType):
    script = "sleep 600 & echo started; wait"
    server = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdout
    assert server.stdout.readline() == b"started\n"
    demo.stop(server)
    assert server.poll() is not None
    # The child held the other end of this pipe.
    assert server.stdout.read() == b""
    server.stdout.close()


@pytest.mark.parametrize("ending", ["server", "ui"])
def test_a_part_that_ends_by_itself_is_named_with_its_log(demo: ModuleType, tmp_path: Path, ending: str):
    started = []
    for name in ("server", "ui"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{'exit 3' if name == ending else 'exec sleep 600'}\n")
        (tmp_path / name).chmod(0o755)
        started.append(subprocess.Popen([tmp_path / name], start_new_session=True))
    with pytest.raises(demo.StepFailed, match=rf"{ending} ended by itself \(exit status 3\)\nhint: .*{ending}\.log"):
        demo.wait(started, check=False)
    for process in started:
        demo.stop(process)


def test_the_base_model_and_both_voices_write_each_task(demo: ModuleType, monkeypatch: Patch):
    monkeypatch.setattr(demo, "write", lambda port, model, task: model)
    assert demo.compare(demo.compared_tasks()[0], 8000) == ["base", "formal", "friendly"]
