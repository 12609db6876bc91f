"""What lies in a store that should not: says it (`adapters verify`), and removes what nobody needs (`adapters gc`).

Removed are retired versions that no living server holds, and leftovers of processes that were cut off; never anything
that this program did not write. A version is renamed before it is deleted, so that nobody sees half of one. This file
does not know whether vLLM could serve a version: those reasons are handed in.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adapters.errors import StoreDamaged
from adapters.store.audit import LOG
from adapters.store.disk import LOCK, NEW, explained, is_locked, locked, sync
from adapters.store.leases import LEASES, WATCH_SECONDS, Claim, claims, holders, remove_dead
from adapters.store.manifest import NAME
from adapters.store.pointers import Pointers
from adapters.store.store import (
    INCOMING,
    KEYS,
    OLD_POINTER,
    POINTERS,
    RUNS,
    VERSION_DIRECTORY,
    Store,
    content_digest,
)
from adapters.store.version import CARD, CONFIG, MANIFEST, WEIGHTS, Version

REMOVING = ".removing-"
LEFTOVERS = {
    INCOMING: "a publish that was cut off",
    NEW: "a change of a file that was cut off",
    REMOVING: "a removal that was cut off",
}
FILES = (CONFIG, WEIGHTS, MANIFEST)
UNKNOWN = "Mailwright did not write this; move it out of the store"


@dataclass(frozen=True)
class Finding:
    """`what` is a sentence; `removable`: left over and in nobody's way, `adapters gc` removes it."""

    path: Path
    what: str
    removable: bool


@dataclass
class Collected:
    """`removed` are ids of versions and paths in the store; `kept` says of which retired versions gc kept, and why."""

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def verify(
    store: Store, reasons: Callable[[Version], list[str]], watch_seconds: float = WATCH_SECONDS
) -> list[Finding]:
    """Everything that is damaged, left over or foreign; writes nothing.

    `reasons` says why a version cannot be served; it is asked about sound versions that are not retired. Takes
    `watch_seconds` if a server on another machine may be dead.
    """
    findings = list(_foreign(store.directory))
    findings += [Finding(path, LEFTOVERS[NEW], True) for path in _cut_off(store.directory)]
    for name in store.names():
        findings += _verify_name(store, name, reasons)
    findings += [
        Finding(claim.path, "the lease of a server that has ended", True) for claim in _dead(store, watch_seconds)
    ]
    return findings


def collect(store: Store, dry_run: bool = False, watch_seconds: float = WATCH_SECONDS) -> Collected:
    """Remove retired versions that no living server holds, and leftovers; `dry_run` only says what that would be.

    Takes `watch_seconds` if a server on another machine may be dead.

    Raises:
        StoreUnwritable: no permission.
    """
    # Watched before any lock is taken, which would hold up publishes and servers.
    dead = _dead(store, watch_seconds)
    collected = Collected()
    with explained(store.directory):
        collected.removed += [path.name for path in _cut_off(store.directory, remove=not dry_run)]
        for name in store.names():
            _collect_name(store, name, dead, dry_run, collected)
        collected.removed += [str(claim.path.relative_to(store.directory)) for claim in dead]
        if not dry_run:
            remove_dead(store.directory, dead)
    return collected


def _dead(store: Store, watch_seconds: float) -> list[Claim]:
    return [claim for claim in claims(store.directory, watch_seconds) if not claim.living]


def _cut_off(directory: Path, remove: bool = False) -> list[Path]:
    """What a killed change of keys.json left; one that is under way holds the lock."""
    if not any(directory.glob(f"{NEW}*")):
        return []
    with locked(directory, reading=not remove):
        found = sorted(directory.glob(f"{NEW}*"))
        for path in found if remove else []:
            path.unlink()
    return found


def _collect_name(store: Store, name: str, dead: list[Claim], dry_run: bool, collected: Collected) -> None:
    home = store.directory / name
    with store.locked(name, reading=dry_run):
        going, unwanted = _leftovers(home), []
        collected.removed += [str(path.relative_to(store.directory)) for path in going]
        for version, holding in _unwanted(store, name, dead, collected):
            if holding:
                collected.kept.append(f"{version.id}: a server may have it loaded (lease {', '.join(holding)})")
            else:
                unwanted.append(version)
                collected.removed.append(version.id)
        if dry_run:
            return
        if any(path.name.startswith(INCOMING) for path in going):
            store.settle(name)
        removing = [_set_aside(path) for path in going]
        for version in unwanted:
            removing.append(_set_aside(version.path))
            sync(home)
            store.audit.record("remove", version)
    # Deleting takes time, and needs no lock any more.
    for path in removing:
        _delete(path)


def _unwanted(store: Store, name: str, dead: list[Claim], collected: Collected) -> list[tuple[Version, list[str]]]:
    """The retired versions, and the leases that hold them; to be called under the lock of `name`."""
    try:
        retired = store.pointers(name).retired
    except StoreDamaged as exc:
        collected.kept.append(f"{name}: {exc}, so that nobody knows what is retired")
        return []
    holding = holders(store.directory, dead)
    return [(v, holding.get(v.id, [])) for v in store.versions(name) if v.number in retired]


