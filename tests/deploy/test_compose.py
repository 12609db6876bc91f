"""The compose files against their schema, the Dockerfile, the configurations and the code. Nothing is started."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from server import settings as server_settings
from server.settings import read
from tests.deploy.containers import PAGE_TO_ALL, ROOT, composed, stages
from tests.deploy.prometheus import DASHBOARDS, DEPLOY, PROMETHEUS
from ui import settings as ui_settings

STACK = composed()
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = ("server", "ui", "trainer")
GPU = "compose.gpu.yaml"
PORTS = {"grafana": 3000, "prometheus": 9090, "server": 8000, "ui": 7860}


def mounts(service: str) -> dict[str, str]:
    """Where in the container -> what."""
    split = [volume.removesuffix(":ro").rsplit(":", 1) for volume in SERVICES[service]["volumes"]]
    return {where: what for what, where in split}


def share_a_network(one: str, other: str) -> bool:
    return bool(set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"]))


@pytest.mark.parametrize("overlays", [[], [GPU]], ids=["cpu", "gpu"])
def test_the_files_are_what_compose_reads_also_when_merged(overlays: list[str], tmp_path: Path):
    merged = tmp_path / "merged.yaml"
    merged.write_text(yaml.safe_dump(composed(*overlays)))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    files = [merged, DEPLOY / "compose.yaml", *[DEPLOY / name for name in overlays]]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_only_the_user_can_choose_is_asked_for():
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?[^}]+\}", text)) == {"MAILWRIGHT_API_KEY", "GRAFANA_PASSWORD"}
    assert set(re.findall(r"\$\{(\w+)(?!:\?|\w)", text)) == {"EMAILS"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Compose copies a secret that comes from the environment into the container, and cannot if that is read-only.
    assert service["read_only"] is not bool(service.get("secrets"))


def test_everything_is_published_on_this_machine_only():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {name: [f"127.0.0.1:{port}:{port}"] for name, port in PORTS.items()}
    assert server_settings.read([], {}).port == PORTS["server"]
    assert ui_settings.read([], {}).port == PORTS["ui"]


def test_images_that_are_not_built_here_are_pinned():
    found = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert found
    assert [image for image in found if not re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", image)] == []


@pytest.mark.parametrize("overlays", [[], [GPU]], ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", OURS)
def test_our_images_are_targets_of_the_dockerfile(name: str, overlays: list[str]):
    build = composed(*overlays)["services"][name]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert build["target"] in stages()
    for kind in build.get("args", {}).values():
        assert (DEPLOY / f"requirements-{kind}.txt").exists()


def test_with_a_gpu_server_and_trainer_get_it_and_the_pins_for_it():
    over = yaml.safe_load((DEPLOY / GPU).read_text())["services"]
    assert set(over) == {"server", "trainer"}
    for service in over.values():
        assert service["build"]["args"] == {"KIND": "cuda"}
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_the_server_starts_with_its_command_and_environment():
    environment = dict.fromkeys(SERVICES["server"]["environment"], "key")
    arguments = json.loads(stages()["server"].last("ENTRYPOINT"))[1:]
    assert server_settings.read(arguments, environment).api_key == "key"


def test_the_page_asks_the_server_with_the_servers_key():
    assert SERVICES["ui"]["command"] == PAGE_TO_ALL
    environment = SERVICES["ui"]["environment"]
    assert environment["MAILWRIGHT_API_KEY"] == SERVICES["server"]["environment"]["MAILWRIGHT_API_KEY"]
    address = urlsplit(ui_settings.read(PAGE_TO_ALL, environment).server)
    assert (address.hostname, address.port) == ("server", PORTS["server"])
    assert share_a_network("ui", "server")


def test_prometheus_finds_the_server_and_its_key():
    scrape = yaml.safe_load((PROMETHEUS / "prometheus.compose.yml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": [f"server:{PORTS['server']}"]}]
    assert share_a_network("prometheus", "server")
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert scrape["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    assert STACK["secrets"][secret] == {"environment": "MAILWRIGHT_API_KEY"}


def test_prometheus_finds_its_configuration_and_rules():
    found = mounts("prometheus")
    config = next(Path(flag.partition("=")[2]) for flag in SERVICES["prometheus"]["command"] if "config.file" in flag)
    assert found[str(config)] == "./prometheus/prometheus.compose.yml"
    (pattern,) = yaml.safe_load((PROMETHEUS / "prometheus.compose.yml").read_text())["rule_files"]
    assert found[str((config.parent / pattern).parent)] == "./prometheus/rules"


def test_grafana_finds_prometheus_and_the_dashboards():
    provisioning = DEPLOY / mounts("grafana")["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{PORTS['prometheus']}"
    assert share_a_network("grafana", "prometheus")
    (provider,) = yaml.safe_load((provisioning / "dashboards/mailwright.yml").read_text())["providers"]
    assert sorted((DEPLOY / mounts("grafana")[provider["options"]["path"]]).glob("*.json")) == DASHBOARDS


def test_grafana_lets_nobody_in_without_the_password_and_tells_nobody():
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert {value for name, value in environment.items() if name.startswith("GF_ANALYTICS_")} == {"false"}


@pytest.mark.parametrize("name", OURS)
def test_our_volumes_lie_where_the_image_looks_and_every_place_to_write_is_one(name: str):
    image = stages()[name].environment
    places = {variable: where for variable, where in image.items() if variable.startswith("MAILWRIGHT_")}
    mounted = {where for where in mounts(name) if where.startswith("/data")}
    assert mounted <= set(places.values())
    temporary = {entry.partition(":")[0] for entry in SERVICES[name]["tmpfs"]}
    assert {"/tmp", places["MAILWRIGHT_CACHE"]} <= temporary | mounted


def test_what_is_mounted_is_in_the_repository_or_a_declared_volume():
    for name in SERVICES:
        for what in mounts(name).values():
            assert what in STACK["volumes"] or what.startswith("${") or (DEPLOY / what).exists(), what


def test_only_the_trainer_and_the_servers_lease_are_written_into_the_store():
    writers = {name for name, service in SERVICES.items() if "store:/data/store" in service.get("volumes", [])}
    assert writers == {"server", "trainer"}


def test_the_server_is_given_the_time_that_it_takes_to_finish_its_answers():
    assert int(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > read([], {}).shutdown_seconds


def test_whatever_is_waited_for_can_say_that_it_is_healthy():
    waited_for = {
        other
        for service in SERVICES.values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_healthy"
    }
    assert waited_for == {"server", "prometheus"}
    for name in waited_for:
        assert "healthcheck" in SERVICES[name] or stages()[name].last("HEALTHCHECK")
