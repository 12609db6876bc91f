"""The README's commands work as they stand there, on a tiny base model."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.base_model import BaseModel
from adapters.store import Store
from server.launch import main
from server.settings import read
from tests import tiny
from ui.settings import read as read_for_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.split("#")[0].strip()]


def commands(program: str) -> list[str]:
    return [command for command in COMMANDS if shlex.split(command)[0] == program]


def test_the_two_commands_stand_in_the_first_25_lines() -> None:
    head = README.splitlines()[:25]
    assert any(line.startswith("make demo") for line in head)
    assert any(line.startswith("make test") for line in head)


@pytest.mark.parametrize("command", commands("make"))
def test_every_make_target_exists(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [command for command in commands("server") if "keys" not in command])
def test_every_server_command_is_understood(command: str) -> None:
    assert read(shlex.split(command)[1:], {}).host == "127.0.0.1"


def test_the_keys_commands_work_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    ran = [shlex.split(command)[1:] for command in commands("server") if "keys" in command]
    assert [arguments[1] for arguments in ran] == ["create", "create", "list", "revoke"]
    assert [main(arguments) for arguments in ran] == [0] * len(ran)


@pytest.mark.parametrize("command", commands("ui"))
def test_every_ui_command_is_understood(command: str) -> None:
    assert read_for_page(shlex.split(command)[1:], {}).host == "127.0.0.1"


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


@pytest.mark.training
@pytest.mark.timeout(600)
def test_the_way_to_a_voice_of_your_own_and_to_its_next_version(base_model: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "Sent.mbox").write_text("\n".join(map(sent_email, range(12))))
    environment = os.environ | {"MAILWRIGHT_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    for seed in (1, 2):
        tiny.publish(Store(tmp_path / "store"), base_model, "formal", seed)
    ran = [command for command in COMMANDS if shlex.split(command)[0] in ("trainer", "adapters")]
    for command in ran:
        program, *arguments = shlex.split(command)
        if program == "trainer" and arguments[0] in ("estimate", "sft"):
            arguments += ["--base", str(base_model.path), "--epochs", "1", "--practice", "0"]
        done = subprocess.run(
            [Path(sys.executable).parent / program, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    named = {shlex.split(command)[1] for command in ran}
    assert named == {
        *("import", "check", "estimate", "sft", "list", "show", "promote", "rollback", "label"),
        *("retire", "gc", "verify", "export", "audit"),
    }


def test_every_environment_setting_is_in_the_table() -> None:
    folders = ("adapters", "server", "trainer", "ui")
    sources = "\n".join(file.read_text() for folder in folders for file in (ROOT / folder).glob("*.py"))
    for setting in set(re.findall(r"MAILWRIGHT_[A-Z_]+", sources)):
        assert f"`{setting}`" in README
