import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def script(name: str) -> ModuleType:
    """A script of deploy/, which is no package, as a module of the test's own."""
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", DEPLOY / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """deploy/setup.py with a .venv of the test's own, which holds no pip."""
    module = script("setup")
    venv = tmp_path / ".venv"
    venv.mkdir()
    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "READY", venv / ".mailwright-ready")
    monkeypatch.setattr(module, "LOG", venv / "setup.log")
    yield module
    del sys.modules[module.__name__]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """deploy/demo.py with a .demo of the test's own."""
    module = script("demo")
    monkeypatch.setattr(module, "DEMO", tmp_path / ".demo")
    monkeypatch.setattr(module, "STORE", tmp_path / ".demo" / "store")
    (tmp_path / ".demo").mkdir()
    yield module
    del sys.modules[module.__name__]
