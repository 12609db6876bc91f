"""GET /openapi.json: exactly the paths, methods and fields that the gate lets through, in the OpenAPI format.

FastAPI's own page is off: it would list vLLM's paths that are 404 here, and its fields that are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from threading import Lock
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from server.api.gate import NAMED, OPEN, READING, WRITING
from server.api.limits import FIELDS, UNSUPPORTED

Json = dict[str, Any]

FAILURES = [400, 401, 403, 404, 408, 431, 500, 503]
PREFIX = "#/components/schemas/"
ERROR_FIELDS: Json = {
    "message": {"type": "string"},
    "type": {"type": "string"},
    "param": {"type": ["string", "null"], "description": "the field of the request that is at fault"},
    "code": {"type": "string", "description": "for programs, as model_not_found"},
}
ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": [*ERROR_FIELDS], "properties": ERROR_FIELDS}},
}
REQUEST_ID: Json = {"X-Request-Id": {"schema": {"type": "string"}, "description": "what the server's log calls it"}}


def openapi_route(app: FastAPI, more_fields: frozenset[str] = frozenset()) -> APIRouter:
    """`more_fields` of vLLM's own are allowed by the operator. The page is made once, at the first request."""
    router, lock = APIRouter(), Lock()

    @cache
    def page() -> bytes:
        return json.dumps(described(app.routes, more_fields)).encode()

    # Not async, so that it runs in a thread: vLLM's 350 schemas take 2 s, and many may ask meanwhile.
    @router.get("/openapi.json", summary="This page")
    def openapi() -> Response:
        with lock:
            return Response(page(), media_type="application/json")

    return router


def described(routes: Iterable[object], more_fields: frozenset[str] = frozenset()) -> Json:
    """The page for those of `routes` that the gate lets through."""
    ours = [route for route in routes if isinstance(route, APIRoute) and _served(route.methods, route.path)]
    page = get_openapi(title="Mailwright", version=version("mailwright"), routes=ours)
    schemas = page.get("components", {}).get("schemas", {})
    for path, operations in page["paths"].items():
        page["paths"][path] = operations = {method: operations[method] for method in _served(operations, path)}
        for method, operation in operations.items():
            _describe_answers(operation, (method.upper(), path))
        if path in FIELDS:
            fields = FIELDS[path] - {*UNSUPPORTED.get(path, ())} | more_fields
            content = operations["post"]["requestBody"]["content"]["application/json"]
            content["schema"] = _only(fields, schemas[_references(content)[0]])
    page["components"] = {
        "schemas": {name: schemas[name] for name in sorted(_used(page["paths"], schemas))} | {"Error": ERROR},
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    return page


def _served(methods: Iterable[str], path: str) -> list[str]:
    """Those of `methods` that the gate lets through to `path`, in which a name may stand in braces."""
    whole = OPEN | WRITING | READING.keys()
    named = {method for method, (pattern, _) in NAMED.items() if pattern.fullmatch(path)}
    return [method for method in methods if (method.upper(), path) in whole or method.upper() in named]


def _describe_answers(operation: Json, route: tuple[str, str]) -> None:
    good = {status: answer for status, answer in operation["responses"].items() if status < "300"}
    failures = [*FAILURES, 413, 422, 429] if route in WRITING else FAILURES
    content = {"application/json": {"schema": {"$ref": f"{PREFIX}Error"}}}
    bad = {str(status): {"description": HTTPStatus(status).phrase, "content": content} for status in failures}
    operation["responses"] = {status: {**answer, "headers": REQUEST_ID} for status, answer in {**good, **bad}.items()}
    if route not in OPEN:
        # A server on a loopback address may have no keys.
        operation["security"] = [{"key": []}, {}]


def _only(fields: frozenset[str], schema: Json) -> Json:
    """A request's `schema` with `fields` and no others; vLLM ignores those that it does not know. A model is named."""
    properties = {name: schema["properties"].get(name, {}) for name in sorted(fields)}
    properties["model"] = {"type": "string", "minLength": 1}
    required = sorted({"model", *schema.get("required", [])})
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _used(part: Json, schemas: Json) -> set[str]:
    """The names of those `schemas` that `part` refers to, itself or through another."""
    found: set[str] = set()
    waiting = _references(part)
    while waiting:
        name = waiting.pop()
        if name in schemas and name not in found:
            found.add(name)
            waiting += _references(schemas[name])
    return found


def _references(part: Any) -> list[str]:
    return re.findall(rf'"\$ref": "{PREFIX}([^"]+)"', json.dumps(part))
