"""Import a PEFT adapter that was trained elsewhere into the store, and export a version as a PEFT directory.

An exported directory has its manifest.json, so an import on another machine keeps its facts.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.errors import AdapterUnusable, BaseModelError, ConfigError, StoreDamaged
from adapters.models import base_models, catalog
from adapters.models.base_models import BaseModel
from adapters.models.tensors import header_of
from adapters.models.validate import reasons_against
from adapters.store.audit import Audit
from adapters.store.disk import sync
from adapters.store.manifest import Lora, Manifest, check_name
from adapters.store.store import Store, content_digest
from adapters.store.version import CARD, CONFIG, MANIFEST, WEIGHTS, Version

# Fields of a manifest that an import does not keep: publish sets the first four, the base model the others.
NOT_KEPT = {"name", "version", "created", "adapter_sha256", "base_name", "base_source", "base_fingerprint"}


def import_(store: Store, directory: Path, name: str, base: BaseModel, licence: str | None = None) -> Version:
    """Publish the PEFT LoRA in `directory` as the next version of `name`.

    Only config and weights are copied, and the facts of a manifest.json, which `export` writes. Links are followed: the
    hub's cache consists of them. `licence` is that of the training data, if known.

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
        # An incomplete directory is validated in place: a .bin file instead of the weights is part of the reason.
        reasons = reasons_against(files if complete else directory, base, published=exported)
        facts: dict[str, Any] = {}
        if exported and not reasons:
            facts = Manifest.model_validate_json((files / MANIFEST).read_bytes()).model_dump(exclude=NOT_KEPT)
        elif not reasons:
            facts = _stated_facts(files)
        if not facts:
            reasons = reasons or [f"{CONFIG} has no integer lora_alpha, or no target_modules"]
            raise AdapterUnusable(str(directory), reasons, f"give a PEFT LoRA of {base.name} that vLLM can serve")
        facts |= {"base_name": base.name, "base_source": base.source, "base_fingerprint": base.fingerprint}
        facts["data_licence"] = licence or facts["data_licence"]
        return store.publish(name, files, facts)


def base_of(directory: Path) -> BaseModel:
    """The base model that the files in `directory` name, if it is on this machine.

    Raises:
        ConfigError: there is no such directory.
        BaseModelError: they name none, or it is not here; nothing is fetched, since it could be many gigabytes.
    """
    _check_directory(directory)
    models = _strings(directory / MANIFEST, "base_source", "base_name")
    models += _strings(directory / CONFIG, "base_model_name_or_path")
    if not models:
        raise BaseModelError(f"{directory} does not name its base model", "give it with --base")
    models += [entry.name for model in models if (entry := catalog.of_model(model))]
    for model in models:
        if found := base_models.known(model):
            return found
    raise BaseModelError(
        f"the base model {models[0]!r}, on which {directory} was trained, is not on this machine",
        "give it with --base: the directory where it lies, or a name or hub id, which fetches it",
    )


def export(version: Version, directory: Path) -> None:
    """Write `version` to the new `directory`, which PEFT and `import_` read.

    Raises:
        ConfigError: `directory` exists or cannot be written; nothing is left behind.
        StoreDamaged: the files in the store are not the published ones.
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
    # The version's path is STORE/NAME/N-DIGEST.
    Audit(version.path.parents[1]).record("export", version)


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise ConfigError(f"there is no directory {directory}", f"give one with {CONFIG} and {WEIGHTS}")


def _stated_facts(files: Path) -> dict[str, Any]:
    """The manifest's facts as the config and the weights give them; empty if the config has too few."""
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
    return {"lora": lora, "data_licence": "unstated", "recipe": {}}


def _strings(file: Path, *fields: str) -> list[str]:
    """The non-empty strings under `fields` of a JSON file, which may be missing or damaged."""
    try:
        content = json.loads(file.read_bytes()) if file.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return []
    found = [content.get(field) for field in fields] if isinstance(content, dict) else []
    return [value for value in found if isinstance(value, str) and value]
