"""This server's claim on the files of the versions that it may have loaded: its lease in the store.

Without a lease, in a store that this process cannot write, it serves all the same and says what that means. This file
does not know what is loaded; server/engine/residency.py does.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections import Counter

from adapters.errors import AdapterNotFound
from adapters.store.leases import HEARTBEAT_SECONDS, Lease
from adapters.store.store import Store
from adapters.store.version import Version

logger = logging.getLogger(__name__)


class StoreClaims:
    """Counts, because a version may be loaded again while its unloading is not over. To be used from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._lease = _lease(store)

    def hold(self, version: Version) -> None:
        with self._lock:
            if self._lease:
                self._store.hold(version, self._lease)
            elif not version.path.is_dir():
                raise AdapterNotFound(f"the files of {version.id} are gone")
            self._held[version.id] += 1

    def release(self, version: Version) -> None:
        with self._lock:
            self._held[version.id] -= 1
            if not self._held[version.id]:
                del self._held[version.id]
                if self._lease:
                    self._lease.release(version.id)

    async def keep_alive(self, every: float = HEARTBEAT_SECONDS) -> None:
        """Have the lease's heartbeat beat until cancelled."""
        while self._lease:
            await asyncio.to_thread(self._lease.beat)
            await asyncio.sleep(every)


def _lease(store: Store) -> Lease | None:
    try:
        lease = Lease(store.directory)
    except OSError as exc:
        logger.warning(
            "the store %s cannot be written (%s): `adapters gc` will not know what this server has loaded, so retire"
            " and collect only what no server without a lease uses",
            store.directory,
            exc.strerror,
        )
        return None
    atexit.register(lease.close)
    return lease
