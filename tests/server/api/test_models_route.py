"""GET /v1/models: what can be asked for; GET /metrics: what a scraper can ask for, and which thread it costs."""

import asyncio
import threading
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily

from adapters.errors import MailwrightError
from adapters.models.base_models import BaseModel
from adapters.store.manifest import Manifest
from adapters.store.store import POINTERS, Store
from adapters.store.version import Version
from server.api.access import LOCAL
from server.api.errors import body_of
from server.api.keys import Caller
from server.api.models_route import metrics_route, model_routes, version_info
from server.engine.residency import Residency
from tests import tiny
from tests.server.callers import asked_by
from tests.server.fake_engine import FakeEngine


def asking(store: Store, base: BaseModel, residency: Residency | None = None, caller: Caller = LOCAL) -> TestClient:
    app = FastAPI()
    app.state.vllm_config = SimpleNamespace(model_config=SimpleNamespace(max_model_len=2048))
    app.include_router(model_routes(store, base, ("tiny-llama", "base"), residency or FakeEngine().residency()))
    app.add_exception_handler(MailwrightError, lambda _, error: Response(body_of(error), error.status))
    return TestClient(asked_by(app, caller))


def cards(client: TestClient, query: str = "") -> dict[str, dict[str, Any]]:
    answer = client.get(f"/v1/models{query}").json()
    assert answer["object"] == "list"
    listed = {card["id"]: card for card in answer["data"]}
    assert len(listed) == len(answer["data"])
    return listed


def test_clients_are_shown_the_base_names_and_the_promoted_names(store: Store, base_model: BaseModel):
    listed = cards(asking(store, base_model))
    assert list(listed) == ["tiny-llama", "base", "formal", "friendly", "formal:checked", "friendly:checked"]
    assert (listed["base"]["root"], listed["base"]["parent"], listed["base"]["max_model_len"]) == (
        "tiny-llama",
        None,
        2048,
    )
    assert (listed["formal"]["root"], listed["formal"]["parent"]) == ("formal@1", "tiny-llama")


def test_a_key_is_shown_what_it_may_use(store: Store, base_model: BaseModel):
    store.label("formal@2", "candidate")
    one = Caller("1", "one", frozenset({"infer"}), ("formal",))
    assert list(cards(asking(store, base_model, caller=one), "?versions=all")) == [
        *["formal", "formal@candidate", "formal@1", "formal@2", "formal:checked"],
    ]
    without = replace(one, drafts=0)
    assert "formal:checked" not in cards(asking(store, base_model, caller=without))
    base = Caller("1", "one", frozenset({"infer"}), ("base",))
    assert list(cards(asking(store, base_model, caller=base))) == ["tiny-llama", "base"]


def test_on_request_labels_and_every_version_are_listed_with_what_they_mean(store: Store, base_model: BaseModel):
    store.label("formal@2", "candidate")
    listed = cards(asking(store, base_model), "?versions=all")
    assert list(listed) == [
        *["tiny-llama", "base"],
        *["formal", "formal@candidate", "formal@1", "formal@2"],
        *["friendly", "friendly@1"],
        *["formal:checked", "friendly:checked"],
    ]
    version = store.resolve("formal@2")
    assert listed["formal@candidate"] == listed["formal@2"] | {"id": "formal@candidate"}
    assert listed["formal@2"] == {
        "id": "formal@2",
        "object": "model",
        "created": int(version.manifest().created.timestamp()),
        "owned_by": "mailwright",
        "root": "formal@2",
        "parent": "tiny-llama",
        "drafts": 16,
        "digest": version.path.name.removeprefix("2-"),
        "loaded": False,
        "instruction": "",
    }


def test_what_is_loaded_says_so_under_each_of_its_names(store: Store, base_model: BaseModel):
    residency = FakeEngine().residency()
    asyncio.run(residency.load(store.resolve("formal")))
    listed = cards(asking(store, base_model, residency), "?versions=all")
    assert {name for name, card in listed.items() if card.get("loaded")} == {"formal", "formal@1", "formal:checked"}


def test_another_question_about_versions_is_refused_with_what_can_be_asked(store: Store, base_model: BaseModel):
    answer = asking(store, base_model).get("/v1/models?versions=every")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert "versions=every" in answer.json()["error"]["message"]
    assert "versions=all" in answer.json()["error"]["message"]


