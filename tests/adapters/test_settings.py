import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import ConfigError
from adapters.settings import cache_directory, is_loopback, kept_directory, silence_telemetry, store_directory

Patch = pytest.MonkeyPatch


def test_the_stores_flag_wins_over_the_environment(monkeypatch: Patch, tmp_path: Path):
    monkeypatch.setenv("MAILWRIGHT_STORE", "/from/environment")
    assert store_directory(str(tmp_path)) == tmp_path


def test_the_stores_environment_wins_over_the_default(monkeypatch: Patch, tmp_path: Path):
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "/from/xdg")
    assert store_directory() == tmp_path


def test_an_empty_environment_variable_counts_as_none(monkeypatch: Patch):
    monkeypatch.setenv("MAILWRIGHT_STORE", "")
    monkeypatch.setenv("XDG_DATA_HOME", "/from/xdg")
    assert store_directory() == Path("/from/xdg/mailwright/store")


def test_the_store_is_in_the_users_data_home_by_default(monkeypatch: Patch):
    monkeypatch.delenv("MAILWRIGHT_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/from/xdg")
    assert store_directory() == Path("/from/xdg/mailwright/store")


def test_without_a_data_home_the_store_is_in_the_home_directory(monkeypatch: Patch):
    monkeypatch.delenv("MAILWRIGHT_STORE", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    assert store_directory() == Path("/home/ada/.local/share/mailwright/store")


def test_a_relative_store_is_made_absolute(monkeypatch: Patch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert store_directory("voices") == tmp_path / "voices"


def test_a_tilde_means_the_home_directory(monkeypatch: Patch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert store_directory("~/voices") == Path("/home/ada/voices")


@pytest.mark.parametrize("directory", [store_directory, kept_directory])
def test_the_home_of_a_user_who_is_not_here_is_an_error(directory: Callable[[str], Path]):
    with pytest.raises(ConfigError, match="home directory in '~nobody-here/x' is not known") as refused:
        directory("~nobody-here/x")
    assert refused.value.hint == "give the whole path, without ~"


@pytest.mark.parametrize("variable", ["MAILWRIGHT_STORE", "MAILWRIGHT_KEPT", "MAILWRIGHT_CACHE"])
def test_the_environment_may_not_name_such_a_home_either(monkeypatch: Patch, variable: str):
    monkeypatch.setenv(variable, "~nobody-here/x")
    with pytest.raises(ConfigError, match="~nobody-here/x"):
        {"STORE": store_directory, "KEPT": kept_directory, "CACHE": cache_directory}[variable.rpartition("_")[2]]()


@pytest.mark.parametrize(("variable", "directory"), [("DATA", store_directory), ("CACHE", cache_directory)])
def test_nor_may_xdgs_variables(monkeypatch: Patch, variable: str, directory: Callable[[], Path]):
    monkeypatch.delenv(f"MAILWRIGHT_{'STORE' if variable == 'DATA' else 'CACHE'}", raising=False)
    monkeypatch.setenv(f"XDG_{variable}_HOME", "~nobody-here/x")
    with pytest.raises(ConfigError, match="~nobody-here/x"):
        directory()


def test_the_caches_environment_wins_over_the_default(monkeypatch: Patch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/from/xdg")
    assert cache_directory() != Path("/from/xdg/mailwright")
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path


def test_the_cache_is_in_the_users_cache_home_by_default(monkeypatch: Patch):
    monkeypatch.delenv("MAILWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/from/xdg")
    assert cache_directory() == Path("/from/xdg/mailwright")


def test_kept_emails_are_where_flag_environment_or_data_home_say(monkeypatch: Patch, tmp_path: Path):
    monkeypatch.delenv("MAILWRIGHT_KEPT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/from/xdg")
    assert kept_directory() == Path("/from/xdg/mailwright/kept")
    monkeypatch.setenv("MAILWRIGHT_KEPT", "/from/environment")
    assert kept_directory() == Path("/from/environment")
    assert kept_directory(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("hosts", "loopback"),
    [
        (["127.0.0.1", "127.3.2.1", "::1", "localhost"], True),
        (["0.0.0.0", "::", "", "example.org", "10.0.0.1"], False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(hosts: list[str], loopback: bool):
    assert [is_loopback(host) for host in hosts] == [loopback] * len(hosts)


def test_telemetry_is_off_unless_somebody_switched_it_on(monkeypatch: Patch):
    for name in ("HF_HUB_DISABLE_TELEMETRY", "VLLM_NO_USAGE_STATS", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    silence_telemetry()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["DO_NOT_TRACK"] == "0"
