import errno
import os
import signal
import stat
from pathlib import Path

import pytest

from adapters.store.disk import NEW, cache, cached, replace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file.json"
    file.write_text("old")
    return file


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("content", ["nëw", "nëw".encode()], ids=["text", "bytes"])
def test_a_file_is_replaced_whole_and_nothing_lies_beside_it(file: Path, content: str | bytes):
    replace(file, content)
    assert file.read_text(encoding="utf-8") == "nëw"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_only_its_owner_may_read_is_never_anybodys_else(file: Path, monkeypatch: pytest.MonkeyPatch):
    modes = []
    move = os.replace

    def looked_at(new: Path, old: Path) -> None:
        modes.append(stat.S_IMODE(os.stat(new).st_mode))
        move(new, old)

    monkeypatch.setattr(os, "replace", looked_at)
    replace(file, "new", mode=0o600)
    assert modes == [0o600]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            replace(file, "new")
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_killed_process_leaves_the_old_file_and_one_with_a_name_that_is_known(file: Path):
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        replace(file, "new")
    os.waitpid(child, 0)
    assert file.read_text() == "old"
    (left,) = set(file.parent.iterdir()) - {file}
    assert left.name.startswith(NEW)


def test_what_is_cached_is_found_again(tmp_path: Path):
    file = tmp_path / "cache" / "answers" / "1.json"
    assert cached(file) is None
    cache(file, "kept", pytest.fail)
    assert cached(file) == "kept"


def test_a_cache_that_cannot_be_written_costs_one_warning(file: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    below = file / "answers" / "1.json"
    cache(below, "new", said.append)
    assert cached(below) is None
    monkeypatch.setattr(os, "fsync", full)
    cache(file, "new", said.append)
    assert said == [
        f"warning: {below} cannot be written (Not a directory): it is made again next time",
        f"warning: {file} cannot be written (No space left on device): it is made again next time",
    ]
    assert file.read_text() == "old"
