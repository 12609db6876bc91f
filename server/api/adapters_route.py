"""/v1/adapters: what every name means and what this server has loaded, and the operator's commands over HTTP.

GET /v1/adapters and GET /v1/adapters/REF only look; POST /v1/adapters/REF/load, pin, unload, promote and rollback do
what the `adapters` command does in the store, and in this server at once. REF is a name, name@version or name@label.
This file does not know how a version is loaded or judged; server/engine/residency.py and adapters/models/promotion.py
do.
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
from server.api.models_route import facts
from server.engine.residency import Residency

EXAMPLE = 'send {"percent": 10, "force": false}, or no body'
MAX_ORDER_BYTES = 2**12
"""A body here is an object of two fields."""

View = dict[str, Any]


class Order(Checked):
    """The body of a promote."""

    model_config = ConfigDict(extra="forbid", strict=True)
    percent: int | None = Field(default=None, ge=1, le=99)
    force: bool = False


def adapter_routes(store: Store, residency: Residency, base: BaseModel, max_rank: int) -> APIRouter:
    """Whoever comes this far may do what the path says (server/api/gate.py); lists have what that caller may use."""
    router = APIRouter()
    views = Views(store, residency)
    commands = Commands(store, residency, base, max_rank)

    # Not async where only the disk is read: FastAPI runs them in a thread.
    @router.get("/v1/adapters")
    def list_adapters(request: Request) -> View:
        names = filter(request.scope[CALLER].may_use, store.names())
        return {"object": "list", "data": [views.adapter(name) for name in names]}

    @router.get("/v1/adapters/{reference}")
    def show_adapter(reference: str) -> View:
        return views.of(reference)

    @router.post("/v1/adapters/{reference}/load")
    async def load(reference: str) -> View:
        return await asyncio.to_thread(views.of, await commands.load(reference))

    @router.post("/v1/adapters/{reference}/pin")
    async def pin(reference: str) -> View:
        return await asyncio.to_thread(views.of, await commands.pin(reference))

    @router.post("/v1/adapters/{reference}/unload")
    async def unload(reference: str) -> View:
        return await asyncio.to_thread(views.of, await commands.unload(reference))

    @router.post("/v1/adapters/{reference}/promote")
    async def promote(reference: str, request: Request) -> View:
        return await asyncio.to_thread(views.adapter, await commands.promote(reference, await order_of(request)))

    @router.post("/v1/adapters/{reference}/rollback")
    async def rollback(reference: str) -> View:
        return await asyncio.to_thread(views.adapter, await commands.roll_back(reference))

    return router


class Views:
    """What is answered of an adapter and of a version. Reads the disk."""

    def __init__(self, store: Store, residency: Residency) -> None:
        self._store = store
        self._residency = residency

    def of(self, reference: str) -> View:
        """A name's adapter, or the version of `name@version` (also a retired one) or `name@label`."""
        name, at, _ = reference.partition("@")
        there = self._store.versions(name)
        if not at and there:
            return self.adapter(name)
        version = next((v for v in there if v.id == reference), None) or self._store.resolve(reference)
        return self._version(version, self._store.pointers(name))

    def adapter(self, name: str) -> View:
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
            known = facts(version)
            created, parent = datetime.fromtimestamp(known.created, UTC).isoformat(), known.parent
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


class Commands:
    """What an operator can order; each answers what it was done to."""

    def __init__(self, store: Store, residency: Residency, base: BaseModel, max_rank: int) -> None:
        self._store = store
        self._residency = residency
        self._base = base
        self._max_rank = max_rank

    async def load(self, reference: str) -> str:
        version = await asyncio.to_thread(self._store.resolve, reference)
        await self._residency.load(version)
        return version.id

    async def pin(self, reference: str) -> str:
        """Loads first, so that what cannot be served is not pinned either."""
        version_id = await self.load(reference)
        await asyncio.to_thread(self._store.pin, version_id)
        return version_id

    async def unload(self, reference: str) -> str:
        """Takes the pin away too.

        Raises:
            ConfigError: requests for the bare name go to it, so that it would be loaded again at once.
        """
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
        return version.id

    async def promote(self, reference: str, order: Order) -> str:
        """Loads first, so that the next request finds it warm.

        `force` overrules its evaluation only: what this server cannot load would answer nobody.
        """
        version = await asyncio.to_thread(find, self._store, reference)
        if not order.force:
            reasons = await asyncio.to_thread(reasons_not_to, version, self._base, self._max_rank)
            if reasons:
                raise AdapterUnusable(version.id, reasons, '{"force": true} overrules its evaluation')
        await self._residency.load(version)
        # Not `reference`: a label may have moved since that version was checked.
        await asyncio.to_thread(self._store.promote, version.id, order.percent)
        return version.name

    async def roll_back(self, name: str) -> str:
        if not NAME.fullmatch(name):
            raise RequestError(f"{name[:80]!r} is no name", "a rollback is of a name: /v1/adapters/NAME/rollback")
        with suppress(MailwrightError):  # warm if possible; whoever rolls back wants that above all
            await self._residency.load(await asyncio.to_thread(self._next_back, name))
        await asyncio.to_thread(self._store.roll_back, name)
        return name

    def _next_back(self, name: str) -> Version:
        return self._store.resolve(f"{name}@{self._store.pointers(name).rolled_back().promoted}")


async def order_of(request: Request) -> Order:
    """The body as an order; none is one too.

    Raises:
        RequestError: it is not.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_ORDER_BYTES:
            raise RequestError(f"the body is larger than {MAX_ORDER_BYTES} bytes", EXAMPLE)
    try:
        return Order.model_validate_json(body) if body else Order()
    except ValidationError as exc:
        wrong = [": ".join([*map(str, error["loc"]), error["msg"]]) for error in exc.errors()]
        raise RequestError(f"the body is no order to promote: {'; '.join(wrong)}", EXAMPLE) from exc
