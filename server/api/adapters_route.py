"""/v1/adapters: what every name means and what this server has loaded, and the operator's commands over HTTP.

GET /v1/adapters and GET /v1/adapters/REF only look; POST /v1/adapters/REF/load, pin, unload, promote and rollback do
what the `adapters` command does in the store, and in this server at once. REF is a name, name@version or name@label.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel as Checked
from pydantic import ConfigDict, Field, ValidationError

from adapters.errors import AdapterUnusable, ConfigError, MailwrightError, RequestError, StoreDamaged
from adapters.models.base_models import BaseModel
from adapters.models.promotion import find, reasons_not_to
from adapters.store.describe import status, targets
from adapters.store.manifest import NAME
from adapters.store.pointers import Pointers
from adapters.store.store import Store
from adapters.store.version import Version
from server.api.keys import CALLER
from server.api.models_route import version_info
from server.engine.residency import Residency

EXAMPLE = 'send {"percent": 10, "force": false}, or no body'
# A body here is an object of two fields.
MAX_PROMOTE_BYTES = 2**12

View = dict[str, Any]


class PromoteRequest(Checked):
    """The body of a promote."""

    model_config = ConfigDict(extra="forbid", strict=True)
    percent: int | None = Field(default=None, ge=1, le=99)
    force: bool = False


def adapter_routes(store: Store, residency: Residency, base: BaseModel, max_rank: int) -> APIRouter:
    """The gate checks before whether the caller may do what the path says; lists have what that caller may use."""
    router, routes = APIRouter(), AdapterRoutes(store, residency, base, max_rank)
    router.get("/v1/adapters")(routes.list_adapters)
    router.get("/v1/adapters/{reference}")(routes.show_adapter)
    for command in (routes.load, routes.pin, routes.unload, routes.promote, routes.rollback):
        router.post(f"/v1/adapters/{{reference}}/{command.__name__}")(command)
    return router


class AdapterRoutes:
    """The answers. Those that only read the disk are not async: FastAPI runs them in a thread."""

    def __init__(self, store: Store, residency: Residency, base: BaseModel, max_rank: int) -> None:
        self._store = store
        self._residency = residency
        self._base = base
        self._max_rank = max_rank

    def list_adapters(self, request: Request) -> View:
        names = filter(request.scope[CALLER].may_use, self._store.names())
        return {"object": "list", "data": [self._adapter(name) for name in names]}

    def show_adapter(self, reference: str) -> View:
        """A name's adapter, or the version of `name@version` (also a retired one) or `name@label`."""
        name, at, _ = reference.partition("@")
        there = self._store.versions(name)
        if not at and there:
            return self._adapter(name)
        version = next((v for v in there if v.id == reference), None) or self._store.resolve(reference)
        return self._version(version, self._store.pointers(name))

    async def load(self, reference: str) -> View:
        version = await asyncio.to_thread(self._store.resolve, reference)
        await self._residency.load(version)
        return await asyncio.to_thread(self.show_adapter, version.id)

    async def pin(self, reference: str) -> View:
        """Loads first, so that a version that cannot be served is not pinned either."""
        version = await asyncio.to_thread(self._store.resolve, reference)
        await self._residency.load(version)
        await asyncio.to_thread(self._store.pin, version.id)
        return await asyncio.to_thread(self.show_adapter, version.id)

    async def unload(self, reference: str) -> View:
        """Takes the pin away too."""
        version = await asyncio.to_thread(self._store.resolve, reference)
        pointers = await asyncio.to_thread(self._store.pointers, version.name)
        if version.number in pointers.without_pin(version.number).wanted:
            raise ConfigError(
                f"{version.id} is promoted or on trial, so that it would be loaded again at once",
                "promote another version, or roll back, first",
            )
        if version.number in pointers.pinned:
            await asyncio.to_thread(self._store.unpin, version.id)
        await self._residency.unload(version.id)
        return await asyncio.to_thread(self.show_adapter, version.id)

    async def promote(self, reference: str, request: Request) -> View:
        """Loads first, so that the next request finds it warm; `force` overrules its evaluation only."""
        asked = await read_promote(request)
        version = await asyncio.to_thread(find, self._store, reference)
        if not asked.force:
            reasons = await asyncio.to_thread(reasons_not_to, version, self._base, self._max_rank)
            if reasons:
                raise AdapterUnusable(version.id, reasons, '{"force": true} overrules its evaluation')
        await self._residency.load(version)
        # Not `reference`: a label may have moved since that version was checked.
        await asyncio.to_thread(self._store.promote, version.id, asked.percent)
        return await asyncio.to_thread(self._adapter, version.name)

    async def rollback(self, reference: str) -> View:
        if not NAME.fullmatch(reference):
            message = f"{reference[:80]!r} is not a name"
            raise RequestError(message, "a rollback is of a name: /v1/adapters/NAME/rollback")
        # Loaded if possible; the rollback matters more.
        with suppress(MailwrightError):
            await self._residency.load(await asyncio.to_thread(self._before, reference))
        await asyncio.to_thread(self._store.roll_back, reference)
        return await asyncio.to_thread(self._adapter, reference)

    def _before(self, name: str) -> Version:
        return self._store.resolve(f"{name}@{self._store.pointers(name).rolled_back().promoted}")

    def _adapter(self, name: str) -> View:
        problem = None
        try:
            pointers = self._store.pointers(name)
        except StoreDamaged as exc:  # one damaged adapter must not hide the others
            pointers, problem = Pointers(), str(exc)
        return {
            "id": name,
            "object": "adapter",
            **targets(name, pointers),
            "problem": problem,
            "versions": [self._version(version, pointers) for version in self._store.versions(name)],
        }

    def _version(self, version: Version, pointers: Pointers) -> View:
        problem = created = parent = None
        try:
            info = version_info(version)
            created, parent = datetime.fromtimestamp(info.created, UTC).isoformat(), info.parent
        except StoreDamaged as exc:
            problem = str(exc)
        resident = self._residency.residents().get(version.id)
        return {
            "id": version.id,
            "object": "adapter.version",
            "digest": version.digest,
            "created": created,
            "parent": parent,
            **status(version, pointers),
            "loaded": resident is not None,
            "in_use": resident.in_use if resident else 0,
            "refused": self._residency.refusals().get(version.id),
            "problem": problem,
        }


async def read_promote(request: Request) -> PromoteRequest:
    """Raises:
    RequestError: the body is neither empty nor a PromoteRequest.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_PROMOTE_BYTES:
            raise RequestError(f"the body is larger than {MAX_PROMOTE_BYTES} bytes", EXAMPLE)
    try:
        return PromoteRequest.model_validate_json(body or b"{}")
    except ValidationError as exc:
        wrong = [": ".join([*map(str, error["loc"]), error["msg"]]) for error in exc.errors()]
        raise RequestError(f"invalid promote request: {'; '.join(wrong)}", EXAMPLE) from exc
