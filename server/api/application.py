"""Puts the parts of a server together: our routes, and the layers that every request passes, in vLLM's application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from adapters.errors import MailwrightError
from adapters.models.base_models import BaseModel
from server.api.adapters_route import adapter_routes
from server.api.errors import ErrorLayer, answer_in_routes, invalid_fields
from server.api.gate import NAMED_EVENTS, WRITING, Gate
from server.api.models_route import metrics_route, model_routes
from server.api.openapi import openapi_route
from server.api.request_metrics import MetricsLayer
from server.engine.voices import Voices
from server.metrics import Metrics


def add_routes(
    app: FastAPI,
    voices: Voices,
    base: BaseModel,
    base_names: tuple[str, ...],
    max_rank: int,
    more_fields: frozenset[str],
    registry: CollectorRegistry,
) -> None:
    app.include_router(model_routes(voices.store, base, base_names, voices.residency))
    app.include_router(adapter_routes(voices.store, voices.residency, base, max_rank))
    app.include_router(metrics_route(registry))
    app.include_router(openapi_route(app, more_fields))
    app.add_exception_handler(MailwrightError, answer_in_routes(voices.store))


def add_layers(app: FastAPI, metrics: Metrics, cross_origin: bool, **gate: Any) -> None:
    """`gate`: what Gate takes. To be called when vLLM has added all of its own layers."""
    # vLLM counts each request by its path; ours count more, and both together took twice as long. Without allowed
    # origins its CORS layer would only add to every answer that no web site may read it.
    superfluous: list[Any] = [PrometheusInstrumentatorMiddleware, *([] if cross_origin else [CORSMiddleware])]
    app.user_middleware = [layer for layer in app.user_middleware if layer.cls not in superfluous]
    app.exception_handlers[RequestValidationError] = invalid_fields
    app.middleware_stack = wrapped(app.build_middleware_stack(), layers(metrics, cross_origin=cross_origin, **gate))


def layers(metrics: Metrics, **gate: Any) -> list[Middleware]:
    """Around everything of vLLM's, the outermost first."""
    return [
        Middleware(MetricsLayer, metrics=metrics, counted=WRITING),
        Middleware(ErrorLayer, named_events=NAMED_EVENTS),
        Middleware(Gate, **gate),
    ]


def wrapped(app: ASGIApp, around: list[Middleware]) -> ASGIApp:
    for layer, arguments, options in reversed(around):
        app = layer(app, *arguments, **options)
    return app
