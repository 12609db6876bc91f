"""Flags and environment, and what the server refuses to start with."""

import subprocess
import sys
from pathlib import Path

import pytest

from adapters.errors import ConfigError
from server.settings import read
from server.vllm_version import refuse_untested_vllm

KEY = {"MAILWRIGHT_API_KEY": "secret"}


def test_the_defaults_bind_this_machine_only_and_leave_base_model_and_cache_size_to_the_device():
    settings = read([], {})
    assert (settings.host, settings.port, settings.kv_cache_bytes) == ("127.0.0.1", 8000, None)
    assert (settings.max_loras, settings.max_rank, settings.max_model_len) == (16, 16, 2048)
    assert settings.base is None
    assert settings.api_key is None


def test_flags_and_key_arrive(tmp_path: Path):
    settings = read(["--store", str(tmp_path), "--host", "0.0.0.0", "--kv-cache", "0.5", "--debug"], KEY)
    assert (settings.store, settings.host, settings.kv_cache_bytes) == (tmp_path, "0.0.0.0", 2**29)
    assert (settings.api_key, settings.debug) == ("secret", True)


def test_the_store_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    assert read([], {}).store == tmp_path / "store"
    assert read(["--store", str(tmp_path / "other")], {}).store == tmp_path / "other"


def test_as_many_versions_stay_in_memory_as_one_batch_may_mix():
    assert read([], {}).max_resident == 64
    assert read(["--max-loras", "100"], {}).max_resident == 100
    assert read(["--max-loras", "100", "--max-resident", "50"], {}).max_resident == 100


def test_what_follows_two_dashes_goes_to_vllm_unchanged():
    assert read(["--port", "1234", "--", "--seed", "7", "--", "x"], {}).vllm_arguments == ("--seed", "7", "--", "x")


@pytest.mark.parametrize("number", ["-1", "17", "x", ""])
def test_tokens_to_guess_are_a_small_number(number: str):
    with pytest.raises(ConfigError, match="0 to 16, got "):
        read([f"--speculate={number}"], {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_key(host: str):
    assert read(["--host", host], {}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
@pytest.mark.parametrize("environment", [{}, {"MAILWRIGHT_API_KEY": ""}])
def test_any_other_address_needs_a_key(host: str, environment: dict[str, str]):
    with pytest.raises(ConfigError, match=host) as refused:
        read(["--host", host], environment)
    assert "MAILWRIGHT_API_KEY" in refused.value.hint
    assert read(["--host", host], KEY).host == host


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_USE_RUST_FRONTEND", "1"),
        ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True"),
        ("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "true"),
        ("PROMETHEUS_MULTIPROC_DIR", "/tmp/metrics"),
        ("VLLM_API_KEY", "secret"),
    ],
)
def test_an_environment_that_would_undo_the_gate_is_refused(name: str, value: str):
    with pytest.raises(ConfigError, match=name) as refused:
        read([], {name: value})
    assert name in refused.value.hint


@pytest.mark.parametrize("value", ["", "0", "False"])
def test_a_switch_that_is_off_is_no_reason(value: str):
    assert read([], {"VLLM_USE_RUST_FRONTEND": value})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "0"],
        ["--port", "http"],
        ["--port", "²"],
        ["--max-loras", "0"],
        ["--max-loras", "²"],
        ["--max-rank", "513"],
        ["--kv-cache", "none"],
        ["--kv-cache", "0"],
        ["--kv-cache", "nan"],
        ["--dtype", "int8"],
        ["--no-such-flag"],
        ["model"],
    ],
)
def test_a_wrong_flag_is_one_sentence(arguments: list[str]):
    with pytest.raises(ConfigError) as refused:
        read(arguments, {})
    assert "\n" not in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1", "0.32.0+cpu"])
def test_the_tested_vllm_passes(version: str):
    refuse_untested_vllm(version)


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "1.32.0", "0.3.2", None])
def test_another_vllm_is_refused(version: str | None):
    with pytest.raises(ConfigError):
        refuse_untested_vllm(version)


def test_help_shows_examples_and_imports_nothing_heavy():
    heavy = ["torch", "vllm", "transformers", "fastapi", "uvloop"]
    tell = f"print([module for module in {heavy} if module in sys.modules])"
    report = f"import sys\nfrom server.launch import main\ntry: main(['--help'])\nfinally: {tell}"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    assert done.stdout.endswith("[]\n")
