"""The routes that replace vLLM's own: what can be asked for, and what the server measures.

GET /v1/models answers from the store: the base model, every promoted name and every exact version, loaded or not; vLLM
lists only what is loaded. This file does not know what can be served: a version that turns out to be unusable is listed
too, and says why when it is asked. It knows no series either; those are in server/metrics.py.
"""

from __future__ import annotations

import gzip
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest, gzip_accepted

from adapters.base_model import BaseModel
from adapters.store import Store, Version

Card = dict[str, Any]


def model_routes(store: Store, base: BaseModel, base_names: tuple[str, ...]) -> APIRouter:
    router = APIRouter()
    started = int(time.time())

    def base_card(name: str, request: Request) -> Card:
        length = request.app.state.vllm_config.model_config.max_model_len
        return {**card(name, base.name, None, started), "max_model_len": length}

    def version_card(name: str, version: Version) -> Card:
        return card(name, version.id, base.name, int(version.path.stat().st_mtime))

    # Not async: FastAPI runs them in a thread, because they read the disk.
    @router.get("/v1/models")
    def list_models(request: Request) -> Card:
        cards = [base_card(name, request) for name in base_names]
        for name in store.names():
            promoted = store.promoted(name)
            cards += [version_card(name, promoted)] if promoted else []
            cards += [version_card(version.id, version) for version in store.versions(name)]
        return {"object": "list", "data": cards}

    @router.get("/v1/models/{model}")
    def show_model(model: str, request: Request) -> Card:
        if model in base_names:
            return base_card(model, request)
        return version_card(model, store.resolve(model))

    return router


def metrics_route(registry: CollectorRegistry) -> APIRouter:
    """GET /metrics with everything in `registry`, ours and vLLM's; `?name[]=SERIES` picks, as Prometheus clients do."""
    router = APIRouter()

    # Not async, so it runs in a thread: 200 adapters take a tenth of a second, in which no stream may stand still.
    # Always plain text, though Prometheus would rather have OpenMetrics: there the client library (0.26) writes
    # `vllm_x` for vLLM's `vllm:x`, under which no dashboard looks for it.
    @router.get("/metrics")
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
