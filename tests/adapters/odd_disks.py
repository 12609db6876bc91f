"""Drives a store on a full or read-only file system, in a mount namespace of its own; prints what came of it as JSON.

unshare --mount python -m tests.adapters.odd_disks full FILES MOUNT_POINT
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from logging.handlers import BufferingHandler
from pathlib import Path

from adapters.errors import StoreUnwritable
from adapters.store.gc import collect, verify
from adapters.store.leases import Lease
from adapters.store.store import Store
from tests.adapters.dying import FACTS

PAGE = 4096


def seen(store: Store) -> list[str]:
    return sorted(
        f"{path.relative_to(store.directory)} {path.read_bytes().hex()[:200] if path.is_file() else ''}"
        for path in store.directory.rglob("*")
        if ".lock" not in path.name
    )


def attempt(store: Store, change: Callable[[], object]) -> dict:
    before = seen(store)
    try:
        done = change()
    except StoreUnwritable as exc:
        findings = [finding.what for finding in verify(store, lambda _: [], watch_seconds=0)]
        return {"error": str(exc), "hint": exc.hint, "before": before, "after": seen(store), "findings": findings}
    return {"done": str(done)}


def warned(change: Callable[[], object]) -> list[str]:
    """What is logged meanwhile."""
    logged = BufferingHandler(capacity=100)
    logging.getLogger().addHandler(logged)
    change()
    return [record.getMessage() for record in logged.buffer]


def small_disk(mount_point: str) -> Path:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount_point], check=True)
    return Path(mount_point)


def leave_room(disk: Path, pages: int) -> None:
    (disk / "filler").unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes(PAGE * (free - pages)))
    assert os.statvfs(disk).f_bavail == pages


def full(files: Path, mount_point: str) -> dict:
    """The second publish, with one page more each time until it fits."""
    disk = small_disk(mount_point)
    store = Store(disk / "store")
    store.publish("formal", files, FACTS)
    refused = []
    for pages in range(100):
        leave_room(disk, pages)
        came = attempt(store, lambda: store.publish("formal", files, FACTS).id)
        if "done" in came:
            return {"refused": refused, "published": came["done"]}
        refused.append(came)
    raise SystemExit("the publish never fitted")


def full_commands(files: Path, mount_point: str) -> dict:
    disk = small_disk(mount_point)
    store = Store(disk / "store")
    for _ in range(3):
        store.publish("formal", files, FACTS)
    store.retire("formal@3")
    (disk / "store/casual").mkdir()
    leave_room(disk, 0)
    return {
        "first publish": attempt(store, lambda: store.publish("casual", files, FACTS)),
        "publish": attempt(store, lambda: store.publish("formal", files, FACTS)),
        "promote": attempt(store, lambda: store.promote("formal@2")),
        "canary": attempt(store, lambda: store.promote("formal@2", percent=10)),
        "label": attempt(store, lambda: store.label("formal@2", "candidate")),
        "pin": attempt(store, lambda: store.pin("formal@2")),
        "retire": attempt(store, lambda: store.retire("formal")),
        "bring back": attempt(store, lambda: store.bring_back("formal@3")),
    }


def read_only(template: str) -> dict:
    store, files = Store(Path(template) / "store"), Path(template) / "files"
    lease = Lease(Path(template) / "lease-elsewhere")
    subprocess.run(["mount", "--bind", str(store.directory), str(store.directory)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(store.directory)], check=True)
    version = store.resolve("formal")
    return {
        "read": version.id,
        "verified": [finding.path.name for finding in verify(store, lambda _: [])],
        "would collect": collect(store, dry_run=True).removed,
        "publish": attempt(store, lambda: store.publish("formal", files, FACTS)),
        "publish a new name": attempt(store, lambda: store.publish("casual", files, FACTS)),
        "promote": attempt(store, lambda: store.promote("formal@2")),
        "retire": attempt(store, lambda: store.retire("formal")),
        "collect": attempt(store, lambda: collect(store)),
        "hold": attempt(store, lambda: lease.acquire(version)),
        "load": warned(lambda: store.audit.record("load", version)),
    }


if __name__ == "__main__":
    commands = {
        "full": lambda files, mount_point: full(Path(files), mount_point),
        "full-commands": lambda files, mount_point: full_commands(Path(files), mount_point),
        "read-only": read_only,
    }
    print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))
