"""The configuration and the rules as they are committed, by promtool and against the code; test_watching runs them."""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

import adapters.cli
import server.launch
from server import metrics
from server.settings import read
from tests.deploy.prometheus import DEPLOY, PROMETHEUS, alerts, metrics_in, nodes, promtool, records, rules, sixtieth

CONFIGS = ["prometheus.yml", "prometheus.compose.yml"]
OTHERS = {"up", "vllm:kv_cache_usage_perc", "vllm:num_requests_waiting"}
"""What no code of ours declares; test_watching looks for them in a live scrape."""


def config(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((PROMETHEUS / name).read_text()))


def test_promtool_finds_nothing_wrong_with_the_rules():
    promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted((PROMETHEUS / "rules").glob("*.yml")))


def test_the_rules_do_what_their_own_tests_say():
    promtool("test", "rules", PROMETHEUS / "rules_test.yml")


@pytest.mark.parametrize("name", CONFIGS)
def test_promtool_finds_nothing_wrong_with_the_configuration(name: str, tmp_path: Path):
    (tmp_path / "key").write_text("secret")
    text = (PROMETHEUS / name).read_text().replace("/run/secrets/api_key", str(tmp_path / "key"))
    (tmp_path / "prometheus.yml").write_text(text.replace("rules/*.yml", str(PROMETHEUS / "rules/*.yml")))
    promtool("check", "config", tmp_path / "prometheus.yml")


def test_the_two_configurations_differ_in_target_and_key_only():
    here, composed = (config(name) for name in CONFIGS)
    for one in (here, composed):
        one["scrape_configs"][0].pop("authorization", None)
        one["scrape_configs"][0].pop("static_configs")
    assert here == composed


def test_the_target_is_where_a_server_listens_that_was_told_nothing():
    settings = read([], {})
    assert config("prometheus.yml")["scrape_configs"][0]["static_configs"] == [
        {"targets": [f"{settings.host}:{settings.port}"]}
    ]


def test_every_alert_has_a_case_in_which_it_fires():
    cases = (PROMETHEUS / "rules_test.yml").read_text()
    assert set(re.findall(r'alertname="(\w+)"', cases)) == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_what_was_measured_and_what_to_do(name: str):
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert "$value" in alert["annotations"]["description"]


@pytest.mark.parametrize("name", alerts())
def test_the_commands_and_flags_to_use_exist(name: str, capsys: pytest.CaptureFixture[str]):
    todo = alerts()[name]["annotations"]["runbook"]
    for main in (adapters.cli.main, server.launch.main):
        with pytest.raises(SystemExit):
            main(["--help"])
    helped = capsys.readouterr().out
    assert [word for word in re.findall(r"--[a-z-]+|(?<=adapters )[a-z]+(?= NAME)", todo) if word not in helped] == []


@pytest.mark.parametrize("name", alerts())
def test_the_page_of_operations_explains_every_alert(name: str):
    assert (
        f"\n| `{name}` | {alerts()[name]['labels']['severity']} | "
        in (DEPLOY.parent / "docs/operations.md").read_text()
    )


@pytest.mark.parametrize("name", sorted(records()))
def test_a_recorded_series_is_named_level_metric_operation(name: str):
    assert re.fullmatch(r"instance(_[a-z]+)*:mailwright_[a-z_]+:(sum|(ratio|increase)\d+m)", name)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_only_for_what_the_server_measures_or_a_rule_records(rule: dict[str, Any]):
    assert metrics_in(rule["expr"]) - declared() - records() - OTHERS == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_limit_is_an_edge_of_its_histogram(rule: dict[str, Any]):
    """`le="1"` would match nothing, and the alert would never fire: the edges are exposed as 1.0."""
    edges = {series.name: {str(float(edge)) for edge in series.buckets} | {"+Inf"} for series in metrics.ALL}
    for selector in nodes(rule["expr"], promql_parser.MatrixSelector):
        for matcher in selector.vector_selector.matchers.matchers:
            if matcher.name == "le":
                series = selector.vector_selector.name.split(":")[1].removesuffix("_bucket")
                assert matcher.value in edges[series]


def declared() -> set[str]:
    """The names of all series of the server, as they are exposed."""
    plain = {series.name for series in metrics.ALL if not series.buckets}
    parts = {f"{series.name}_{part}" for series in metrics.ALL if series.buckets for part in ("bucket", "sum", "count")}
    return plain | parts


@pytest.mark.parametrize(("duration", "shorter"), [("15s", "250ms"), ("5m", "5000ms"), ("1h", "60000ms")])
def test_a_sixtieth_of_a_duration(duration: str, shorter: str):
    assert sixtieth(duration) == shorter
