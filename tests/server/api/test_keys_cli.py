"""`server keys`, as it is typed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.store.audit import Audit
from server.api.keys import Keys, digest
from server.launch import main


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def test_a_key_is_made_listed_and_revoked(store: Path, capsys: pytest.CaptureFixture[str]):
    limits = ["--expires", "90d", "--requests-per-minute", "60", "--streams", "4", "--drafts", "0"]
    assert main(["keys", "create", "--name", "crm", "--models", "formal*, base", *limits]) == 0
    token = capsys.readouterr().out.split()[0]
    (key,) = Keys(store).all()
    assert key.sha256 == digest(token)
    assert key.models == ("formal*", "base")
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"crm +active +infer +formal\*, base +60 +4 +0 +20\d\d-", listed)
    assert token not in listed
    assert main(["keys", "revoke", "crm"]) == 0
    capsys.readouterr()
    main(["keys", "list", "--json"])
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["state"], "sha256" in shown) == ("crm", "revoked", False)


def test_making_and_revoking_are_in_the_audit_log_without_the_key(store: Path, capsys: pytest.CaptureFixture[str]):
    main(["keys", "create", "--name", "crm", "--json"])
    token = json.loads(capsys.readouterr().out)["key"]
    main(["keys", "revoke", "crm"])
    entries = Audit(store).entries(10)
    assert [(entry["what"], entry["key_name"]) for entry in entries] == [("key created", "crm"), ("key revoked", "crm")]
    assert all(entry["who"].startswith("user ") for entry in entries)
    assert token not in Audit(store).file.read_text()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["create"], "--name"),
        (["create", "--name", "a", "--scope", "root"], "root"),
        (["create", "--name", "a", "--models", "../x"], "../x"),
        (["create", "--name", "a", "--expires", "soon"], "soon"),
        (["create", "--name", "a", "--streams", "0"], "--streams must be 1 to 1,000,000, got 0"),
        (["revoke", "nobody"], "nobody"),
        (["frobnicate"], "frobnicate"),
        ([], "COMMAND"),
    ],
)
def test_what_cannot_be_is_an_error_with_a_hint(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
):
    assert main(["keys", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert error in said
    assert "hint: " in said
    assert not store.exists()


def test_help_is_there_at_once_and_has_examples():
    shown = subprocess.run(
        [sys.executable, "-m", "server.launch", "keys", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "server keys create --name phone" in shown.stdout
