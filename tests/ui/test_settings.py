"""Flags and environment, and what the page refuses to start with."""

import subprocess
import sys
from pathlib import Path

import pytest

from adapters.errors import ConfigError
from ui.settings import read


def test_the_defaults_are_the_server_and_a_page_on_this_machine(monkeypatch: pytest.MonkeyPatch):
    for name in ("MAILWRIGHT_KEPT", "MAILWRIGHT_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/from/xdg")
    settings = read([], {})
    assert settings.server == "http://127.0.0.1:8000/v1"
    assert (settings.host, settings.port, settings.api_key, settings.debug) == ("127.0.0.1", 7860, "none", False)
    assert (settings.kept, settings.store) == (Path("/from/xdg/mailwright/kept"), Path("/from/xdg/mailwright/store"))


def test_the_environment_wins_over_the_default_and_a_flag_over_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MAILWRIGHT_KEPT", str(tmp_path / "kept"))
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    environment = {"MAILWRIGHT_SERVER": "http://127.0.0.1:9000", "MAILWRIGHT_API_KEY": "sesame"}
    settings = read([], environment)
    assert (settings.server, settings.api_key) == ("http://127.0.0.1:9000/v1", "sesame")
    assert (settings.kept, settings.store) == (tmp_path / "kept", tmp_path / "store")
    flags = ["--server", "http://127.0.0.1:9001", "--kept", "/kept", "--store", "/store", "--port", "7861", "--debug"]
    settings = read(flags, environment)
    assert (settings.server, settings.port, settings.debug) == ("http://127.0.0.1:9001/v1", 7861, True)
    assert (settings.kept, settings.store) == (Path("/kept"), Path("/store"))


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        (" http://localhost:8000 ", "http://localhost:8000/v1"),
        ("https://mail.example.org", "https://mail.example.org/v1"),
        ("https://example.org/mail/v1", "https://example.org/mail/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_a_server_is_understood_with_and_without_v1(given: str, used: str):
    assert read(["--server", given], {}).server == used


@pytest.mark.parametrize(
    "given",
    [
        "127.0.0.1:8000",
        "localhost:8000",
        "ftp://example.org",
        "http://",
        "http://x:port",
        "http://x:99999",
        "http://[x",
        "http://x/v1?model=formal",
        "http://x/v1#top",
        "file:///etc/passwd",
        " ",
    ],
)
def test_what_is_no_address_of_a_server_is_refused_with_an_example(given: str):
    with pytest.raises(ConfigError) as refused:
        read(["--server", given], {})
    assert repr(given) in str(refused.value)
    assert "http://127.0.0.1:8000/v1" in refused.value.hint


@pytest.mark.parametrize("port", ["8000", "port"])
def test_a_password_in_the_address_is_refused_and_not_repeated(port: str):
    with pytest.raises(ConfigError) as refused:
        read([], {"MAILWRIGHT_SERVER": f"http://ada:sesame@127.0.0.1:{port}"})
    assert "sesame" not in str(refused.value) + refused.value.hint
    assert "MAILWRIGHT_API_KEY" in refused.value.hint


def test_the_key_is_not_printed_with_the_settings():
    assert "sesame" not in repr(read([], {"MAILWRIGHT_API_KEY": "sesame"}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_may_be_bound(host: str):
    assert read(["--host", host], {}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", ""])
def test_any_other_address_must_be_wanted(host: str):
    with pytest.raises(ConfigError, match="API key") as refused:
        read(["--host", host], {})
    assert "--allow-everyone" in refused.value.hint
    assert read(["--host", host, "--allow-everyone"], {}).host == host


@pytest.mark.parametrize(
    "flags", [["--port", "0"], ["--port", "http"], ["--port", "70000"], ["--serve", "x"], ["formal"]]
)
def test_a_wrong_flag_is_one_sentence(flags: list[str]):
    with pytest.raises(ConfigError) as refused:
        read(flags, {})
    assert "\n" not in str(refused.value)
    assert refused.value.hint


def test_help_shows_examples_and_imports_nothing_heavy():
    heavy = ["gradio", "openai", "httpx", "torch"]
    tell = f"print([module for module in {heavy} if module in sys.modules])"
    report = f"import sys\nfrom ui.settings import read\ntry: read(['--help'], {{}})\nfinally: {tell}"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    assert done.stdout.endswith("[]\n")
