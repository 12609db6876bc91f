"""Versions and names as plain values, for --json and HTTP, and as the cells of the tables of `list` and `show`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapters.errors import StoreDamaged
from adapters.store.manifest import DEFAULT_MAX_RANK, Manifest
from adapters.store.pointers import Pointers
from adapters.store.store import Store
from adapters.store.version import Version

Described = dict[str, Any]
HEADERS = ("", "adapter", "created", "base model", "rank", "held-out loss", "status")


def rows(store: Store) -> Iterator[Described]:
    """Every version in the store, the damaged ones too."""
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
    """How requests reach this version; `canary` is its percent."""
    canary = pointers.canary
    return {
        "promoted": version.number == pointers.promoted,
        "canary": canary.percent if canary and canary.version == version.number else None,
        "labels": [label for label, number in pointers.labels.items() if number == version.number],
        "pinned": version.number in pointers.pinned,
        "retired": version.number in pointers.retired,
    }


def cells(row: Described) -> list[object]:
    """A row of `list`, under HEADERS."""
    status = [f"canary {row['canary']}%"] if row["canary"] else []
    status += [f"label {label}" for label in row["labels"]]
    status += [word for word in ("pinned", "retired") if row[word]]
    status += [f"damaged: {row['damage']}"] if row["damage"] else []
    created = row["created"] and row["created"][:16]
    loss = None if row["heldout_loss"] is None else f"{row['heldout_loss']:.3f}"
    described = [row["id"], created, row["base_name"], row["rank"], loss]
    return ["*" if row["promoted"] else "", *("" if cell is None else cell for cell in described), ", ".join(status)]


def fields(described: Described, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The rows of `show`: a name and a value for each field, for a field of a field and for each row of a list."""
    for key, value in described.items():
        if isinstance(value, dict):
            yield from fields(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from ((f"{prefix}{key}.{number}", _plain(row)) for number, row in enumerate(value, start=1))
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(setting)}" for name, setting in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def name_status(store: Store, name: str) -> Described:
    """What `name` points to now: the --json of every command that changes it."""
    pointers = store.pointers(name)
    return {
        "name": name,
        **targets(name, pointers),
        "pinned": [f"{name}@{number}" for number in pointers.pinned],
        "retired": [f"{name}@{number}" for number in pointers.retired],
    }


def after_publish(store: Store, version: Version) -> str:
    """One sentence for the command line: whether the new version is promoted, and how to promote it."""
    promoted, name = store.promoted(version.name), version.name
    if promoted == version:
        return f"{name} means {version.id}"
    parts = [f"{name} still means {promoted.id}" if promoted else f"{name} means no version yet"]
    rank, force = version.manifest().lora.rank, ""
    if rank > DEFAULT_MAX_RANK:
        parts.append(f"the rank of {version.id} is {rank}, and only `server --max-rank {rank}` serves it")
        force = " --force"
    return "; ".join([*parts, f"`adapters promote {version.id}{force}` makes {name} mean it"])


def targets(name: str, pointers: Pointers) -> Described:
    """The versions that requests for `name` and its labels go to."""
    canary = pointers.canary
    return {
        "promoted": f"{name}@{pointers.promoted}" if pointers.promoted else None,
        "canary": {"id": f"{name}@{canary.version}", "percent": canary.percent} if canary else None,
        "labels": {label: f"{name}@{number}" for label, number in pointers.labels.items()},
    }
