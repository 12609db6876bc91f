"""The routes that replace vLLM's own: /v1/models and /metrics.

GET /v1/models answers from the store: the base model and every promoted name, alone and with `:checked`; with
`?versions=all` every label and every exact version too, loaded or not. vLLM lists only loaded ones. A version that
cannot be served is listed too: a request for it is answered with the reasons.
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
from server.drafts.asked import CHECKED, MAX_DRAFTS
from server.engine.residency import Residency

Card = dict[str, Any]


@dataclass(frozen=True)
class VersionInfo:
    """The parts of a manifest that lists show; `created` is in seconds since 1970."""

    created: float
    parent: str
    # What the server puts before a request without a system message.
    instruction: str = ""


@lru_cache(maxsize=2**16)  # a list of 1,000 adapters is read again and again; a failure is not kept
def version_info(version: Version) -> VersionInfo:
    """Raises:
    StoreDamaged: its manifest is missing or damaged.
    """
    manifest = version.manifest()
    return VersionInfo(manifest.created.timestamp(), manifest.base_name, manifest.instruction)


def model_routes(store: Store, base: BaseModel, base_names: tuple[str, ...], residency: Residency) -> APIRouter:
    router = APIRouter()
    started = int(time.time())

    def base_card(name: str, request: Request) -> Card:
        length = request.app.state.vllm_config.model_config.max_model_len
        return {**card(name, base.name, None, started), "max_model_len": length}

    # Not async: FastAPI runs them in a thread, because they read the disk.
    @router.get("/v1/models")
    def list_models(request: Request, versions: str = "promoted") -> Card:
        if versions not in ("promoted", "all"):
            raise RequestError(f"versions={versions[:80]} is unknown", "ask with versions=all, or without it")
        caller: Caller = request.scope[CALLER]
        cards = [base_card(name, request) for name in base_names if caller.may_use(name, base_names)]
        named = _models(store, versions == "all")
        cards += [version_card(name, version, base, residency) for name, version in named if caller.may_use(name)]
        if caller.drafts != 0:
            voices = [each for each in cards if each["parent"] and "@" not in each["id"]]
            cards += [each | {"id": f"{each['id']}{CHECKED}"} for each in voices]
        return {"object": "list", "data": cards}

    @router.get("/v1/models/{model}")
    def show_model(model: str, request: Request) -> Card:
        if model in base_names:
            return base_card(model, request)
        version = store.resolve(model.removesuffix(CHECKED))
        return version_card(model, version, base, residency)

    return router


def _models(store: Store, every: bool) -> Iterator[tuple[str, Version]]:
    """Names of models with their versions; `every`: labels and exact versions too."""
    for name in store.names():
        try:
            pointers = store.pointers(name)
        except StoreDamaged:  # only requests for this name fail
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
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "mailwright",
        "root": root,
        "parent": parent,
        "drafts": MAX_DRAFTS,
    }


def version_card(name: str, version: Version, base: BaseModel, residency: Residency) -> Card:
    try:
        info = version_info(version)
    except StoreDamaged:
        info = VersionInfo(0, base.name)
    return {
        **card(name, version.id, info.parent, int(info.created)),
        "digest": version.digest,
        "loaded": version.id in residency.residents(),
        "instruction": info.instruction,
    }
