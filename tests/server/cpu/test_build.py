"""The compiled part of the arithmetic: built once, whole or not at all, and without a compiler there is a reason."""

import os
from pathlib import Path

import pytest

from server.cpu import build

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))


def files() -> list[Path]:
    return [path for path in build.directory().rglob("*") if path.is_file()]


def test_it_is_built_once_and_says_so():
    said: list[str] = []
    assert build.build(said.append) is None
    assert files() == [build.library()]
    assert build.build(said.append) is None
    assert said == ["compiling arithmetic for this machine, once (about 10 s)"]


def test_without_a_compiler_there_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.build(print) == "no C++ compiler found"
    assert files() == []


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho half > \"$(echo \"$@\" | sed 's/.* //')\"\necho 'no space left' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert build.build(print) == f"{broken} failed: no space left"
    assert files() == []


def test_another_kind_of_cpu_has_a_directory_of_its_own(monkeypatch: pytest.MonkeyPatch):
    here = build.directory()
    monkeypatch.setattr(build, "_cpu_features", lambda: "flags: fewer")
    assert build.directory() != here
    assert os.path.commonpath([build.directory(), here]) == str(here.parent)


def test_a_cache_that_cannot_be_written_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAILWRIGHT_CACHE", "/proc/mailwright")
    assert str(build.build(lambda _: None)).startswith("[Errno 2] No such file or directory: '/proc/mailwright")


def test_without_pythons_headers_models_are_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert build.compiles_models()
    monkeypatch.setattr(build.sysconfig, "get_path", lambda _: str(tmp_path))
    assert not build.compiles_models()
