"""The console script: what it says when it starts, and when it cannot."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import ROOT
from tests.ui.conftest import RunningPage
from ui.site import main


def test_a_port_that_is_taken_is_said_with_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "ui.site", "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
    assert "hint: give another --port" in done.stderr


def test_a_flag_that_does_not_exist_is_an_error_and_no_traceback(capsys: pytest.CaptureFixture[str]):
    assert main(["--sever", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.browser
def test_it_prints_its_address_the_server_and_where_kept_emails_go(page_process: RunningPage):
    rows = dict(line.split(maxsplit=1) for line in page_process.log.read_text().splitlines())
    assert rows["page"] == page_process.url
    assert rows["server"].endswith("/v1")
    assert Path(rows["kept"]) == page_process.kept
