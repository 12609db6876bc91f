"""A real Prometheus watches the real server with the committed rules, every window of them divided by 60.

First all is well, then a voice is published that was trained on another base model, and people ask for it. Every query
of every dashboard and rule has to find something in what Prometheus saw.
"""

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests import tiny
from tests.deploy.prometheus import (
    RunningPrometheus,
    alerts,
    filled_in,
    in_a_hurry,
    metrics_in,
    nodes,
    panels,
    records,
    rules,
    running_prometheus,
)
from tests.serving import RunningServer, free_port, running_server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

VOICES = ("formal", "friendly", "terse")
RIGHT_ALERT = "MailwrightAdapterUnusable"
COLD = "{load='cold', le='+Inf'}"
ENOUGH = " and ".join(
    [
        "instance:mailwright_requests_judged:increase30m >= 20",
        "on (instance) increase(instance_le:mailwright_time_per_output_token_seconds_bucket:sum{le='+Inf'}[30s]) >= 20",
        "on (instance) count by (instance) ({__name__=~'.+:ratio.+'}) == 9",
    ]
)
"""Of every kind of request as many as an alert about their share asks for, and a share of each."""


@dataclass(frozen=True)
class Watched:
    server: RunningServer
    prometheus: RunningPrometheus
    began: float
    fault: float
    """When Prometheus had found the server, and when people began to ask for the broken voice."""

    def range(self, expr: str, end: float | None = None) -> list[Any]:
        """What `expr` was at any time from the beginning to `end` or now, by series; not what was no number."""
        span = {"start": str(self.began), "end": str(end or time.time()), "step": "0.5"}
        found = self.prometheus.get("query_range", query=expr, **span)["result"]
        return [series for series in found if any(math.isfinite(float(value)) for _, value in series["values"])]

    def fired(self, end: float | None = None) -> set[str]:
        return {series["metric"]["alertname"] for series in self.range('ALERTS{alertstate="firing"}', end)}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    store = Store(directory / "store")
    # The second versions are not promoted, so that nobody loads them before they are asked for.
    for seed, voice in enumerate([*VOICES, *VOICES], start=1):
        tiny.publish(store, base_model, voice, seed)
    with running_server(base_model, store, 4, directory / "server.log") as server:
        config = in_a_hurry(directory / "prometheus", target=server.url.removeprefix("http://"))
        with running_prometheus(config, free_port()) as prometheus:
            # It looks for its targets 5 s after it began, which no setting shortens: MetricsMissing may fire once.
            found = "sum(up) == 1 unless on () ALERTS{alertstate='firing'}"
            prometheus.wait_until(partial(prometheus.query, found), "the first scrape")
            began = time.time()
            all_is_well(server, prometheus)
            fault = time.time()
            ask_for_a_broken_voice(server, prometheus)
            yield Watched(server, prometheus, began, fault)


def all_is_well(server: RunningServer, prometheus: RunningPrometheus) -> None:
    for number, voice in enumerate(VOICES, start=1):
        write(server, f"{voice}@2")
        seen = f"instance_load_le:mailwright_time_to_first_token_seconds_bucket:sum{COLD} == {number}"
        prometheus.wait_until(partial(prometheus.query, seen), f"the load of {voice}")
    with pytest.raises(openai.NotFoundError):
        write(server, "nobody")

    def enough() -> bool:
        for voice in ("base", *VOICES):
            write(server, voice)
        return bool(prometheus.query(ENOUGH))

    prometheus.wait_until(enough, "enough traffic for every alert to judge")


def ask_for_a_broken_voice(server: RunningServer, prometheus: RunningPrometheus) -> None:
    """Until its alert has fired for longer than any other alert would take to follow."""
    with tempfile.TemporaryDirectory() as scratch:
        files = tiny.make_adapter(server.base.path, Path(scratch) / "adapter", seed=9)
        server.store.publish("broken", files, tiny.facts("another-base", "sha256:" + "0" * 64))

    def alerted_for_long() -> bool:
        write(server, "formal")
        with pytest.raises(openai.UnprocessableEntityError):
            write(server, "broken")
        return bool(
            prometheus.query(f"count_over_time(ALERTS{{alertname='{RIGHT_ALERT}', alertstate='firing'}}[1m]) > 8")
        )

    prometheus.wait_until(alerted_for_long, RIGHT_ALERT)


def write(server: RunningServer, model: str) -> None:
    messages: Any = [{"role": "user", "content": "write to the bakery"}]
    for _ in server.client().chat.completions.create(
        model=model, messages=messages, max_tokens=8, stream=True, extra_body={"min_tokens": 8}
    ):
        pass


def test_nothing_fires_while_all_is_well(watched: Watched):
    assert watched.fired(watched.fault) == set()


def test_a_voice_that_cannot_be_served_fires_its_alert_and_no_other(watched: Watched):
    assert watched.fired() == {RIGHT_ALERT}


def test_the_alert_says_which_voice_and_how_often_and_what_to_do(watched: Watched):
    alert = watched.prometheus.firing()[RIGHT_ALERT]
    instance = watched.server.url.removeprefix("http://")
    assert alert["labels"]["adapter"] == "broken"
    assert alert["annotations"]["summary"] == "The voice broken cannot be served"
    assert f"{instance} refused " in alert["annotations"]["description"]
    assert "adapters promote" in alert["annotations"]["runbook"]


@pytest.mark.parametrize("panel", panels())
def test_every_query_of_a_panel_finds_something(watched: Watched, panel: dict[str, Any]):
    for target in panel["targets"]:
        expr = filled_in(target["expr"], rate_interval="5s")
        assert watched.range(expr), expr


@pytest.mark.parametrize("record", sorted(records()))
def test_every_recording_rule_finds_something(watched: Watched, record: str):
    assert watched.range(record)


@pytest.mark.parametrize("name", alerts())
def test_whatever_an_alert_looks_at_is_there(watched: Watched, name: str):
    """The alert itself finds nothing while all is well; a wrong label in it would never let it."""
    for selector in nodes(alerts()[name]["expr"], promql_parser.VectorSelector):
        assert watched.range(selector.prettify()), selector.prettify()


def test_every_metric_that_anything_asks_for_is_in_a_live_scrape(watched: Watched):
    text = httpx.get(f"{watched.server.url}/metrics").text
    scraped = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    asked = {filled_in(target["expr"]) for panel in panels() for target in panel.values[0]["targets"]}
    names = set.union(*map(metrics_in, asked | {rule["expr"] for rule in rules()}))
    assert names - scraped - records() == {"up", "ALERTS"}
