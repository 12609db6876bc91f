"""The dashboards as Grafana would read them; test_watching runs their queries."""

import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.conftest import script
from tests.deploy.prometheus import DASHBOARDS, DEPLOY, PROMETHEUS, filled_in, metrics_in, nodes, panels, records
from tests.deploy.test_prometheus import declared

GRAFANA = DEPLOY / "grafana"
OTHERS = {"up", "ALERTS", "vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting"}
SINCE = "since the server began"
"""A counter that goes up once a voice and process is shown as it is, and its panel says so."""


@pytest.fixture(scope="module")
def dashboards() -> ModuleType:
    return script("grafana/dashboards")


def exprs(panel: dict[str, Any]) -> list[str]:
    return [filled_in(target["expr"]) for target in panel["targets"]]


def test_the_committed_dashboards_are_the_described_ones(dashboards: ModuleType):
    described = dashboards.documents()
    assert sorted(described) == DASHBOARDS
    for file, text in described.items():
        assert file.read_text() == text, "run .venv/bin/python deploy/grafana/dashboards.py"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_nothing_of_a_dashboard_is_lost_between_json_and_grafanas_own_model(file: Path):
    content = json.loads(file.read_text())
    assert json.loads(json.dumps(Dashboard.from_json(content), cls=JSONEncoder)) == content


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_declares_the_variables_that_it_uses(file: Path):
    content = json.loads(file.read_text())
    declared_here = {variable["name"] for variable in content["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(content["panels"])))
    assert used == declared_here


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_the_values_to_choose_from_are_those_of_series_that_exist(file: Path):
    for variable in json.loads(file.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            assert re.match(r"label_values\((\w+)", variable["query"])[1] in declared()  # type: ignore[index]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_the_panels_of_a_dashboard_do_not_overlap(file: Path):
    taken = [
        (place["x"] + column, place["y"] + row)
        for place in (panel["gridPos"] for panel in json.loads(file.read_text())["panels"])
        for column in range(place["w"])
        for row in range(place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(column for column, _ in taken) == 23


@pytest.mark.parametrize("panel", panels())
def test_a_panel_can_be_read_without_asking_anybody(panel: dict[str, Any]):
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["legendFormat"] for target in panel["targets"])
    for name in set.union(*map(metrics_in, exprs(panel))):
        assert f"`{name}`" in panel["description"]


@pytest.mark.parametrize("panel", panels())
def test_a_panel_asks_only_for_what_the_server_measures_or_a_rule_records(panel: dict[str, Any]):
    assert set.union(*map(metrics_in, exprs(panel))) - declared() - records() - OTHERS == set()


@pytest.mark.parametrize("panel", panels())
def test_a_legend_names_labels_that_the_query_leaves(panel: dict[str, Any]):
    for target in panel["targets"]:
        expr = filled_in(target["expr"])
        kept = {label for part in nodes(expr, promql_parser.AggregateExpr) for label in labels_of(part)}
        aggregated = bool(nodes(expr, promql_parser.AggregateExpr))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - (kept if aggregated else {"instance"}) == set()


@pytest.mark.parametrize("panel", panels())
def test_a_counter_is_shown_as_a_rate_over_grafanas_own_window(panel: dict[str, Any]):
    assert [target for target in panel["targets"] if re.search(r"\[(?!\$__rate_interval\])", target["expr"])] == []
    shown = Counter(node.name for expr in exprs(panel) for node in nodes(expr, promql_parser.VectorSelector))
    rated = Counter(n.vector_selector.name for expr in exprs(panel) for n in nodes(expr, promql_parser.MatrixSelector))
    plain = [name for name in shown - rated if re.search(r"_(total|sum|count|bucket)$|:sum$", name)]
    assert not plain or SINCE in panel["description"]


@pytest.mark.parametrize("panel", panels())
def test_a_quantile_is_taken_of_buckets_that_still_have_their_edges(panel: dict[str, Any]):
    for expr in exprs(panel):
        for call in nodes(expr, promql_parser.Call):
            if str(call).startswith("histogram_quantile"):
                assert "le" in labels_of(call.args[1])


def labels_of(aggregate: Any) -> list[str]:
    return list(aggregate.modifier.labels) if aggregate.modifier else []


def test_grafana_knows_how_often_prometheus_looks():
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert [source["jsonData"]["timeInterval"] for source in provisioned] == [config["global"]["scrape_interval"]]
