"""Publish, resolve and promote adapters: immutable directories and one atomic pointer a name.

    STORE/formal/3-0123456789ab/    adapter_config.json, adapter_model.safetensors, manifest.json; never changed again
    STORE/formal/promoted           "3": the version that the bare name means
    STORE/formal/.lock              held while a version number is given out or the pointer moves

The directory's name carries the weights' digest because vLLM's prefix cache is keyed by (name, path). A crash at any
point leaves the old state or the new one, and at worst a directory `.incoming-*` that nothing reads. This file does
not know whether vLLM could serve what it keeps; adapters/validate.py says so before a publish.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.errors import AdapterNotFound, ConfigError, StoreDamaged
from adapters.manifest import NAME, Manifest, check_name

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"
VERSION_DIRECTORY = re.compile(r"([1-9][0-9]{0,8})-([0-9a-f]{12})")


@dataclass(frozen=True)
class Version:
    """One published version; `path` is absolute and its content never changes."""

    name: str
    number: int
    path: Path

    @property
    def id(self) -> str:
        """The exact name that requests, answers and logs use: `formal@3`."""
        return f"{self.name}@{self.number}"

    def manifest(self) -> Manifest:
        return Manifest.model_validate_json((self.path / MANIFEST).read_bytes())


class Store:
    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    def names(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return sorted(e.name for e in os.scandir(self.directory) if NAME.fullmatch(e.name) and e.is_dir())

    def versions(self, name: str) -> list[Version]:
        """Every version of `name`, oldest first; empty if there is none."""
        home = self.directory / name
        if not NAME.fullmatch(name) or not home.is_dir():
            return []
        found = [(VERSION_DIRECTORY.fullmatch(e.name), e.path) for e in os.scandir(home)]
        return sorted((Version(name, int(m[1]), Path(p)) for m, p in found if m), key=lambda version: version.number)

    def promoted(self, name: str) -> Version | None:
        """The version that the bare `name` means; None if none is promoted or the name has no versions."""
        pointer = self.directory / name / "promoted"
        try:
            number = int(pointer.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as exc:
            raise StoreDamaged(f"{pointer} holds no version number", f"`adapters promote {name}@N` mends it") from exc
        return next((v for v in self.versions(name) if v.number == number), None)

    def resolve(self, reference: str) -> Version:
        """The version that `formal` (the promoted one) or `formal@3` means right now.

        Raises:
            AdapterNotFound: with the nearest names there are.
        """
        name, at, number = reference.partition("@")
        if NAME.fullmatch(name):
            if not at:
                version = self.promoted(name)
            else:
                version = next((v for v in self.versions(name) if str(v.number) == number), None)
            if version:
                return version
        raise AdapterNotFound(f"the model {reference[:80]!r} does not exist", self._nearest(name, number))

    def publish(self, name: str, files: Path, facts: dict[str, Any]) -> Version:
        """Make `files` (a directory with weights and config) the next version of `name`.

        `facts` are the fields of the manifest except name, version, created and adapter_sha256. The first version of
        a name promotes itself. Two processes that publish one name at once get two versions.
        """
        home = self.directory / check_name(name)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".incoming-") as scratch:
            incoming = Path(scratch) / "version"
            incoming.mkdir()
            for part in (CONFIG, WEIGHTS):
                shutil.copyfile(files / part, incoming / part)
                _sync(incoming / part)
            digest = content_digest(incoming)
            with self._locked(name):
                number = max([v.number for v in self.versions(name)], default=0) + 1
                manifest = Manifest(
                    name=name, version=number, created=datetime.now(UTC), adapter_sha256=digest, **facts
                )
                (incoming / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
                _sync(incoming / MANIFEST)
                _sync(incoming)
                version = Version(name, number, home / f"{number}-{digest[:12]}")
                incoming.rename(version.path)
                _sync(home)
                if not (home / "promoted").exists():
                    self._point(version)
        return version

    def promote(self, reference: str) -> Version:
        """Make the bare name mean `reference`, which must give a version (`formal@3`), from the next request on."""
        if "@" not in reference:
            raise ConfigError(f"{reference!r} gives no version", f"give one, for example {reference}@1")
        version = self.resolve(reference)
        with self._locked(version.name):
            self._point(version)
        return version

    def _point(self, version: Version) -> None:
        home = self.directory / version.name
        with tempfile.NamedTemporaryFile("w", dir=home, prefix=".promoted-", delete=False) as new:
            new.write(f"{version.number}\n")
            new.flush()
            os.fsync(new.fileno())
        os.replace(new.name, home / "promoted")
        _sync(home)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.directory / name / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _nearest(self, name: str, number: str) -> str:
        versions = self.versions(name)
        if versions:
            asked = f"it has the versions {', '.join(v.id for v in versions)}"
            return asked if number else f"{name} has no promoted version; {asked}"
        names = self.names()
        near = difflib.get_close_matches(name, names, n=3)
        if near:
            return f"did you mean {' or '.join(near)}?"
        return f"there are {', '.join(names[:10])}" if names else "the store has no adapters yet"


def content_digest(directory: Path) -> str:
    """SHA-256 over the adapter's config and weights, each preceded by its name."""
    digest = hashlib.sha256()
    for part in (CONFIG, WEIGHTS):
        digest.update(f"{part}\0".encode())
        digest.update((directory / part).read_bytes())
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
