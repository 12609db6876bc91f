"""GET /metrics: what a scraper can ask for, and which thread it costs."""

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily

from server.routes import metrics_route


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
