"""Bring an adapter into the store that was trained elsewhere, and take one out for elsewhere: PEFT directories.

An exported directory is a PEFT adapter with its manifest.json, so that an import on another machine knows its facts
again. This file does not know what vLLM can serve; adapters/models/validate.py says so before anything is written.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.errors import AdapterUnusable, BaseModelError, ConfigError, StoreDamaged
from adapters.models import base_models
from adapters.models.base_models import DEFAULT_NAME, BaseModel
from adapters.models.tensors import header_of
from adapters.models.validate import reasons_against
from adapters.store.audit import Audit
from adapters.store.disk import sync
from adapters.store.manifest import Lora, Manifest, check_name
from adapters.store.store import Store, content_digest
from adapters.store.version import CARD, CONFIG, MANIFEST, WEIGHTS, Version

UNSTATED = "unstated"
ANEW = {"name", "version", "created", "adapter_sha256", "base_name", "base_source", "base_fingerprint"}
"""What an import does not take over from a manifest: a publish says the first four anew, the rest is of `base`."""


def import_(store: Store, directory: Path, name: str, base: BaseModel, licence: str | None = None) -> Version:
    """Publish the PEFT LoRA in `directory` as the next version of `name`.

    Only its config and weights are taken, whatever else a training left there, and links are followed: the hub's cache
    is made of them. With a manifest.json, which `export` writes, its facts are kept. `licence` is that of the training
    data, if the caller knows it.

    Raises:
        ConfigError: the name is not allowed, or there is no such directory.
        AdapterUnusable: with every reason; nothing was written to the store.
        StoreUnwritable: nothing has changed.
    """
    check_name(name)
    _check_directory(directory)
    exported = (directory / MANIFEST).is_file()
    wanted = [CONFIG, WEIGHTS, *([MANIFEST] if exported else [])]
    with tempfile.TemporaryDirectory(prefix="mailwright-import-") as scratch:
        files = Path(scratch)
        try:
            complete = all((directory / part).is_file() for part in wanted)
            for part in wanted if complete else []:
                shutil.copyfile(directory / part, files / part)
        except OSError as exc:
            raise ConfigError(f"{exc.filename or directory} cannot be read: {exc.strerror}") from exc
        # What is incomplete is judged where it lies: what is there instead, a .bin file say, is part of the reason.
        reasons = reasons_against(files if complete else directory, base, published=exported)
        facts = {} if reasons else _kept_facts(files) if exported else _stated_facts(files)
        if not facts:
            reasons = reasons or [f"{CONFIG} has no whole lora_alpha, or no target_modules"]
            raise AdapterUnusable(str(directory), reasons, f"give a PEFT LoRA of {base.name} that vLLM can serve")
        facts |= {"base_name": base.name, "base_source": base.source, "base_fingerprint": base.fingerprint}
        facts["data_licence"] = licence or facts["data_licence"]
        return store.publish(name, files, facts)


def base_of(directory: Path) -> BaseModel:
    """The base model that the adapter in `directory` says it was trained on, if that is on this machine.

    Raises:
        ConfigError: there is no such directory.
        BaseModelError: it does not say, or that model is not here; nothing is fetched, which could be many gigabytes.
    """
    _check_directory(directory)
    said = _said(directory / MANIFEST, "base_source", "base_name") + _said(
        directory / CONFIG, "base_model_name_or_path"
    )
    if not said:
        raise BaseModelError(f"{directory} does not say on which base model it was trained", "give it with --base")
    # Upstream's name of the packaged default ends the same.
    said += [DEFAULT_NAME for model in said if model.rsplit("/", 1)[-1].lower() == DEFAULT_NAME]
    for model in said:
        if found := base_models.known(model):
            return found
    raise BaseModelError(
        f"the base model {said[0]!r}, on which {directory} was trained, is not on this machine",
        "give it with --base: the directory where it lies, or a name or hub id, which fetches it",
    )


def export(version: Version, directory: Path) -> None:
    """Write `version` to the new `directory`, which PEFT and `import_` read.

    Raises:
        ConfigError: `directory` exists or cannot be written; nothing is left of it.
        StoreDamaged: what lies in the store is not what was published.
    """
    if directory.exists() or directory.is_symlink():
        raise ConfigError(f"{directory} exists already", "give a directory that does not exist yet")
    digest = version.manifest().adapter_sha256
    try:
        with tempfile.TemporaryDirectory(dir=directory.absolute().parent, prefix=".export-") as scratch:
            new = Path(scratch) / "adapter"
            new.mkdir()
            for part in (CONFIG, WEIGHTS, MANIFEST, *([CARD] if (version.path / CARD).is_file() else [])):
                shutil.copyfile(version.path / part, new / part)
                sync(new / part)
            if content_digest(new) != digest:
                raise StoreDamaged(f"{version.path} is not what was published", "`adapters verify` says more")
            new.rename(directory)
    except StoreDamaged:
        raise
    except OSError as exc:
        raise ConfigError(
            f"{version.id} cannot be copied to {directory}: {exc.strerror} ({exc.filename})",
            "give a new directory in one that exists and may be written",
        ) from exc
    # In the store that it lies in: STORE/NAME/N-DIGEST.
    Audit(version.path.parents[1]).record("export", version)


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise ConfigError(f"there is no directory {directory}", f"give one with {CONFIG} and {WEIGHTS}")


def _kept_facts(files: Path) -> dict[str, Any]:
    return Manifest.model_validate_json((files / MANIFEST).read_bytes()).model_dump(exclude=ANEW)


def _stated_facts(files: Path) -> dict[str, Any]:
    """What can be said of a training that nobody here saw; nothing if the config does not say enough."""
    config = json.loads((files / CONFIG).read_bytes())
    modules = config.get("target_modules")
    try:
        lora = Lora(
            rank=max(tensor.rank or 0 for tensor in header_of(files / WEIGHTS).tensors),
            alpha=config.get("lora_alpha"),
            target_modules=[modules] if isinstance(modules, str) else modules,
            rslora=config.get("use_rslora", False),
        )
    except ValidationError:
        return {}
    return {"lora": lora, "data_licence": UNSTATED, "recipe": {}}


def _said(file: Path, *fields: str) -> list[str]:
    """What those fields of a JSON file say, as far as they are there; the file may be anything."""
    try:
        content = json.loads(file.read_bytes()) if file.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return []
    found = [content.get(field) for field in fields] if isinstance(content, dict) else []
    return [value for value in found if isinstance(value, str) and value]
