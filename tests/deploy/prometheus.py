"""Debian's Prometheus and promtool, the committed rules, and what a PromQL expression asks for."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
WINDOW = re.compile(r"(\[|offset )(\d+)([smh])")
MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000}


def program(name: str) -> str:
    """`prometheus` or `promtool`, where `make test-tools` puts it or the system has it."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert path, f"the tests need {name}: run `make test-tools`, or install Debian's package prometheus"
    return path


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """Every recording and alert rule."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def panels() -> list[Any]:
    """Every panel of every dashboard, as pytest parameters."""
    found = [(file.stem, panel) for file in DASHBOARDS for panel in json.loads(file.read_text())["panels"]]
    return [pytest.param(panel, id=f"{board}: {panel['title']}") for board, panel in found]


def filled_in(expr: str, rate_interval: str = "5m") -> str:
    """A dashboard's expression with everything chosen in Grafana's variables."""
    for variable, value in {
        "$__rate_interval": rate_interval,
        "$instance": ".*",
        "$adapter": ".*",
        "$quantile": "0.95",
    }.items():
        expr = expr.replace(variable, value)
    return expr


def nodes(expr: str, kind: type) -> list[Any]:
    """All parts of the expression that are a `kind` of promql_parser, such as VectorSelector."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expr), lambda node: found.append(node) if isinstance(node, kind) else None)
    return found


def metrics_in(expr: str) -> set[str]:
    return {selector.name for selector in nodes(expr, promql_parser.VectorSelector)}


def sixtieth(text: str) -> str:
    """A duration divided by 60: 5m -> 5000ms, 15s -> 250ms."""
    return f"{int(text[:-1]) * MILLISECONDS[text[-1]] // 60}ms"


def in_a_hurry(directory: Path, target: str) -> Path:
    """The committed configuration and rules for one target, every window in them divided by 60."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    # Not a sixtieth of 15 s: a scrape may take as long as the interval, also on a machine that is busy.
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (directory / "rules").mkdir(parents=True)
    for file in (PROMETHEUS / "rules").glob("*.yml"):
        content = yaml.safe_load(file.read_text())
        for rule in (rule for group in content["groups"] for rule in group["rules"]):
            rule["expr"] = WINDOW.sub(lambda m: m[1] + sixtieth(m[2] + m[3]), rule["expr"])
            if "for" in rule:
                rule["for"] = sixtieth(rule["for"])
        (directory / "rules" / file.name).write_text(yaml.safe_dump(content))
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    return directory / "prometheus.yml"


@dataclass(frozen=True)
class RunningPrometheus:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        return list(self.get("query", query=expr)["result"])

    def firing(self) -> dict[str, dict[str, Any]]:
        return {a["labels"]["alertname"]: a for a in self.get("alerts")["alerts"] if a["state"] == "firing"}

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
        """Until `condition` answers something true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"Prometheus ended by itself:\n{self.log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"{what}: not after {seconds:g} s"
            time.sleep(0.1)


@contextmanager
def running_prometheus(config: Path, port: int) -> Iterator[RunningPrometheus]:
    """A Prometheus on 127.0.0.1 that keeps what it finds next to its configuration."""
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={config.parent / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    log = config.parent / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        found = RunningPrometheus(f"http://127.0.0.1:{port}", process, log)
        found.wait_until(lambda: _is_ready(found.url), "the start of Prometheus")
        yield found
    finally:
        process.terminate()
        process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").is_success
    except httpx.TransportError:
        return False
