"""Find the base model and fingerprint it: a name of the catalog, a local directory, or a hub id.

A model of the catalog that is one GGUF file is fetched by its SHA-256 and converted once into bf16 safetensors in the
user's cache, after which the file is deleted: the cache keeps one copy.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.console import byte_bar
from adapters.errors import BaseModelError, ConfigError
from adapters.models import catalog, fetch, gguf
from adapters.models.catalog import Entry, File
from adapters.settings import absolute, cache_directory, silence_telemetry
from adapters.store.disk import LOCK, cache, cached, is_locked, locked

# The model of tests and benches that need a real one.
DEFAULT_NAME = catalog.SMALL
# What converting takes beside the file itself: 0.7 GB were measured.
CONVERSION_BYTES = 1_500_000_000
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
# Written last into a converted model: a directory without it was interrupted and is made again.
COMPLETE = "mailwright-complete"

# The fields of config.json that decide what the tensors compute; everything else there may change with an upgrade.
SHAPING_FIELDS = (
    "model_type hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "vocab_size hidden_act rms_norm_eps tie_word_embeddings attention_bias mlp_bias"
).split()


@dataclass(frozen=True)
class BaseModel:
    """`path` is absolute; `fingerprint` is `sha256:` and 64 hex digits; `--base source` finds the model again."""

    name: str
    path: Path
    fingerprint: str
    source: str


def default(cuda: bool, store: Path | None = None) -> catalog.Choice:
    """The base model without --base: MAILWRIGHT_BASE, else that of the voices in `store`, else the machine's."""
    return catalog.choose(cuda, store)


def find(base: str, log: Callable[[str], None] = lambda _: None, fetch: bool = True) -> BaseModel:
    """The base model that `base` names: one of the catalog, a directory, or a hub id.

    `log` gets a sentence before anything slow. Without `fetch` only what is on this machine is found.

    Raises:
        BaseModelError: it cannot be found, fetched or read, or the download has another hash.
    """
    if entry := catalog.entries().get(base):
        name, path, source = entry.name, _from_catalog(entry, log, fetch), entry.name
    elif absolute(base).is_dir():
        path = absolute(base)
        name, source = path.name.lower(), str(path)
    else:
        name, path, source = base.rsplit("/", 1)[-1].lower(), _from_hub(base, None, log, fetch), base
    return BaseModel(name, path, fingerprint(path, log), source)


def known(base: str) -> BaseModel | None:
    """`find` without a download or conversion; None if the model is not on this machine."""
    try:
        return find(base, fetch=False)
    except (OSError, ConfigError):
        return None


def fingerprint(path: Path, log: Callable[[str], None] = lambda _: None) -> str:
    """SHA-256 of what the model computes: tensors, shaping config fields, vocabulary and chat template.

    Canonical: a newer transformers that writes other bookkeeping into config.json orphans no adapter. Hashing 270 MB
    takes half a second, so the result is cached until a file changes.
    """
    files = [*sorted(path.glob("*.safetensors")), path / "config.json", path / "tokenizer.json"]
    missing = [file.name for file in files if not file.is_file()]
    if missing or len(files) == 2:
        raise BaseModelError(
            f"{path} is not a base model: it has no {', '.join(missing) or '*.safetensors'}",
            "give a directory with config.json, tokenizer.json and safetensors, or leave --base out for the default",
        )
    stamps = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in [*files, *_template_files(path)]]
    remembered = cache_directory() / "fingerprints" / hashlib.sha256(repr(stamps).encode()).hexdigest()
    if before := cached(remembered):
        return before
    digest = hashlib.sha256()
    try:
        for part in _canonical_parts(path):
            digest.update(part)
    except (ValueError, KeyError, TypeError) as exc:
        raise BaseModelError(
            f"{path} is not a base model: one of its files is damaged ({type(exc).__name__}: {exc})", "fetch it again"
        ) from exc
    value = f"sha256:{digest.hexdigest()}"
    cache(remembered, value, log)
    return value


def shaping_config(path: Path) -> dict[str, Any]:
    """The fields of config.json that decide what the tensors compute, with the rotary base under one name."""
    config = json.loads((path / "config.json").read_text())
    shape = {field: config[field] for field in SHAPING_FIELDS if config.get(field) is not None}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    shape["rope_theta"] = rope.get("rope_theta", config.get("rope_theta"))
    return shape


def _canonical_parts(path: Path) -> Iterator[bytes]:
    from adapters.models.tensors import header_of

    yield json.dumps(shaping_config(path), sort_keys=True).encode()
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    yield json.dumps([tokenizer["model"]["vocab"], tokenizer.get("added_tokens", [])], sort_keys=True).encode()
    yield chat_template(path).encode()
    tensors = [(tensor, file) for file in path.glob("*.safetensors") for tensor in header_of(file).tensors]
    for tensor, file in sorted(tensors, key=lambda found: found[0].name):
        yield f"{tensor.name} {tensor.dtype} {list(tensor.shape)}".encode()
        with file.open("rb") as opened:
            opened.seek(tensor.start)
            yield opened.read(tensor.end - tensor.start)


