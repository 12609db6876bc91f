"""The page of what this server has, made from the routes of a small application and of vLLM's own."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

from server.api.limits import CHAT, FIELDS
from server.api.openapi import described, openapi_route


class Part(BaseModel):
    text: str


class Message(BaseModel):
    parts: list[Part]


class Secret(BaseModel):
    rank: int


class Chat(BaseModel):
    model: str | None = None
    messages: list[Message]
    lora_rank_from_vllm: Secret | None = None
    priority: int = 0


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.post(CHAT, responses={200: {"content": {"text/event-stream": {}}}, 400: {"model": Secret}})
    def chat(request: Chat) -> None: ...

    @app.post("/invocations")
    def invocations(request: Chat) -> None: ...

    @app.get("/health")
    def health() -> None: ...

    @app.delete("/health")
    def unhealthy() -> None: ...

    @app.get("/v1/models/{model}")
    def model(model: str) -> None: ...

    @app.post("/v1/adapters/{reference}/promote")
    def promote(reference: str) -> None: ...

    app.include_router(openapi_route(app))
    return app


def page_of(app: FastAPI) -> dict[str, Any]:
    return TestClient(app).get("/openapi.json").json()


def test_it_lists_what_the_gate_lets_through_and_nothing_else(app: FastAPI):
    assert {path: sorted(methods) for path, methods in page_of(app)["paths"].items()} == {
        CHAT: ["post"],
        "/health": ["get"],
        "/openapi.json": ["get"],
        "/v1/adapters/{reference}/promote": ["post"],
        "/v1/models/{model}": ["get"],
    }


def request_schema(page: dict[str, Any]) -> dict[str, Any]:
    return page["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]


def test_a_request_has_the_fields_of_openai_and_not_those_of_vllm(app: FastAPI):
    schema = request_schema(page_of(app))
    assert {"model", "messages"} <= schema["properties"].keys() <= FIELDS[CHAT]
    assert schema["required"] == ["messages", "model"]
    assert schema["additionalProperties"] is False


def test_it_has_the_fields_that_the_operator_allows(app: FastAPI):
    schema = request_schema(described(app.routes, frozenset({"priority"})))
    assert schema["properties"]["priority"]["type"] == "integer"


def test_schemas_that_nothing_needs_any_more_are_left_out(app: FastAPI):
    assert page_of(app)["components"]["schemas"].keys() == {"Error", "Message", "Part"}


def test_every_error_is_openais(app: FastAPI):
    operations = [operation for methods in page_of(app)["paths"].values() for operation in methods.values()]
    for operation in operations:
        failures = {s: answer for s, answer in operation["responses"].items() if s >= "400"}
        assert {"400", "404", "408", "431", "500", "503"} <= failures.keys()
        for answer in failures.values():
            assert answer["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        assert all("X-Request-Id" in answer["headers"] for answer in operation["responses"].values())


def test_all_but_the_health_may_need_a_key(app: FastAPI):
    paths = page_of(app)["paths"]
    assert "security" not in paths["/health"]["get"]
    assert paths[CHAT]["post"]["security"] == [{"key": []}, {}]


def test_it_is_made_at_the_first_request_when_every_route_is_there(app: FastAPI):
    @app.get("/v1/adapters")
    def late() -> None: ...

    first = page_of(app)
    assert "/v1/adapters" in first["paths"]
    app.router.routes.clear()
    app.include_router(openapi_route(app))
    assert page_of(app)["paths"].keys() == {"/openapi.json"}
