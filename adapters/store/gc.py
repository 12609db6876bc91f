"""List what is damaged, left over or foreign in a store (`adapters verify`), and remove leftovers (`adapters gc`).

gc removes retired versions that no living server holds, and leftovers of interrupted processes; never a file that this
program did not write. A version is renamed before it is deleted, so no reader sees half of one.
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
from adapters.store.store import INCOMING, KEYS, OLD_POINTER, POINTERS, RUNS, VERSION_DIRECTORY, Store, content_digest
from adapters.store.version import CARD, CONFIG, MANIFEST, WEIGHTS, Version

REMOVING = ".removing-"
LEFTOVERS = {
    INCOMING: "an interrupted publish",
    NEW: "an interrupted change of a file",
    REMOVING: "an interrupted removal",
}
FILES = (CONFIG, WEIGHTS, MANIFEST)
UNKNOWN = "Mailwright did not write this; move it out of the store"


@dataclass(frozen=True)
class Finding:
    """`what` is a sentence; `adapters gc` removes what is `removable`."""

    path: Path
    what: str
    removable: bool


@dataclass
class Collected:
    """`removed` has ids of versions and paths in the store; `kept` the retired versions that stay, each with why."""

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def verify(
    store: Store, reasons: Callable[[Version], list[str]], watch_seconds: float = WATCH_SECONDS
) -> list[Finding]:
    """Everything that is damaged, left over or foreign; writes nothing.

    `reasons` lists why a version cannot be served; it is called for undamaged versions that are not retired. Takes
    `watch_seconds` if a server on another machine may be dead.
    """
    findings = list(_foreign(store.directory))
    findings += [Finding(path, LEFTOVERS[NEW], True) for path in _interrupted(store.directory)]
    for name in store.names():
        findings += _verify_name(store, name, reasons)
    dead = _dead(store, watch_seconds)
    return findings + [Finding(claim.path, "the lease of a server that has ended", True) for claim in dead]


def collect(store: Store, dry_run: bool = False, watch_seconds: float = WATCH_SECONDS) -> Collected:
    """Remove retired versions that no living server holds, and leftovers; with `dry_run` only list them.

    Takes `watch_seconds` if a server on another machine may be dead.

    Raises:
        StoreUnwritable: no permission.
    """
    # Before any lock is taken: watching would block publishes and servers.
    dead = _dead(store, watch_seconds)
    collected = Collected()
    with explained(store.directory):
        collected.removed += [path.name for path in _interrupted(store.directory, remove=not dry_run)]
        for name in store.names():
            _collect_name(store, name, dead, dry_run, collected)
        collected.removed += [str(claim.path.relative_to(store.directory)) for claim in dead]
        if not dry_run:
            remove_dead(store.directory, dead)
    return collected


def _dead(store: Store, watch_seconds: float) -> list[Claim]:
    return [claim for claim in claims(store.directory, watch_seconds) if not claim.living]


def _interrupted(directory: Path, remove: bool = False) -> list[Path]:
    """Leftovers of a killed change of keys.json; a change in progress holds the lock."""
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
    # Deleting takes time and needs no lock.
    for path in removing:
        _delete(path)


def _unwanted(store: Store, name: str, dead: list[Claim], collected: Collected) -> list[tuple[Version, list[str]]]:
    """The retired versions, and the leases that hold them; call it under the lock of `name`."""
    try:
        retired = store.pointers(name).retired
    except StoreDamaged as exc:
        collected.kept.append(f"{name}: {exc}, so it is unknown what is retired")
        return []
    holding = holders(store.directory, dead)
    return [(v, holding.get(v.id, [])) for v in store.versions(name) if v.number in retired]


def _leftovers(home: Path) -> list[Path]:
    """Call it under the lock of the name. A publish in progress holds a lock of its own."""
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
    # Another gc may delete the same file.
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


def _foreign(directory: Path) -> Iterator[Finding]:
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        # The file system makes lost+found.
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
    for path in entries:
        kind = next((what for prefix, what in LEFTOVERS.items() if path.name.startswith(prefix)), None)
        if path in left_over:
            findings.append(Finding(path, str(kind), True))
        elif not kind and path.name not in (LOCK, POINTERS, OLD_POINTER) and not VERSION_DIRECTORY.fullmatch(path.name):
            findings.append(Finding(path, UNKNOWN, False))
    for number, count in Counter(version.number for version in versions).items():
        if count > 1:
            findings.append(Finding(home, f"{count} directories are version {number}; keep the right one", False))
    for version in versions:
        wrong = _damage(version)
        if not wrong and version.number not in pointers.retired:
            wrong = reasons(version)
        # gc may have removed it in the meantime.
        findings += [Finding(version.path, what, False) for what in wrong if version.path.exists()]
    return findings


def _dangling(home: Path, pointers: Pointers, versions: list[Version], left_over: list[Path]) -> Iterator[Finding]:
    """Pointers to versions that do not exist."""
    existing = {version.number for version in versions}
    interrupted = any(path.name.startswith(INCOMING) for path in left_over)
    pointed = [("history", number) for number in pointers.history if number not in pointers.retired]
    pointed += [(f"label {label}", number) for label, number in pointers.labels.items()]
    pointed += [("pin", number) for number in pointers.pinned]
    if pointers.canary:
        pointed.append(("canary", pointers.canary.version))
    # The first publish of a name promotes its version just before that version is there.
    if pointers.promoted and not interrupted:
        pointed.append(("promoted", pointers.promoted))
    for what, number in dict.fromkeys(pointed):
        if number not in existing:
            yield Finding(home / POINTERS, f"{what} means version {number}, which does not exist", False)


def _damage(version: Version) -> list[str]:
    """How the files of `version` differ from what was published."""
    try:
        if not version.path.is_dir() or version.path.is_symlink():
            return ["this is not a directory; publish the version again"]
        found = {entry.name: entry.is_file(follow_symlinks=False) for entry in os.scandir(version.path)}
        wrong = [f"{part} is missing" for part in FILES if part not in found]
        wrong += [f"{part} is not a plain file" for part in (*FILES, CARD) if not found.get(part, True)]
        wrong += [f"{part[:80]!r} does not belong here" for part in sorted(found.keys() - {*FILES, CARD})]
        return wrong or _disagreement(version)
    except OSError as exc:
        return [f"it cannot be read: {exc.strerror or exc}"]


def _disagreement(version: Version) -> list[str]:
    manifest, digest = version.manifest(), content_digest(version.path)
    published, wrong = manifest.adapter_sha256, []
    if (manifest.name, manifest.version) != (version.name, version.number):
        wrong.append(f"{MANIFEST} is of {manifest.name}@{manifest.version}, not of {version.id}")
    if digest != published:
        wrong.append(f"the content is not what was published: its digest is {digest[:12]}, not {published[:12]}")
    if version.digest != published[:12]:
        wrong.append(f"the directory's name has another digest than {MANIFEST}, {published[:12]}")
    return wrong
