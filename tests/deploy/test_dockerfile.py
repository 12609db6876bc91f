"""The Dockerfile against the code: no container can be built here, but paths, ports and commands can drift."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest
from packaging.utils import canonicalize_name

from adapters import settings as places
from adapters.errors import ConfigError
from server import settings as server_settings
from server.api.gate import OPEN
from tests.deploy.containers import PAGE_TO_ALL, ROOT, Stage, stages
from tests.deploy.test_requirements import LEFT_OUT, PIN, lines, needed_here, pins
from tests.serving import free_port
from ui import settings as ui_settings

STAGES = stages()
IMAGES = {name: STAGES[name] for name in ("server", "trainer", "ui")}
PYTHON = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_hadolint_finds_nothing_wrong():
    hadolint = Path(sys.executable).with_name("hadolint")
    assert hadolint.exists(), "the tests need hadolint: run `make setup`"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_server_is_what_a_build_without_a_target_makes():
    assert list(STAGES)[-1] == "server"


def test_images_from_outside_have_a_tag_with_the_python_that_we_need():
    outside = {stage.image for stage in STAGES.values()} - STAGES.keys()
    assert PYTHON["requires-python"] == ">=3.11,<3.12"
    assert [image for image in outside if not image.startswith("python:3.11-")] == []


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_an_image_runs_as_a_user_without_rights(image: Stage):
    (user,) = re.findall(r"useradd --uid (\d+)", " ".join(image.all("RUN")))
    assert image.last("USER") == user != "0"


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_what_is_copied_exists(image: Stage):
    copied = [line.split()[:-1] for line in image.all("COPY") + STAGES["wheel"].all("COPY") if "--from" not in line]
    for source in (source for sources in copied for source in sources):
        for kind in ("cpu", "cuda"):
            assert (ROOT / source.replace("${KIND}", kind)).exists(), source


def test_everything_that_the_wheel_is_built_from_is_copied():
    copied = {source for line in STAGES["wheel"].all("COPY") for source in line.split()[:-1]}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["packages"]
    assert copied == {*packages, "pyproject.toml", PYTHON["readme"], "LICENSE"}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_starts_the_command_that_it_is_named_after(name: str):
    assert json.loads(IMAGES[name].last("ENTRYPOINT"))[0] == name
    assert name in PYTHON["scripts"]


def test_the_server_opens_its_container_to_others_with_a_key_only():
    arguments = json.loads(IMAGES["server"].last("ENTRYPOINT"))[1:]
    assert server_settings.read(arguments, {"MAILWRIGHT_API_KEY": "key"}).host == "0.0.0.0"
    with pytest.raises(ConfigError, match="without a key"):
        server_settings.read(arguments, {})


def test_the_page_opens_its_container_to_others_only_when_told_to():
    assert json.loads(IMAGES["ui"].last("ENTRYPOINT")) == ["ui"]
    assert ui_settings.read(PAGE_TO_ALL, {}).host == "0.0.0.0"


def test_ports_and_health_checks_are_those_of_the_code():
    for image, port in {"server": server_settings.read([], {}).port, "ui": ui_settings.read([], {}).port}.items():
        assert IMAGES[image].last("EXPOSE") == str(port)
        assert f"http://127.0.0.1:{port}/" in IMAGES[image].last("HEALTHCHECK")
    assert ("GET", "/health") in OPEN
    assert "/health'" in IMAGES["server"].last("HEALTHCHECK")


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_the_folders_in_the_environment_are_the_ones_that_the_code_uses_and_the_image_has(
    image: Stage, monkeypatch: pytest.MonkeyPatch
):
    for name, value in image.environment.items():
        monkeypatch.setenv(name, value)
    made = re.search(r"install -d -o \d+ -g \d+ (.*)", " ".join(image.all("RUN")))
    assert made
    for directory in (places.store_directory(), places.cache_directory(), places.kept_directory()):
        assert str(directory) in made[1].split()


def test_the_pages_pins_are_the_services_and_complete():
    page, service = pins("ui"), pins("cpu")
    assert [line for line in lines("ui") if not PIN.fullmatch(line)] == []
    assert page.items() - service.items() == set()
    assert {need for package in page for need in needed_here(package)} - page.keys() - LEFT_OUT == set()


LIGHT = """
import sys

class OnlyPinned:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BARRED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyPinned())
from ui.site import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_page_starts_with_nothing_but_its_own_pins(tmp_path: Path):
    """As in its image: torch, vLLM and everything else that is installed here cannot be imported."""
    barred = [
        module
        for module, found in packages_distributions().items()
        if not {str(canonicalize_name(name)) for name in found} & {*pins("ui"), "mailwright"}
    ]
    assert {"torch", "vllm", "safetensors"} <= set(barred)
    command = [sys.executable, "-c", f"BARRED = {barred!r}\n{LIGHT}", "--port", str(free_port())]
    said = ""
    with subprocess.Popen(
        [*command, "--kept", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as page:
        try:
            assert page.stdout
            while not (line := page.stdout.readline()).startswith("page "):
                said += line
                assert line, f"the page did not start:\n{said}"
            # What HEALTHCHECK asks for.
            assert httpx.get(line.split()[1]).status_code == 200
        finally:
            page.terminate()
    assert page.returncode == 0
