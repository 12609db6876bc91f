"""/v1/adapters: what an operator sees and can order, over a residency in memory and on the real server."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient

from adapters.errors import MailwrightError
from adapters.models.base_models import BaseModel
from adapters.store.store import POINTERS, Store
from adapters.store.version import Version
from server.api.access import LOCAL
from server.api.adapters_route import MAX_PROMOTE_BYTES, adapter_routes
from server.api.errors import body_of
from server.api.keys import Caller
from tests import tiny
from tests.server.callers import asked_by
from tests.server.fake_engine import FakeEngine
from tests.serving import RunningServer

COMMANDS = ["load", "pin", "unload", "promote", "rollback"]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def operator(store: Store, base_model: BaseModel, engine: FakeEngine) -> Iterator[TestClient]:
    with asking(store, base_model, engine) as client:
        yield client


def asking(store: Store, base: BaseModel, engine: FakeEngine, capacity: int = 4, caller: Caller = LOCAL) -> TestClient:
    app = FastAPI()
    app.include_router(adapter_routes(store, engine.residency(capacity), base, 16))
    app.add_exception_handler(MailwrightError, lambda _, error: Response(body_of(error), error.status))
    return TestClient(asked_by(app, caller))


def versions(client: TestClient, name: str = "formal") -> dict[str, dict[str, Any]]:
    return {version["id"]: version for version in client.get(f"/v1/adapters/{name}").json()["versions"]}


def error_of(answer: httpx.Response, status: int, code: str) -> str:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    return str(error["message"])


def publish_failed(store: Store, base: BaseModel) -> Version:
    """A version that did not pass its evaluation."""
    evaluation = {"passed": False, "reasons": ["it is worse than the base model on 7 of 10 emails"]}
    with tempfile.TemporaryDirectory() as scratch:
        files = tiny.make_adapter(base.path, Path(scratch) / "adapter", 5)
        return store.publish("formal", files, tiny.facts(base.name, base.fingerprint) | {"evaluation": evaluation})


def test_the_list_says_of_every_name_what_it_means(store: Store, operator: TestClient):
    store.promote("formal@2", 10)
    store.label("formal@2", "candidate")
    answer = operator.get("/v1/adapters").json()
    formal, friendly = answer["data"]
    assert {key: value for key, value in formal.items() if key != "versions"} == {
        "id": "formal",
        "object": "adapter",
        "promoted": "formal@1",
        "canary": {"id": "formal@2", "percent": 10},
        "labels": {"candidate": "formal@2"},
        "problem": None,
    }
    assert [version["id"] for version in formal["versions"]] == ["formal@1", "formal@2"]
    assert (friendly["promoted"], friendly["canary"], friendly["labels"]) == ("friendly@1", None, {})


def test_a_version_says_where_it_comes_from_and_how_it_stands(store: Store, operator: TestClient):
    version = store.resolve("formal@2")
    store.label("formal@2", "candidate")
    assert operator.get("/v1/adapters/formal@2").json() == {
        "id": "formal@2",
        "object": "adapter.version",
        "digest": version.path.name.removeprefix("2-"),
        "created": version.manifest().created.isoformat(),
        "parent": "tiny-llama",
        "promoted": False,
        "canary": None,
        "labels": ["candidate"],
        "pinned": False,
        "retired": False,
        "loaded": False,
        "in_use": 0,
        "refused": None,
        "problem": None,
    }
    assert operator.get("/v1/adapters/formal@candidate").json()["id"] == "formal@2"


def test_a_retired_version_is_still_shown_and_says_so(store: Store, operator: TestClient):
    store.retire("formal@2")
    assert operator.get("/v1/adapters/formal@2").json()["retired"]
    assert versions(operator)["formal@2"]["retired"]


@pytest.mark.parametrize("asked", ["frmal", "formal@7", "formal@candidate", "base", "..", "FORMAL"])
def test_what_is_not_there_is_not_found(operator: TestClient, asked: str):
    error_of(operator.get(f"/v1/adapters/{asked.replace('.', '%2e')}"), 404, "model_not_found")


def test_one_damaged_adapter_hides_no_other(store: Store, operator: TestClient):
    (store.directory / "formal" / POINTERS).write_text("{")
    (store.resolve("friendly").path / "manifest.json").write_text("{")
    formal, friendly = operator.get("/v1/adapters").json()["data"]
    assert "is damaged" in formal["problem"]
    assert len(formal["versions"]) == 2
    assert friendly["problem"] is None
    assert "damaged" in friendly["versions"][0]["problem"]


def test_the_list_has_what_the_key_may_use(store: Store, base_model: BaseModel, engine: FakeEngine):
    one = Caller("1", "one", frozenset({"infer"}), ("fr*",))
    with asking(store, base_model, engine, caller=one) as client:
        assert [adapter["id"] for adapter in client.get("/v1/adapters").json()["data"]] == ["friendly"]


def test_load_loads_what_the_reference_means(store: Store, operator: TestClient, engine: FakeEngine):
    store.label("formal@2", "candidate")
    answer = operator.post("/v1/adapters/formal@candidate/load").json()
    assert (answer["id"], answer["loaded"]) == ("formal@2", True)
    assert engine.held == ["formal@2"]
    assert operator.post("/v1/adapters/formal/load").json()["id"] == "formal@1"


def test_what_cannot_be_loaded_is_refused_and_the_reasons_stand_there(operator: TestClient, engine: FakeEngine):
    engine.judged = ["its rank is 64", "it changes nothing"]
    said = error_of(operator.post("/v1/adapters/formal/load"), 422, "adapter_unusable")
    assert "its rank is 64; it changes nothing" in said
    assert versions(operator)["formal@1"]["refused"] == ["its rank is 64", "it changes nothing"]
    assert versions(operator)["formal@2"]["refused"] is None


def test_pin_loads_and_pins_the_version(store: Store, operator: TestClient, engine: FakeEngine):
    answer = operator.post("/v1/adapters/formal@2/pin").json()
    assert (answer["id"], answer["pinned"], answer["loaded"]) == ("formal@2", True, True)
    assert (store.pointers("formal").pinned, engine.held) == ((2,), ["formal@2"])


def test_what_cannot_be_loaded_is_not_pinned(store: Store, operator: TestClient, engine: FakeEngine):
    engine.judged = ["its rank is 64"]
    error_of(operator.post("/v1/adapters/formal@2/pin"), 422, "adapter_unusable")
    assert store.pointers("formal").pinned == ()


def test_unload_takes_the_pin_away_and_frees_the_engine(store: Store, operator: TestClient, engine: FakeEngine):
    operator.post("/v1/adapters/formal@2/pin")
    answer = operator.post("/v1/adapters/formal@2/unload").json()
    assert (answer["pinned"], answer["loaded"]) == (False, False)
    assert (store.pointers("formal").pinned, engine.held) == ((), [])


def test_unload_of_what_is_not_loaded_changes_nothing(store: Store, operator: TestClient):
    before = (store.directory / "formal" / POINTERS).stat()
    assert operator.post("/v1/adapters/formal@2/unload").json()["loaded"] is False
    assert (store.directory / "formal" / POINTERS).stat().st_ino == before.st_ino


@pytest.mark.parametrize("asked", ["formal", "formal@1", "formal@2"])
def test_what_would_be_loaded_again_at_once_is_not_unloaded(
    store: Store, operator: TestClient, engine: FakeEngine, asked: str
):
    store.promote("formal@2", 10)
    store.pin("formal@2")
    operator.post(f"/v1/adapters/{asked}/load")
    assert "promoted or on trial" in error_of(operator.post(f"/v1/adapters/{asked}/unload"), 400, "invalid_request")
    assert len(engine.held) == 1
    assert store.pointers("formal").pinned == (2,)


def test_promote_loads_before_the_name_moves(store: Store, base_model: BaseModel):
    class Watching(FakeEngine):
        async def load(self, version: Version) -> list[str]:
            promoted.append(str(store.pointers("formal").promoted))
            return await super().load(version)

    promoted: list[str] = []
    engine = Watching()
    with asking(store, base_model, engine) as client:
        answer = client.post("/v1/adapters/formal@2/promote").json()
    assert (answer["id"], answer["promoted"]) == ("formal", "formal@2")
    assert answer["versions"][1]["loaded"]
    assert (promoted, engine.held) == (["1"], ["formal@2"])


def test_what_a_label_means_can_be_promoted(store: Store, operator: TestClient):
    store.label("formal@2", "candidate")
    assert operator.post("/v1/adapters/formal@candidate/promote").json()["promoted"] == "formal@2"


def test_a_canary_begins_with_a_percentage_and_ends_with_a_rollback(store: Store, operator: TestClient):
    begun = operator.post("/v1/adapters/formal@2/promote", json={"percent": 10}).json()
    assert (begun["promoted"], begun["canary"]) == ("formal@1", {"id": "formal@2", "percent": 10})
    ended = operator.post("/v1/adapters/formal/rollback").json()
    assert (ended["promoted"], ended["canary"]) == ("formal@1", None)


def test_a_version_that_failed_its_evaluation_is_promoted_by_force_only(
    store: Store, base_model: BaseModel, operator: TestClient, engine: FakeEngine
):
    failed = publish_failed(store, base_model)
    said = error_of(operator.post(f"/v1/adapters/{failed.id}/promote"), 422, "adapter_unusable")
    assert "worse than the base model on 7 of 10 emails" in said
    assert '{"force": true}' in said
    assert (store.promoted("formal"), engine.load_calls) == (store.resolve("formal@1"), [])
    forced = operator.post(f"/v1/adapters/{failed.id}/promote", json={"force": True}).json()
    assert forced["promoted"] == failed.id


def test_a_broken_version_is_refused_before_the_engine_sees_it(store: Store, operator: TestClient, engine: FakeEngine):
    (store.resolve("formal@2").path / "adapter_model.safetensors").write_bytes(b"broken")
    error_of(operator.post("/v1/adapters/formal@2/promote"), 422, "adapter_unusable")
    assert (store.promoted("formal"), engine.load_calls) == (store.resolve("formal@1"), [])


@pytest.mark.parametrize("force", [False, True])
def test_what_this_server_cannot_load_it_does_not_promote(
    store: Store, operator: TestClient, engine: FakeEngine, force: bool
):
    engine.loaded = ["vLLM could not load it"]
    answer = operator.post("/v1/adapters/formal@2/promote", json={"force": force})
    assert "vLLM could not load it" in error_of(answer, 422, "adapter_unusable")
    assert store.promoted("formal") == store.resolve("formal@1")


def test_without_room_nothing_is_promoted(store: Store, base_model: BaseModel, engine: FakeEngine):
    with asking(store, base_model, engine, capacity=0) as client:
        error_of(client.post("/v1/adapters/formal@2/promote"), 503, "overloaded")
    assert store.promoted("formal") == store.resolve("formal@1")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"percent": 0}', "percent: "),
        (b'{"percent": 100}', "percent: "),
        (b'{"percent": "10"}', "percent: "),
        (b'{"percent": 10.5}', "percent: "),
        (b'{"percent": true}', "percent: "),
        (b'{"force": 1}', "force: "),
        (b'{"precent": 10}', "precent: "),
        (b"[10]", "object"),
        (b"percent=10", "JSON"),
        (b"\xff", "JSON"),
        (b" " * (MAX_PROMOTE_BYTES + 1), "larger than"),
    ],
)
def test_a_body_that_is_no_order_promotes_nothing(store: Store, operator: TestClient, body: bytes, told: str):
    said = error_of(operator.post("/v1/adapters/formal@2/promote", content=body), 400, "invalid_request")
    assert told in said
    assert 'send {"percent": 10' in said
    assert store.promoted("formal") == store.resolve("formal@1")


@pytest.mark.parametrize(("asked", "told"), [("formal", "gives no version"), ("formal@1", "promoted already")])
def test_a_canary_is_another_version_than_the_promoted_one(store: Store, operator: TestClient, asked: str, told: str):
    answer = operator.post(f"/v1/adapters/{asked}/promote", json={"percent": 10})
    assert told in error_of(answer, 400, "invalid_request")
    assert store.pointers("formal").canary is None


def test_rollback_goes_back_and_loads_what_it_goes_back_to(store: Store, operator: TestClient, engine: FakeEngine):
    store.promote("formal@2")
    assert operator.post("/v1/adapters/formal/rollback").json()["promoted"] == "formal@1"
    assert engine.held == ["formal@1"]
    assert "promoted before" in error_of(operator.post("/v1/adapters/formal/rollback"), 400, "invalid_request")


def test_rollback_goes_back_also_to_what_cannot_be_loaded_now(store: Store, operator: TestClient, engine: FakeEngine):
    store.promote("formal@2")
    engine.judged = ["its disk cannot be read"]
    assert operator.post("/v1/adapters/formal/rollback").json()["promoted"] == "formal@1"


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [("formal@1", 400, "invalid_request"), ("%2e%2e", 400, "invalid_request"), ("frmal", 404, "model_not_found")],
)
def test_rollback_is_of_a_name(operator: TestClient, asked: str, status: int, code: str):
    error_of(operator.post(f"/v1/adapters/{asked}/rollback"), status, code)


@pytest.mark.parametrize("command", ["load", "pin", "unload", "promote"])
def test_no_command_works_on_what_is_retired(store: Store, operator: TestClient, engine: FakeEngine, command: str):
    store.retire("formal@2")
    said = error_of(operator.post(f"/v1/adapters/formal@2/{command}"), 404, "model_not_found")
    assert "formal@2 is retired" in said
    assert engine.load_calls == []


# --- on the real server


def call(server: RunningServer, method: str, path: str, key: str = "sesame", **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.request(method, f"{server.url}{path}", headers=headers, timeout=120, **options)


def writer_of(server: RunningServer, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Ask for a meeting."}], "max_tokens": 4}
    return str(call(server, "POST", "/v1/chat/completions", json=body).json()["model"])


@pytest.mark.vllm
def test_anybody_on_this_machine_may_look_but_not_order(server: RunningServer):
    listed = httpx.get(f"{server.url}/v1/adapters").json()["data"]
    promoted = {adapter["id"]: adapter["promoted"] for adapter in listed}
    assert (promoted["formal"], promoted["warm"]) == ("formal@1", "warm@1")
    assert httpx.get(f"{server.url}/v1/adapters/formal@2").json()["parent"] == "tiny-llama"
    for command in COMMANDS:
        answer = httpx.post(f"{server.url}/v1/adapters/formal@2/{command}")
        assert "MAILWRIGHT_API_KEY" in error_of(answer, 403, "insufficient_permissions")
    assert server.store.promoted("formal") == server.store.resolve("formal@1")


@pytest.mark.vllm
def test_a_loaded_version_is_shown_as_loaded_and_clients_see_short_names(server: RunningServer):
    with server.client() as client:
        client.chat.completions.create(
            model="friendly", messages=[{"role": "user", "content": "Ask for a meeting."}], max_tokens=4
        )
        assert not any("@" in card.id for card in client.models.list())
        cards = {card.id: card.model_dump() for card in client.models.list(extra_query={"versions": "all"})}
    assert cards["friendly@1"]["loaded"] is True
    assert httpx.get(f"{server.url}/v1/adapters/friendly@1").json()["loaded"] is True


@pytest.mark.vllm
def test_without_the_key_nobody_looks_or_orders(keyed: RunningServer):
    for method, path in [("GET", "/v1/adapters"), ("GET", "/v1/adapters/formal"), ("POST", "/v1/adapters/formal/load")]:
        error_of(call(keyed, method, path, key="wrong"), 401, "invalid_api_key")


@pytest.mark.vllm
def test_a_promote_a_canary_and_rollbacks_are_what_the_next_request_meets(keyed: RunningServer):
    assert writer_of(keyed, "formal") == "formal@1"
    trial = call(keyed, "POST", "/v1/adapters/formal@2/promote", json={"percent": 99}).json()
    assert trial["canary"] == {"id": "formal@2", "percent": 99}
    assert call(keyed, "POST", "/v1/adapters/formal/rollback").json()["canary"] is None
    assert call(keyed, "POST", "/v1/adapters/formal@2/promote").json()["promoted"] == "formal@2"
    assert writer_of(keyed, "formal") == "formal@2"
    assert call(keyed, "POST", "/v1/adapters/formal/rollback").json()["promoted"] == "formal@1"
    assert writer_of(keyed, "formal") == "formal@1"


@pytest.mark.vllm
def test_load_pin_and_unload_change_what_the_engine_holds(keyed: RunningServer):
    version = tiny.publish(keyed.store, keyed.base, "formal", 11)
    assert call(keyed, "POST", f"/v1/adapters/{version.id}/load").json()["loaded"]
    assert call(keyed, "POST", f"/v1/adapters/{version.id}/pin").json()["pinned"]
    assert "promoted or on trial" in error_of(call(keyed, "POST", "/v1/adapters/formal/unload"), 400, "invalid_request")
    freed = call(keyed, "POST", f"/v1/adapters/{version.id}/unload").json()
    assert (freed["loaded"], freed["pinned"], freed["in_use"]) == (False, False, 0)
    assert writer_of(keyed, version.id) == version.id


@pytest.mark.vllm
def test_a_broken_version_is_refused_with_its_reasons_and_the_name_stays(keyed: RunningServer):
    version = tiny.publish(keyed.store, keyed.base, "friendly", 12)
    (version.path / "adapter_model.safetensors").write_bytes(b"broken")
    for command in ("promote", "load", "pin"):
        error_of(call(keyed, "POST", f"/v1/adapters/{version.id}/{command}"), 422, "adapter_unusable")
    shown = call(keyed, "GET", f"/v1/adapters/{version.id}").json()
    assert shown["refused"]
    assert (shown["loaded"], shown["pinned"]) == (False, False)
    assert writer_of(keyed, "friendly") == "friendly@1"


@pytest.mark.vllm
def test_the_openai_client_finds_every_version_and_label(keyed: RunningServer):
    keyed.store.label("formal@2", "candidate")
    cards = {card["id"]: card for card in call(keyed, "GET", "/v1/models?versions=all").json()["data"]}
    assert cards["formal@candidate"]["root"] == "formal@2"
    assert call(keyed, "GET", "/v1/models/formal@candidate").json() == cards["formal@candidate"]
    assert writer_of(keyed, "formal@candidate") == "formal@2"
