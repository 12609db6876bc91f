"""The commands of the README and of docs/ work as they stand there, on a tiny base model."""

import itertools
import json
import shlex
import subprocess
from pathlib import Path

import pytest

import adapters.cli
import trainer.cli
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from server.launch import main
from server.settings import read
from tests import tiny
from tests.pages import COMMANDS, README, ROOT, commands
from ui.settings import read as read_for_page

RAN = {"trainer": trainer.cli.main, "adapters": adapters.cli.main}
CHECKED = {*RAN, "make", "server", "ui", "source", "export", "docker", "prometheus", "accelerate"}
ASKED = {"curl"}
"""tests/server/test_readme_example.py sends these to a server."""
SHORTER = {
    "estimate": ["--epochs", "1"],
    "sft": ["--epochs", "1"],
    "sweep": ["--steps", "5", "--rates", "1e-3,3e-3"],
    "compare-starts": ["--minutes", "0.01", "--sample-tokens", "8"],
    "evaluate": ["--tasks", "tasks.jsonl", "--server", "none"],
}
"""What is added to a command of the trainer, so that it takes seconds."""


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    assert len(text.encode()) <= 8 * 1024
    head = text.splitlines()[:25]
    assert any(line.startswith("make demo") for line in head)
    assert any(line.startswith("make test") for line in head)


def test_every_command_is_run_or_looked_at() -> None:
    assert {words[0] for words in COMMANDS} - CHECKED - ASKED == set()


@pytest.mark.parametrize("words", commands("make"), ids=shlex.join)
def test_every_make_target_exists(words: list[str]) -> None:
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [words for words in commands("server") if "keys" not in words], ids=shlex.join)
def test_every_server_command_is_understood(words: list[str]) -> None:
    assert read(words[1:], {}).host == "127.0.0.1"


def test_the_keys_commands_work_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    ran = [words[1:] for words in commands("server") if "keys" in words]
    assert [arguments[1] for arguments in ran] == ["create", "create", "list", "revoke"]
    assert [main(arguments) for arguments in ran] == [0] * len(ran)


@pytest.mark.parametrize("words", commands("ui"), ids=shlex.join)
def test_every_ui_command_is_understood(words: list[str]) -> None:
    assert read_for_page(words[1:], {}).host == "127.0.0.1"


def test_the_environment_is_the_one_that_setup_makes() -> None:
    assert commands("source") == [["source", ".venv/bin/activate"]]
    assert "VENV := .venv/bin\n" in (ROOT / "Makefile").read_text()


def test_the_files_and_variables_for_containers_and_prometheus_exist() -> None:
    words = [word for command in commands("docker", "prometheus") for word in command]
    files = [word.removeprefix("--config.file=") for word in words if word.startswith("--config.file=")]
    files += [file for before, file in itertools.pairwise(words) if before == "-f"]
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []
    exported = {word.partition("=")[0] for command in commands("export") for word in command[1:]}
    composed = (ROOT / "deploy/compose.yaml").read_text()
    assert [name for name in exported if f"${{{name}:" not in composed] == []


@pytest.mark.parametrize("words", commands("accelerate"), ids=shlex.join)
def test_several_processes_run_the_trainers_own_module(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = words[words.index("-m") + 2 :]
    assert words[words.index("-m") + 1] == trainer.cli.__name__
    with pytest.raises(SystemExit):
        trainer.cli.main([arguments[0], "--help"])
    shown = capsys.readouterr().out
    assert [flag for flag in arguments if flag.startswith("--") and f"{flag} " not in shown] == []


def sent_email(number: int) -> str:
    thing = ["lamp", "chair", "ladder", "kettle", "violin", "compass", "blanket", "lantern", "barrel", "anchor"][
        number % 10
    ]
    place = ["attic", "harbour", "kitchen", "library", "workshop", "garden", "station"][number % 7]
    return f"""From kim@berg.example Mon Jun  3 10:00:00 2024
From: Kim <kim@berg.example>
To: Ada <ada{number}@sea.example>
Subject: The {thing}
Message-ID: <{number}@berg.example>

Hi Ada,

the {thing} is in the {place} since {number + 8} May, and everybody there likes the {thing}.

Best,
Kim
"""


@pytest.fixture
def at_home(base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a mailbox and with the files that the pages name, and a store with `formal`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("Sent.mbox").write_text("\n".join(map(sent_email, range(12))))
    rows = [
        {"task": f"Tell Ada about the {number} lamps.", "email": f"Dear Ada,\n\nthe {number} lamps shine.\n\nKim"}
        for number in range(3, 12)
    ]
    Path("twenty.jsonl").write_text("\n".join(map(json.dumps, rows[:6])))
    Path("eight.jsonl").write_text("\n".join(map(json.dumps, rows[6:])))
    facts = [row | {"id": f"lamps-{place}", "facts": [["lamps"]]} for place, row in enumerate(rows[:2])]
    Path("tasks.jsonl").write_text("\n".join(map(json.dumps, facts)))
    for seed in (1, 2):
        tiny.publish(Store(tmp_path / "store"), base_model, "formal", seed)
    return tmp_path


@pytest.mark.training
@pytest.mark.timeout(900)
def test_the_commands_of_the_trainer_and_the_store_work_one_after_the_other(
    at_home: Path, base_model: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = commands(*RAN)
    for program, *arguments in ran:
        based = ["--base", str(base_model.path)] if arguments[0] in SHORTER else []
        status = RAN[program]([*arguments, *based, *shorter(arguments)])
        # A sweep of a random model may well find no rate that is just right, which is its status 1.
        assert status == 0 or (arguments[0] == "sweep" and status == 1), f"{arguments}: {capsys.readouterr().err}"
    assert {arguments[0] for _, *arguments in ran} == {
        *("import", "check", "estimate", "sft", "sweep", "compare-starts", "evaluate"),
        *("list", "show", "promote", "rollback", "label", "retire", "gc", "verify", "export", "audit", "base"),
    }


def shorter(arguments: list[str]) -> list[str]:
    """What makes a command of the trainer quick; a run whose epochs the page counts keeps them."""
    added = SHORTER.get(arguments[0], [])
    return added[2:] if "--epochs" in arguments else added