def _template_files(path: Path) -> list[Path]:
    return [f for f in (path / "chat_template.jinja", path / "tokenizer_config.json") if f.is_file()]


def chat_template(path: Path) -> str:
    for file in _template_files(path):
        if file.suffix == ".jinja":
            return file.read_text()
        template = json.loads(file.read_text()).get("chat_template")
        if template:
            return str(template)
    return ""


def _from_hub(base: str, revision: str | None, log: Callable[[str], None], fetch: bool) -> Path:
    silence_telemetry()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if fetch:
        log(f"fetching the base model {base} from the hub")
    try:
        return Path(snapshot_download(base, revision=revision, allow_patterns=HUB_FILES, local_files_only=not fetch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as exc:
        raise BaseModelError(
            f"{base!r} is neither a directory here nor a model of the hub ({type(exc).__name__})",
            "check the network, or give --base an existing directory, a hub id such as "
            f"HuggingFaceTB/SmolLM2-360M-Instruct, or {catalog.CPU}, which needs no hub",
        ) from exc


def _from_catalog(entry: Entry, log: Callable[[str], None], fetching: bool) -> Path:
    file = entry.file
    if not file:
        if fetching and not known(str(entry.repo)):
            _check_room(entry, 0)
        return _from_hub(str(entry.repo), entry.revision, log, fetching)
    target = cache_directory() / "models" / entry.directory
    if (target / COMPLETE).is_file():
        return target
    if not fetching:
        raise BaseModelError(f"{entry.name} is not on this machine", f"`adapters base fetch {entry.name}` fetches it")
    downloads = fetch.downloads()
    with _explained(target.name, downloads):
        downloads.mkdir(parents=True, exist_ok=True)
        if is_locked(downloads / LOCK):
            log("another process is fetching a base model: waiting for it")
        with locked(downloads):
            return made_once(target, lambda new: _fetch_and_convert(entry, file, new, log))


def _fetch_and_convert(entry: Entry, file: File, new: Path, log: Callable[[str], None]) -> None:
    _check_room(entry, file.size)
    log(f"fetching the base model {entry.title} ({file.size / 1e6:,.0f} MB)")
    found = fetch.fetch(file, log)
    log("converting it to bf16 safetensors, once")
    # Under its own name and alone: transformers would also read a tokenizer's files beside it.
    alone = new.parent / "gguf" / file.name
    alone.parent.mkdir()
    alone.symlink_to(found)
    with byte_bar("converting", entry.parameters, "") as advance:
        gguf.convert(alone, new, entry.tied, entry.generation, advance)
    if found.parent == fetch.downloads():
        found.unlink()


def _check_room(entry: Entry, download: int) -> None:
    """Raise BaseModelError before a download of so many bytes that this machine has no room for."""
    # First the parts of the file and the whole, then the file and what is made of it.
    needed, cache_home = max(2 * download, download + entry.bf16_bytes), cache_directory()
    free = shutil.disk_usage(next(home for home in (cache_home, *cache_home.parents) if home.exists())).free
    if free < needed:
        raise BaseModelError(
            f"{entry.name} needs {needed / 1e9:.1f} GB on the disk of {cache_home}, and {free / 1e9:.1f} GB are free",
            "make room there, or set MAILWRIGHT_CACHE to a directory on another disk",
        )
    if download and (memory := catalog.free_memory()) < CONVERSION_BYTES:
        raise BaseModelError(
            f"converting {entry.name} needs {CONVERSION_BYTES / 1e9:.1f} GB of memory, {memory / 1e9:.1f} GB are free",
            "end other programs and try again",
        )


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """The directory `target`; `make` writes it at a temporary path if it is missing or was interrupted.

    The parent of that temporary path is scratch space: it is deleted afterwards.

    Raises:
        BaseModelError: it cannot be written there.
    """
    if (target / COMPLETE).is_file():
        return target
    with _explained(target.name, target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as scratch:
            new = Path(scratch) / "new"
            make(new)
            (new / COMPLETE).touch()
            if not (target / COMPLETE).is_file():
                shutil.rmtree(target, ignore_errors=True)
            try:
                new.rename(target)
            except OSError:
                # Another process finished first; its copy is as good as ours.
                if not (target / COMPLETE).is_file():
                    raise
    return target


@contextmanager
def _explained(name: str, directory: Path) -> Iterator[None]:
    """Turn an OSError of a write below `directory` into BaseModelError."""
    try:
        yield
    except BaseModelError:
        raise
    except OSError as exc:
        raise BaseModelError(
            f"{name} cannot be kept in {directory}: {exc.strerror or exc}",
            "make room there, or set MAILWRIGHT_CACHE to a directory that can be written",
        ) from exc


def published_gguf(name: str, log: Callable[[str], None] = lambda _: None) -> Path:
    """The GGUF file of a model of the catalog, fetched into the cache's downloads and left there; for benches.

    Raises:
        BaseModelError: it has none, or no source has it.
    """
    entry = catalog.entries()[name]
    if not entry.file:
        raise BaseModelError(f"{name} has no GGUF file")
    return fetch.fetch(entry.file, log)
