"""Versions and names as plain values: what the `adapters` command answers with --json, and HTTP.

This file knows neither arguments nor how anything is printed, but for what `list` and `show` say of a version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapters.errors import StoreDamaged
from adapters.store.manifest import DEFAULT_MAX_RANK, Manifest
from adapters.store.pointers import Pointers
from adapters.store.store import Store
from adapters.store.version import Version

Described = dict[str, Any]


def rows(store: Store) -> Iterator[Described]:
    """Every version in the store; damage is said too and hides nothing else."""
    for name in store.names():
        try:
            pointers, damage = store.pointers(name), None
        except StoreDamaged as exc:
            pointers, damage = Pointers(), str(exc)
        for version in store.versions(name):
            yield _row(version, pointers, damage)


def _row(version: Version, pointers: Pointers, damage: str | None) -> Described:
    manifest: Manifest | None = None
    try:
        manifest = version.manifest()
    except StoreDamaged as exc:
        damage = str(exc)
    return {
        "id": version.id,
        **status(version, pointers),
        "created": manifest and manifest.created.isoformat(),
        "base_name": manifest and manifest.base_name,
        "rank": manifest and manifest.lora.rank,
        "heldout_loss": manifest and manifest.training and manifest.training.heldout_loss,
        "path": str(version.path),
        "damage": damage,
    }


def status(version: Version, pointers: Pointers) -> Described:
    """What the names mean this version; `canary` is its percent."""
    canary = pointers.canary
    return {
        "promoted": version.number == pointers.promoted,
        "canary": canary.percent if canary and canary.version == version.number else None,
        "labels": [label for label, number in pointers.labels.items() if number == version.number],
        "pinned": version.number in pointers.pinned,
        "retired": version.number in pointers.retired,
    }


def line(row: Described) -> str:
    """A row's line in `list`, after its id."""
    said = [f"{row['created'][:16]}  on {row['base_name']}", f"rank {row['rank']}"] if row["created"] else []
    if row["heldout_loss"] is not None:
        said.append(f"held-out loss {row['heldout_loss']:.3f}")
    if row["canary"]:
        said.append(f"canary {row['canary']}%")
    if row["labels"]:
        said.append(f"label {' '.join(row['labels'])}")
    said += [word for word in ("pinned", "retired") if row[word]]
    if row["damage"]:
        said.append(f"damaged: {row['damage']}")
    return ", ".join(said)


def lines(described: Described) -> Iterator[str]:
    """What `show` prints of a version: a line for each field, and for each field of a field."""
    for key, value in described.items():
        if isinstance(value, dict):
            yield f"{key}:"
            for inner, setting in value.items():
                yield from _shown(inner, setting)
        else:
            yield f"{key}: {', '.join(value) if isinstance(value, list) else value}"


def _shown(key: str, value: Any) -> Iterator[str]:
    """The lines of a field of a field; a list of rows has one for each."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"  {key}:"
        for row in value:
            yield f"    {', '.join(f'{name} {_plain(setting)}' for name, setting in row.items())}"
    else:
        yield f"  {key}: {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(setting)}" for name, setting in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def name_status(store: Store, name: str) -> Described:
    """What `name` means now, as every command that changes it answers with --json."""
    pointers = store.pointers(name)
    return {
        "name": name,
        **targets(name, pointers),
        "pinned": [f"{name}@{number}" for number in pointers.pinned],
        "retired": [f"{name}@{number}" for number in pointers.retired],
    }


def after_publish(store: Store, version: Version) -> str:
    """What the name of a version just published means, and what changes that."""
    promoted, name = store.promoted(version.name), version.name
    if promoted == version:
        return f"{name} means {version.id}"
    said = [f"{name} still means {promoted.id}" if promoted else f"{name} means no version yet"]
    rank, force = version.manifest().lora.rank, ""
    if rank > DEFAULT_MAX_RANK:
        said.append(f"the rank of {version.id} is {rank}, and only `server --max-rank {rank}` serves it")
        force = " --force"
    return "; ".join([*said, f"`adapters promote {version.id}{force}` makes {name} mean it"])


def targets(name: str, pointers: Pointers) -> Described:
    """The versions that requests for `name` and its labels go to."""
    canary = pointers.canary
    return {
        "promoted": f"{name}@{pointers.promoted}" if pointers.promoted else None,
        "canary": {"id": f"{name}@{canary.version}", "percent": canary.percent} if canary else None,
        "labels": {label: f"{name}@{number}" for label, number in pointers.labels.items()},
    }
