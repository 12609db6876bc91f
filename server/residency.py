"""Which versions are loaded, loading or refused; one load at a time for each, and a bound on cold loads at once.

vLLM remembers no failure and rolls none back: every retry of a broken adapter costs a load and may evict a good one. So
a version is judged before vLLM sees it, and a refusal is remembered for as long as the process lives: a version never
changes. This file knows neither HTTP nor vLLM; both loading and judging are handed in.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import ValidationError

from adapters.base_model import BaseModel
from adapters.errors import AdapterUnusable, Overloaded
from adapters.manifest import Manifest
from adapters.store import Version, content_digest
from adapters.validate import reasons_against
from server.metrics import LoadResult

MAX_COLD_LOADS = 8
"""A cold load stalls every running stream for its disk read; beyond a few at once, callers had better come back."""

Reasons = list[str]


class Residency:
    """`judge` and `load` answer the reasons why a version cannot be served, and none if it can.

    `judge` runs in a thread before `load`; `load` runs on the event loop. `report` hears of every load when it is over,
    with the name of the adapter, the result and the seconds that it took.
    """

    def __init__(
        self,
        judge: Callable[[Version], Reasons],
        load: Callable[[Version], Awaitable[Reasons]],
        report: Callable[[str, LoadResult, float], None] = lambda *_: None,
        max_cold_loads: int = MAX_COLD_LOADS,
    ) -> None:
        self._judge = judge
        self._load = load
        self._report = report
        self._max_cold_loads = max_cold_loads
        self._loaded: dict[str, Path] = {}
        self._refused: dict[Path, Reasons] = {}
        self._loading: dict[Path, asyncio.Task[Reasons]] = {}

    async def ensure(self, version: Version) -> bool:
        """Return once `version` is loaded: True if the caller had to wait for that.

        A caller that goes away does not stop the load that others wait for.

        Raises:
            AdapterUnusable: it fails validation or loading, now or at an earlier request.
            Overloaded: too many other versions are being loaded.
        """
        if self._loaded.get(version.id) == version.path:
            return False
        reasons = self._refused.get(version.path)
        if reasons is None:
            reasons = await asyncio.shield(self._loading.get(version.path) or self._start(version))
        if reasons:
            raise AdapterUnusable(version.id, reasons)
        return True

    def _start(self, version: Version) -> asyncio.Task[Reasons]:
        if len(self._loading) >= self._max_cold_loads:
            raise Overloaded(f"{len(self._loading)} adapters are being loaded already", retry_after=1)
        task = asyncio.create_task(self._admit(version), name=f"load {version.id}")
        self._loading[version.path] = task
        task.add_done_callback(lambda done: self._finish(version.path, done))
        return task

    async def _admit(self, version: Version) -> Reasons:
        started = time.monotonic()
        result: LoadResult = "failed"
        try:
            reasons = self._clash(version) or await asyncio.to_thread(self._judge, version)
            if reasons:
                result = "refused"
            elif not (reasons := await self._load(version)):
                result = "loaded"
        finally:
            self._report(version.name, result, time.monotonic() - started)
        if reasons:
            self._refused[version.path] = reasons
        else:
            self._loaded[version.id] = version.path
        return reasons

    def _clash(self, version: Version) -> Reasons:
        """vLLM knows a version by its name alone: a store emptied and filled again needs a new process."""
        held = self._loaded.get(version.id)
        return [f"the server still holds another {version.id}, of {held.name}; restart it"] if held else []

    def _finish(self, path: Path, task: asyncio.Task[Reasons]) -> None:
        del self._loading[path]
        if not task.cancelled():
            # Looked at, so that a failure whose callers have all gone is no "exception was never retrieved".
            task.exception()


def reasons_to_refuse(version: Version, base: BaseModel, max_rank: int) -> Reasons:
    """Everything that speaks against serving `version` on `base`, from its files alone; reads all of them."""
    try:
        manifest = version.manifest()
    except (OSError, ValidationError) as exc:
        unreadable = f"its manifest cannot be read ({type(exc).__name__})"
        return [*reasons_against(version.path, base.path, max_rank), unreadable]
    if manifest.base_fingerprint != base.fingerprint:
        # Its tensors need not fit this base model: hundreds of reasons that all mean this one.
        return [_foreign(manifest, base), *reasons_against(version.path, None, max_rank)]
    reasons = reasons_against(version.path, base.path, max_rank)
    if not reasons and content_digest(version.path) != manifest.adapter_sha256:
        reasons.append("its files are not the ones that were published")
    return reasons


def _foreign(manifest: Manifest, base: BaseModel) -> str:
    trained, served = manifest.base_fingerprint[:19], base.fingerprint[:19]
    return (
        f"it was trained on {manifest.base_name} ({trained}...), and this server serves {base.name} ({served}...): "
        f"serve it with `server --base {shlex.quote(manifest.base)}`"
    )
