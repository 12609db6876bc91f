"""The dashboards: one description of each, which is written as the JSON that Grafana reads.

    .venv/bin/python deploy/grafana/dashboards.py

After a change run this and commit the JSON too; a test compares. `$__rate_interval`, `$instance` and the like are
Grafana's and are filled in there. Times are quantiles, as precise as the histograms' buckets; what alerts is counted
exactly, in the shares of deploy/prometheus/rules/recording.yml, which the overview shows as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

FOLDER = Path(__file__).parent / "dashboards"
METRIC = re.compile(r"\b(?:[a-z_]+:)?mailwright_\w+(?::\w+)?|\bvllm:\w+|\bup\b|\bALERTS\b")
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, AMBER, RED = "green", "orange", "red"

FIRST_TOKEN = "instance_load_le:mailwright_time_to_first_token_seconds_bucket:sum"
PER_TOKEN = "instance_le:mailwright_time_per_output_token_seconds_bucket:sum"
QUEUE_WAIT = "instance_le:mailwright_queue_wait_seconds_bucket:sum"
QUANTILES = ((0.5, "p50"), (0.95, "p95"))
HERE = 'instance=~"$instance"'
VOICE = 'instance=~"$instance", adapter=~"$adapter"'
SINCE = "since the server began"
"""What happens once a voice and process has no rate: Prometheus sees such a counter only when it is already at 1."""

Query = tuple[str, str]
"""PromQL, and its legend."""


def overview() -> dashboard.Dashboard:
    board = new_board("Mailwright overview", "mailwright-overview", "Is it healthy, and if not, since when and where?")
    return filled(board, [*health(), *traffic(), *inside_vllm(), *loads()])


def by_adapter() -> dashboard.Dashboard:
    board = new_board("Mailwright by adapter", "mailwright-by-adapter", "How fast and how well each voice answers.")
    known = f"label_values(mailwright_requests_total{{{HERE}}}, adapter)"
    board.with_variable(several("adapter", "Adapter", known)).with_variable(quantile_variable())
    return filled(board, [*outcomes_of_voices(), *speed_of_voices(), *work_of_voices()])


def health() -> list[stat.Panel]:
    """The top row: is it there, does an alert fire, and the shares that alert."""
    server = f'min(up{{job="mailwright", {HERE}}})'
    alerts = 'count(ALERTS{alertname=~"Mailwright.*", alertstate="firing"}) or vector(0)'
    late = f'max(instance_load:mailwright_first_token_slow:ratio5m{{load="warm", {HERE}}})'
    return [
        tile_of("Server", "Whether Prometheus can read its metrics.", "bool_on_off", server, RED, (1, GREEN)),
        tile_of("Alerts firing", "Prometheus lists them, with what to do.", "short", alerts, GREEN, (1, RED)),
        share_of("Failed requests", "that failed in the server", "instance:mailwright_requests_failed", 0.01, RED),
        tile_of(
            "First token late",
            "Share of streams whose first token took more than 1 s during 5 minutes, adapter loaded. 5 % alert.",
            "percentunit",
            late,
            GREEN,
            (0.05, AMBER),
        ),
        share_of("Tokens slow", "that took more than 0.1 s a token", "instance:mailwright_output_tokens_slow"),
        share_of("Long waits", "that waited more than 1 s before vLLM", "instance:mailwright_queue_wait_long"),
    ]


def traffic() -> list[timeseries.Panel]:
    outcomes = f"sum by (outcome) (rate(instance_outcome:mailwright_requests:sum{{{HERE}}}[$__rate_interval]))"
    return [
        graph_of(
            "Requests by outcome",
            "Answers a second. `refused`: the voice cannot be served, or there is too much to do.",
            "reqps",
            (outcomes, "{{outcome}}"),
        ),
        graph_of(
            "First token",
            "Streams: from arrival until the first token was sent. `cold` had to wait for its adapter.",
            "s",
            *quantiles(FIRST_TOKEN, f'load="warm", {HERE}', " warm"),
            *quantiles(FIRST_TOKEN, f'load="cold", {HERE}', " cold"),
        ),
        graph_of(
            "Time per output token",
            "Streams: time between two tokens, averaged over an answer.",
            "s",
            *quantiles(PER_TOKEN, HERE),
        ),
        graph_of(
            "Wait before vLLM",
            "From arrival until vLLM got the request, most of it for adapters that were loaded.",
            "s",
            *quantiles(QUEUE_WAIT, HERE),
        ),
    ]


def inside_vllm() -> list[timeseries.Panel]:
    vllm = f'job="mailwright", {HERE}'
    return [
        graph_of(
            "Tokens a second",
            "Tokens of prompts that came in and of answers that went out.",
            "short",
            (f"sum(rate(mailwright_prompt_tokens_total{{{HERE}}}[$__rate_interval]))", "in"),
            (f"sum(rate(mailwright_completion_tokens_total{{{HERE}}}[$__rate_interval]))", "out"),
        ),
        graph_of(
            "Requests in vLLM",
            "Requests that vLLM computes, and that wait because it cannot take more. Waiting for 5 minutes alerts.",
            "short",
            (f"sum(vllm:num_requests_running{{{vllm}}})", "running"),
            (f"sum(vllm:num_requests_waiting{{{vllm}}})", "waiting"),
        ),
        graph_of(
            "Attention cache",
            "Share of vLLM's KV cache in use; when it is full, answers are interrupted. 90 % alert.",
            "percentunit",
            (f"vllm:kv_cache_usage_perc{{{vllm}}}", "{{instance}}"),
        ),
    ]


def loads() -> list[timeseries.Panel]:
    time = f'sum by (le) (mailwright_adapter_load_seconds_bucket{{result="loaded", {HERE}}})'
    return [
        graph_of(
            "Adapters in memory",
            "Versions that the engine holds.",
            "short",
            (f"mailwright_adapters_resident{{{HERE}}}", "{{instance}}"),
        ),
        graph_of(
            "Loads by result",
            f"Versions loaded, refused by our checks, or failed in vLLM, {SINCE}.",
            "short",
            (f"sum by (result) (mailwright_adapter_loads_total{{{HERE}}})", "{{result}}"),
        ),
        graph_of(
            "Time of a load",
            f"How long it took to check a version and load it, of all loads {SINCE}.",
            "s",
            *[(f"histogram_quantile({quantile}, {time})", name) for quantile, name in QUANTILES],
        ),
    ]


def outcomes_of_voices() -> list[timeseries.Panel]:
    others = f'mailwright_requests_total{{outcome!="ok", {VOICE}}}'
    return [
        graph_of("Requests", "Answers a second, whatever the outcome.", "reqps", rate_of("mailwright_requests_total")),
        graph_of(
            "Requests that did not succeed",
            "By outcome. `client_gone` hung up, `client_error` asked wrongly; `refused` cannot be served.",
            "reqps",
            (f"sum by (adapter, outcome) (rate({others}[$__rate_interval]))", "{{adapter}} {{outcome}}"),
        ),
    ]


def speed_of_voices() -> list[timeseries.Panel]:
    cold = [
        f'sum by (adapter) (mailwright_time_to_first_token_seconds_{part}{{load="cold", {VOICE}}})'
        for part in ("sum", "count")
    ]
    return [
        graph_of(
            "First token, adapter loaded",
            "Streams: from arrival until the first token was sent.",
            "s",
            quantile_of("mailwright_time_to_first_token_seconds_bucket", 'load="warm", '),
        ),
        graph_of(
            "First token, adapter not yet loaded",
            f"Streams that had to wait for their adapter: the mean {SINCE}, as a version is loaded once.",
            "s",
            (" / ".join(cold), "{{adapter}}"),
        ),
        graph_of(
            "Time per output token",
            "Streams: time between two tokens, averaged over an answer.",
            "s",
            quantile_of("mailwright_time_per_output_token_seconds_bucket"),
        ),
        graph_of(
            "Whole answer",
            "From arrival until the last byte of a complete answer.",
            "s",
            quantile_of("mailwright_end_to_end_seconds_bucket"),
        ),
    ]


def work_of_voices() -> list[timeseries.Panel]:
    in_flight = f"sum by (adapter) (mailwright_requests_in_flight{{{VOICE}}})"
    loads = f"sum by (adapter, result) (mailwright_adapter_loads_total{{{VOICE}}})"
    return [
        graph_of("Prompt tokens a second", "What comes in.", "short", rate_of("mailwright_prompt_tokens_total")),
        graph_of("Answer tokens a second", "What goes out.", "short", rate_of("mailwright_completion_tokens_total")),
        graph_of("In flight", "Requests that are being answered.", "short", (in_flight, "{{adapter}}")),
        graph_of(
            "Loads by result",
            f"Versions of the voice that were loaded, refused by our checks, or failed in vLLM, {SINCE}.",
            "short",
            (loads, "{{adapter}} {{result}}"),
        ),
    ]


def new_board(title: str, uid: str, description: str) -> dashboard.Dashboard:
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    others = dashboard.DashboardLink("Mailwright").type(models.DashboardLinkType.DASHBOARDS).tags(["mailwright"])
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["mailwright"])
        .annotations([])
        .link(others.as_dropdown(False).include_vars(True).keep_time(True).icon("external link").tooltip("").url(""))
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(source)
        .with_variable(several("instance", "Server", "label_values(mailwright_build_info, instance)"))
    )


def several(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable of which any number of values may be chosen, all of them to begin with."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def quantile_variable() -> dashboard.CustomVariable:
    choices = [models.VariableOption(value == "0.95", value, value) for value in ("0.5", "0.95", "0.99")]
    values = ",".join(str(choice.value) for choice in choices)
    return dashboard.CustomVariable("quantile").label("Quantile").values(values).options(choices).current(choices[1])


def quantiles(series: str, selector: str, suffix: str = "") -> list[Query]:
    """Median and 95th percentile over all voices, of a sum that a recording rule keeps."""
    rate = f"sum by (le) (rate({series}{{{selector}}}[$__rate_interval]))"
    return [(f"histogram_quantile({quantile}, {rate})", name + suffix) for quantile, name in QUANTILES]


def quantile_of(series: str, selector: str = "") -> Query:
    """The chosen quantile of each voice."""
    rate = f"sum by (adapter, le) (rate({series}{{{selector}{VOICE}}}[$__rate_interval]))"
    return f"histogram_quantile($quantile, {rate})", "{{adapter}}"


def rate_of(counter: str) -> Query:
    return f"sum by (adapter) (rate({counter}{{{VOICE}}}[$__rate_interval]))", "{{adapter}}"


def filled(board: dashboard.Dashboard, panels: Sequence[stat.Panel | timeseries.Panel]) -> dashboard.Dashboard:
    """`board` with `panels`, from left to right and from top to bottom."""
    for number, panel in enumerate(panels, start=1):
        board.with_panel(panel.id(number))
    return board


def share_of(title: str, text: str, record: str, limit: float = 0.05, colour: str = AMBER) -> stat.Panel:
    """The share of requests, as a recording rule counts it over 5 minutes; `limit` is the one that alerts."""
    text = f"Share of requests {text} during 5 minutes. {limit:.0%} alert.".replace("%", " %")
    return tile_of(title, text, "percentunit", f"max({record}:ratio5m{{{HERE}}})", GREEN, (limit, colour))


def tile_of(title: str, text: str, unit: str, expr: str, colour: str, *steps: tuple[float, str]) -> stat.Panel:
    """One number in the top row, in `colour`, from each of `steps` on in another."""
    thresholds = [models.Threshold(None, colour), *[models.Threshold(value, above) for value, above in steps]]
    return (
        stat.Panel()
        .title(title)
        .description(described(text, expr))
        .unit(unit)
        .datasource(SOURCE)
        .no_value("No traffic" if unit == "percentunit" else "No server")
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(thresholds))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .height(4)
        .span(4)
        .with_target(prometheus.Dataquery().expr(expr).instant().legend_format("now").ref_id("A"))
    )


def graph_of(title: str, text: str, unit: str, *queries: Query) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.TABLE).show_legend(True)
    legend.placement(common_models.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    panel = (
        timeseries.Panel()
        .title(title)
        .description(described(text, *[expr for expr, _ in queries]))
        .unit(unit)
        .datasource(SOURCE)
        .no_value("No traffic")
        .min(0)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .height(8)
        .span(12)
    )
    for letter, (expr, name) in zip("ABCD", queries, strict=False):
        panel.with_target(prometheus.Dataquery().expr(expr).legend_format(name).ref_id(letter))
    return panel


def described(text: str, *exprs: str) -> str:
    """`text`, and which metrics it is drawn from."""
    names = sorted({name for expr in exprs for name in METRIC.findall(expr)})
    return f"{text}\n\nFrom {', '.join(f'`{name}`' for name in names)}."


def documents() -> dict[Path, str]:
    """The files to write, and what is to be in them."""
    boards = {"overview": overview(), "by_adapter": by_adapter()}
    return {
        FOLDER / f"{name}.json": json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, board in boards.items()
    }


if __name__ == "__main__":
    for file, text in documents().items():
        file.write_text(text)
