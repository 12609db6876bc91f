import json
from pathlib import Path

import pytest

from tests.trainer import mailbox
from tests.trainer.mailbox import mbox, message
from trainer.cli import main
from trainer.data.examples import read_examples

Capture = pytest.CaptureFixture[str]


def trainer(*arguments: object) -> int:
    return main(["import", *map(str, arguments)])


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return mbox(tmp_path, [mailbox.long_line(), *mailbox.conversation_round(0)])


def test_a_mailbox_is_imported_and_what_was_left_out_is_said(box: Path, capsys: Capture):
    assert trainer(box, "--name", "bob") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "emails of bob@smith.example, the likeliest; --me ADDRESS names another, or more",
        "read 21, used 11 in 10 threads, 5 of them replies",
        "left out 4: not by me",
        "left out 1: unreadable",
        "left out 1: automatic: list or bulk mail",
        "left out 1: automatic: automatic answer",
        "left out 1: forward without own words",
        "left out 1: empty after quotes and signature",
        "left out 1: encrypted",
        "personal data replaced by invented values: none found; names stay",
        "next: trainer check bob.jsonl",
    ]
    assert f"{box}, message 1: its text is longer than 256 KiB" in printed.err
    assert "reading 100 %" in printed.err
    assert len(read_examples([Path("bob.jsonl")])) == 11


def test_the_report_is_json_if_asked(box: Path, capsys: Capture):
    assert trainer(box, "--name", "bob", "--me", "bob@smith.example", "--json", "--output", "b.jsonl") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["read"], report["used"], report["output"], report["me_guessed"]) == (21, 11, "b.jsonl", False)
    assert report["left_out"]["unreadable"] == 1
    assert report["problems"] == [f"{box}, message 1: its text is longer than 256 KiB"]


def test_no_text_of_an_email_is_in_the_report(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    canary = "the canary is yellow"
    file = mbox(tmp_path, [message(f"{canary} {n}.", Subject=canary) for n in range(3)] + [canary.encode()])
    assert trainer(file, "--name", "bob", "--json") == 0
    printed = capsys.readouterr()
    assert "canary" not in printed.out + printed.err


def test_a_file_that_is_there_is_not_overwritten_unless_told(box: Path, capsys: Capture):
    Path("bob.jsonl").write_text("mine")
    assert trainer(box, "--name", "bob") == 2
    assert capsys.readouterr().err.startswith("error: bob.jsonl is there already\nhint: --force overwrites it")
    assert Path("bob.jsonl").read_text() == "mine"
    assert trainer(box, "--name", "bob", "--force") == 0
    assert len(read_examples([Path("bob.jsonl")])) == 11


def test_ctrl_c_leaves_no_file(box: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    assert trainer(box, "--name", "bob") == 130
    assert list(box.parent.iterdir()) == [box]


def test_columns_and_privacy_are_told(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("Betreff,Inhalt\nOars,Write to pavel@marsh.example about it.\n")
    assert trainer("t.csv", "--name", "bob", "--columns", "body=Inhalt,subject=Betreff", "--privacy", "mask") == 0
    assert "personal data masked: 3 address" in capsys.readouterr().out
    (example,) = read_examples([Path("bob.jsonl")])
    assert example.email == "Subject: Oars\n\nWrite to [EMAIL] about it."


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--name", "My Voice"], "'My Voice' is not a valid adapter name"),
        (["--name", "bob", "--describe-with", "http://127.0.0.1:1/v1"], "need each other"),
        (["--name", "bob", "--describe-with", "host", "--describe-model", "m"], "not an endpoint"),
        (["--name", "bob", "--columns", "x"], "cannot be read"),
        (["--name", "bob", "--me", "nobody@x.example"], "nothing in"),
    ],
)
def test_what_the_user_can_mend_is_an_error(box: Path, capsys: Capture, arguments: list[str], error: str):
    assert trainer(box, *arguments) == 2
    printed = capsys.readouterr()
    assert error in printed.err
    assert printed.out == ""
    assert not Path("bob.jsonl").exists()