def _leftovers(home: Path) -> list[Path]:
    """To be called under the lock of the name: what is under way now holds a lock of its own."""
    found = sorted(path for path in home.iterdir() if path.name.startswith(tuple(LEFTOVERS)))
    return [path for path in found if not is_locked(path / LOCK)]


def _set_aside(path: Path) -> Path:
    return path if path.name.startswith(REMOVING) else path.rename(path.with_name(f"{REMOVING}{path.name.lstrip('.')}"))


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, onerror=_raise_unless_gone)


def _raise_unless_gone(_function: object, _path: object, info: tuple[object, BaseException, object]) -> None:
    """Another gc may be deleting the same."""
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


def _foreign(directory: Path) -> Iterator[Finding]:
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        # lost+found is of the file system.
        ours = NAME.fullmatch(path.name) or path.name in (LEASES, RUNS, "lost+found")
        files = path.is_file() and (path.name in (KEYS, LOCK) or path.name.startswith((LOG, NEW)))
        if not (path.is_dir() and ours) and not files:
            yield Finding(path, UNKNOWN, False)
    leases = directory / LEASES
    for path in sorted(leases.iterdir()) if leases.is_dir() else []:
        if not (path.is_dir() or path.name == LOCK):
            yield Finding(path, UNKNOWN, False)


def _verify_name(store: Store, name: str, reasons: Callable[[Version], list[str]]) -> list[Finding]:
    home = store.directory / name
    with store.locked(name, reading=True):
        versions = store.versions(name)
        entries = sorted(home.iterdir())
        left_over = _leftovers(home)
        try:
            pointers, damage = store.pointers(name), []
        except StoreDamaged as exc:
            pointers, damage = Pointers(), [Finding(home / POINTERS, f"{exc}; {exc.hint}", False)]
    findings = damage + list(_dangling(home, pointers, versions, left_over))
    for path in left_over:
        kind = next(what for prefix, what in LEFTOVERS.items() if path.name.startswith(prefix))
        findings.append(Finding(path, kind, True))
    for path in entries:
        known = path.name in (LOCK, POINTERS, OLD_POINTER) or path.name.startswith(tuple(LEFTOVERS))
        if not known and not VERSION_DIRECTORY.fullmatch(path.name):
            findings.append(Finding(path, UNKNOWN, False))
    for number, count in Counter(version.number for version in versions).items():
        if count > 1:
            findings.append(Finding(home, f"{count} directories are version {number}; keep the right one", False))
    for version in versions:
        wrong = _damage(version)
        if not wrong and version.number not in pointers.retired:
            wrong = reasons(version)
        # gc may have removed it meanwhile.
        findings += [Finding(version.path, what, False) for what in wrong if version.path.exists()]
    return findings


def _dangling(home: Path, pointers: Pointers, versions: list[Version], left_over: list[Path]) -> Iterator[Finding]:
    """What points to versions that are not there."""
    there = {version.number for version in versions}
    cut_off = any(path.name.startswith(INCOMING) for path in left_over)
    pointed = [("history", number) for number in pointers.history if number not in pointers.retired]
    pointed += [(f"label {label}", number) for label, number in pointers.labels.items()]
    pointed += [("pin", number) for number in pointers.pinned]
    if pointers.canary:
        pointed.append(("canary", pointers.canary.version))
    # The first publish of a name says what will be promoted just before that is there.
    if pointers.promoted and not cut_off:
        pointed.append(("promoted", pointers.promoted))
    for what, number in dict.fromkeys(pointed):
        if number not in there:
            yield Finding(home / POINTERS, f"{what} means version {number}, which is not there", False)


def _damage(version: Version) -> list[str]:
    """How the files of `version` differ from what was published."""
    try:
        if not version.path.is_dir() or version.path.is_symlink():
            return ["this is not a directory; publish the version again"]
        found = {entry.name: entry.is_file(follow_symlinks=False) for entry in os.scandir(version.path)}
        wrong = [f"{part} is missing" for part in FILES if part not in found]
        wrong += [f"{part} is not a plain file" for part in (*FILES, CARD) if not found.get(part, True)]
        wrong += [f"{part[:80]!r} does not belong here" for part in sorted(found.keys() - {*FILES, CARD})]
        if wrong:
            return wrong
        return _disagreement(version)
    except OSError as exc:
        return [f"it cannot be read: {exc.strerror or exc}"]


def _disagreement(version: Version) -> list[str]:
    manifest = version.manifest()
    digest = content_digest(version.path)
    wrong = []
    if (manifest.name, manifest.version) != (version.name, version.number):
        wrong.append(f"{MANIFEST} is of {manifest.name}@{manifest.version}, not of {version.id}")
    if digest != manifest.adapter_sha256:
        wrong.append(
            f"the content is not what was published: its digest is {digest[:12]}, not {manifest.adapter_sha256[:12]}"
        )
    if not version.path.name.endswith(f"-{manifest.adapter_sha256[:12]}"):
        wrong.append(f"the directory's name says another digest than {MANIFEST}, {manifest.adapter_sha256[:12]}")
    return wrong
