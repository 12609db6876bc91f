"""Which versions are loaded, loading or refused; one load at a time for each, and a bound on cold loads at once.

vLLM remembers no failure and rolls none back: every retry of a broken adapter costs a load and may evict a good one. So
a version is judged before vLLM sees it, and a refusal is remembered for as long as the process lives: a version never
changes. This file knows neither HTTP nor vLLM; both loading and judging are handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import ValidationError

from adapters.base_model import BaseModel
from adapters.errors import AdapterUnusable, Overloaded
from adapters.store import Version, content_digest
from adapters.validate import reasons_against

MAX_COLD_LOADS = 8
"""A cold load stalls every running stream for its disk read; beyond a few at once, callers had better come back."""

Reasons = list[str]


class Residency:
    """Both functions answer the reasons why a version cannot be served, and none if it can.

    `judge` runs in a thread before `load`; `load` runs on the event loop.
    """

    def __init__(
        self,
        judge: Callable[[Version], Reasons],
        load: Callable[[Version], Awaitable[Reasons]],
        max_cold_loads: int = MAX_COLD_LOADS,
    ) -> None:
        self._judge = judge
        self._load = load
        self._max_cold_loads = max_cold_loads
        self._loaded: dict[str, Path] = {}
        self._refused: dict[Path, Reasons] = {}
        self._loading: dict[Path, asyncio.Task[Reasons]] = {}

    async def ensure(self, version: Version) -> None:
        """Return once `version` is loaded. A caller that goes away does not stop the load that others wait for.

        Raises:
            AdapterUnusable: it fails validation or loading, now or at an earlier request.
            Overloaded: too many other versions are being loaded.
        """
        if self._loaded.get(version.id) == version.path:
            return
        reasons = self._refused.get(version.path)
        if reasons is None:
            reasons = await asyncio.shield(self._loading.get(version.path) or self._start(version))
        if reasons:
            raise AdapterUnusable(version.id, reasons)

    def _start(self, version: Version) -> asyncio.Task[Reasons]:
        if len(self._loading) >= self._max_cold_loads:
            raise Overloaded(f"{len(self._loading)} adapters are being loaded already", retry_after=1)
        task = asyncio.create_task(self._admit(version), name=f"load {version.id}")
        self._loading[version.path] = task
        task.add_done_callback(lambda done: self._finish(version.path, done))
        return task

    async def _admit(self, version: Version) -> Reasons:
        reasons = self._clash(version) or await asyncio.to_thread(self._judge, version) or await self._load(version)
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
    reasons = reasons_against(version.path, base.path, max_rank)
    try:
        manifest = version.manifest()
    except (OSError, ValidationError) as exc:
        return [*reasons, f"its manifest cannot be read ({type(exc).__name__})"]
    if manifest.base_fingerprint != base.fingerprint:
        trained, served = manifest.base_fingerprint[:19], base.fingerprint[:19]
        reasons.append(
            f"it was trained on {manifest.base_name} ({trained}...), and this server serves {base.name} ({served}...)"
        )
    if not reasons and content_digest(version.path) != manifest.adapter_sha256:
        reasons.append("its files are not the ones that were published")
    return reasons
