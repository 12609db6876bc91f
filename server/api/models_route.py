"""The routes that replace vLLM's own: what can be asked for, and what the server measures.

GET /v1/models answers from the store: the base model and every promoted name, which is what clients show their users;
with `?versions=all` every label and every exact version too, loaded or not. vLLM lists only what is loaded. This file
does not know what can be served: a version that turns out to be unusable is listed too, and says why when it is asked.
It knows no series either; those are in server/metrics.py.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest, gzip_accepted

from adapters.errors import RequestError, StoreDamaged
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from adapters.store.version import Version
from server.api.keys import CALLER, Caller
from server.engine.residency import Residency

Card = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What never changes of a version; `created` is in seconds since 1970, `digest` the first 12 hex digits."""

    created: float
    parent: str
    digest: str


@lru_cache(maxsize=2**16)  # a list of 1,000 adapters is read again and again, and a failure is not kept
def facts(version: Version) -> Facts:
    """Raises:
    StoreDamaged: its manifest is missing or damaged.
    """
    manifest = version.manifest()
    return Facts(manifest.created.timestamp(), manifest.base_name, version.digest)


def model_routes(store: Store, base: BaseModel, base_names: tuple[str, ...], residency: Residency) -> APIRouter:
    router = APIRouter()
    started = int(time.time())

    def base_card(name: str, request: Request) -> Card:
        length = request.app.state.vllm_config.model_config.max_model_len
        return {**card(name, base.name, None, started), "max_model_len": length}

    def version_card(name: str, version: Version) -> Card:
        try:
            known = facts(version)
            created, parent = int(known.created), known.parent
        except StoreDamaged:
            created, parent = 0, base.name
        loaded = version.id in residency.residents()
        return {**card(name, version.id, parent, created), "digest": version.digest, "loaded": loaded}

    # Not async: FastAPI runs them in a thread, because they read the disk.
    @router.get("/v1/models")
    def list_models(request: Request, versions: str = "promoted") -> Card:
        if versions not in ("promoted", "all"):
            raise RequestError(f"versions={versions[:80]} is unknown", "ask with versions=all, or without it")
        caller: Caller = request.scope[CALLER]
        cards = [base_card(name, request) for name in base_names if caller.may_use(name, base_names)]
        meanings = _meanings(store, versions == "all")
        cards += [version_card(name, version) for name, version in meanings if caller.may_use(name)]
        return {"object": "list", "data": cards}

    @router.get("/v1/models/{model}")
    def show_model(model: str, request: Request) -> Card:
        if model in base_names:
            return base_card(model, request)
        return version_card(model, store.resolve(model))

    return router


def _meanings(store: Store, every: bool) -> Iterator[tuple[str, Version]]:
    """What can be asked for now, with the version that it means; `every`: labels and exact versions too."""
    for name in store.names():
        try:
            pointers = store.pointers(name)
        except StoreDamaged:  # nothing of that name is answered until it is mended; the others are
            continue
        there = {v.number: v for v in store.versions(name) if v.number not in pointers.retired}
        if pointers.promoted in there:
            yield name, there[pointers.promoted]
        if every:
            yield from ((f"{name}@{label}", there[n]) for label, n in pointers.labels.items() if n in there)
            yield from ((version.id, version) for version in there.values())


def metrics_route(registry: CollectorRegistry) -> APIRouter:
    """GET /metrics with everything in `registry`, ours and vLLM's; `?name[]=SERIES` picks, as Prometheus clients do."""
    router = APIRouter()

    # Not async, so it runs in a thread: 200 adapters take a tenth of a second, in which no stream may stand still.
    # Always plain text, though Prometheus would rather have OpenMetrics: there the client library (0.26) writes
    # `vllm_x` for vLLM's `vllm:x`, under which no dashboard looks for it.
    @router.get("/metrics", response_class=PlainTextResponse)
    def metrics(request: Request) -> Response:
        names = request.query_params.getlist("name[]")
        body = generate_latest(registry.restricted_registry(names) if names else registry)
        headers = {"content-type": CONTENT_TYPE_PLAIN_0_0_4}
        if gzip_accepted(request.headers.get("accept-encoding", "")):
            body, headers["content-encoding"] = gzip.compress(body), "gzip"
        return Response(body, headers=headers)

    return router


def card(name: str, root: str, parent: str | None, created: int) -> Card:
    """OpenAI's model object; `root` is what `name` means right now, `parent` the base model of an adapter."""
    return {"id": name, "object": "model", "created": created, "owned_by": "mailwright", "root": root, "parent": parent}