def test_what_is_retired_is_not_listed(store: Store, base_model: BaseModel):
    store.retire("formal@2")
    store.retire("friendly")
    listed = cards(asking(store, base_model), "?versions=all")
    assert list(listed) == ["tiny-llama", "base", "formal", "formal@1", "formal:checked"]


def test_a_damaged_adapter_hides_no_other(store: Store, base_model: BaseModel):
    (store.directory / "formal" / POINTERS).write_text("{")
    assert list(cards(asking(store, base_model), "?versions=all")) == [
        *["tiny-llama", "base", "friendly", "friendly@1", "friendly:checked"],
    ]


def test_a_version_with_a_damaged_manifest_is_listed_all_the_same(store: Store, base_model: BaseModel):
    (store.resolve("friendly").path / "manifest.json").write_text("{")
    assert cards(asking(store, base_model))["friendly"]["created"] == 0


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("formal", "formal@1"),
        ("formal:checked", "formal@1"),
        ("formal@2", "formal@2"),
        ("formal@candidate", "formal@2"),
    ],
)
def test_one_model_is_shown_as_in_the_list(store: Store, base_model: BaseModel, asked: str, means: str):
    store.label("formal@2", "candidate")
    client = asking(store, base_model)
    card = client.get(f"/v1/models/{asked}").json()
    assert card == cards(client, "?versions=all")[asked]
    assert card["root"] == means


def test_a_model_that_is_not_there_is_answered_with_the_nearest_names(store: Store, base_model: BaseModel):
    answer = asking(store, base_model).get("/v1/models/frmal")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "did you mean formal?" in answer.json()["error"]["message"]


def test_manifests_are_read_once_however_often_the_list_is_asked_for(
    store: Store, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    read: Tally[str] = Tally()
    manifest = Version.manifest

    def counted(version: Version) -> Manifest:
        read[version.id] += 1
        return manifest(version)

    monkeypatch.setattr(Version, "manifest", counted)
    client = asking(store, base_model)
    first = cards(client, "?versions=all")
    assert cards(client, "?versions=all") == first
    tiny.publish(store, base_model, "formal", 9)
    assert "formal@3" in cards(client, "?versions=all")
    assert read == {"formal@1": 1, "formal@2": 1, "formal@3": 1, "friendly@1": 1}


def test_a_manifest_that_was_mended_is_read_again(store: Store):
    version = store.resolve("formal")
    file = version.path / "manifest.json"
    good = file.read_text()
    file.write_text("{")
    with pytest.raises(OSError, match="damaged"):
        version_info(version)
    file.write_text(good)
    assert version_info(version).parent == "tiny-llama"


class WhichThread:
    """A collector that remembers where it was rendered."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.threads.append(threading.get_ident())
        yield GaugeMetricFamily("loops", "Event loops", value=1)


def scrape(registry: CollectorRegistry, query: str = "", **headers: str) -> httpx.Response:
    """From an event loop in this thread."""
    app = FastAPI()
    app.include_router(metrics_route(registry))

    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.get(f"/metrics{query}", headers={"accept-encoding": "identity", **headers})

    return asyncio.run(once())


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("letters_total", "Letters", registry=registry).inc()
    Counter("replies_total", "Replies", registry=registry).inc()
    return registry


def test_rendering_happens_beside_the_event_loop(registry: CollectorRegistry):
    collector = WhichThread()
    registry.register(collector)
    assert "loops 1.0" in scrape(registry).text
    assert collector.threads
    assert threading.get_ident() not in collector.threads


def test_prometheus_gets_plain_text_in_which_vllms_names_keep_their_colon(registry: CollectorRegistry):
    Gauge("vllm:num_requests_running", "Running", registry=registry).set(3)
    answer = scrape(registry, accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "vllm:num_requests_running 3.0" in answer.text.splitlines()


def test_it_is_compressed_for_who_can_read_that(registry: CollectorRegistry):
    packed = scrape(registry, **{"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == scrape(registry).text
    assert "content-encoding" not in scrape(registry).headers


def test_single_series_can_be_picked(registry: CollectorRegistry):
    picked = scrape(registry, "?name[]=letters_total").text
    assert "letters_total 1.0" in picked
    assert "replies_total" not in picked
