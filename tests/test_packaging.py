import ast
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
PACKAGES = TOOLS["mypy"]["packages"]
ENTRIES = PROJECT["scripts"] | {
    name: target for group in PROJECT["entry-points"].values() for name, target in group.items()
}


def commands_of(target: str) -> list[str]:
    """What a target of the Makefile runs, setup apart."""
    found = re.search(rf"^{target}:[^\n]*\n((?:\t[^\n]*\n)+)", (ROOT / "Makefile").read_text() + "\n", re.MULTILINE)
    return [line.strip() for line in found[1].splitlines()] if found else []


def test_the_newest_entry_of_the_changelog_is_the_version_that_is_built():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    newest = re.search(r"^## \[([^]]+)\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    assert newest
    assert newest[1] == PROJECT["version"]


@pytest.mark.parametrize("target", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_point_names_something_that_exists(target: str):
    module, _, name = target.partition(":")
    source = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    defined = {node.name for node in source.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert name in defined


def test_the_plugins_bear_the_names_that_the_server_asks_for():
    source = ast.parse((ROOT / "server/plugin.py").read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {name for group in PROJECT["entry-points"].values() for name in group} <= texts


def test_the_dependencies_are_what_the_code_imports():
    own = set(TOOLS["setuptools"]["packages"])
    imported: set[str] = set()
    for file in (file for package in own for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    projects = packages_distributions()
    others = imported - own - sys.stdlib_module_names - {"vllm"}
    needed = {projects[module][0].lower().replace("_", "-") for module in others}
    assert needed <= {name.replace("_", "-") for name in PROJECT["dependencies"]}


def installed_wheel(folder: Path) -> Path:
    """Build the wheel of a copy of the project, install it alone into an empty environment; gives its site-packages."""
    copy = folder / "project"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, copy]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment")
    install = [*pip, "--python", folder / "environment", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True, text=True)
    (site,) = (folder / "environment").glob("lib/python*/site-packages")
    return site


def test_the_wheel_has_every_module_and_data_file_of_the_packages(tmp_path: Path):
    site = installed_wheel(tmp_path)
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {
        name for name in listed.splitlines() if not name.startswith("ui/screenshots/") and (ROOT / name).is_file()
    }
    found = {str(file.relative_to(site)) for package in PACKAGES for file in (site / package).rglob("*")}
    assert wanted - found == set()
    assert "trainer/training/sft.py" in wanted


def test_ci_runs_what_a_developer_runs_and_nothing_else():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[0].startswith("#!")
    assert lines[1:] == ["set -e", 'cd "$(dirname "$0")/.."', "exec make check test"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_check_formats_lints_and_types_without_changing_a_file():
    assert commands_of("check") == ["$(VENV)/ruff format --check .", "$(VENV)/ruff check .", "$(VENV)/mypy"]


def test_the_fast_tests_leave_out_every_slow_mark():
    (command,) = commands_of("test-fast")
    marks = {marker.partition(":")[0] for marker in TOOLS["pytest"]["ini_options"]["markers"]}
    assert all(f"not {mark}" in command for mark in ("vllm", "training"))
    assert {"vllm", "training"} <= marks


def test_the_tests_are_all_run_in_one_half_or_the_other():
    first, second = commands_of("test")
    assert first == '$(VENV)/pytest -n 2 --dist loadfile -m "not vllm and not training and not browser"'
    assert second == '$(VENV)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "vllm or training or browser"'


@pytest.mark.parametrize("file", ["LICENSE", "README.md", "CONTRIBUTING.md", "DECISIONS.md", "Dockerfile"])
def test_a_file_that_every_clone_needs_is_there(file: str):
    assert (ROOT / file).read_text().strip()
