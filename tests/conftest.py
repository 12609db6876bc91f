"""What every test shares: a tiny base model, a store with adapters for it, and a cache that is not the user's."""

import os
import ssl
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from adapters.models import catalog
from adapters.models.base_models import BaseModel, find
from adapters.store.store import Store
from tests import tiny
from tests.parallel import pytest_xdist_make_scheduler  # noqa: F401 - a hook
from tests.serving import keyed, server, voices  # noqa: F401 - fixtures: one server for tests/server and tests/ui
from trainer.compute import threads

# No example may fail because the machine was busy: Hypothesis gives each 200 ms otherwise.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """The user's own MAILWRIGHT_CACHE; from here on the variable names a temporary directory."""
    users = os.environ.get("MAILWRIGHT_CACHE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAILWRIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield users


@pytest.fixture(scope="session", autouse=True)
def small_base() -> Iterator[None]:
    """No test takes the default of this machine, which depends on its free memory and may be a gigabyte to fetch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAILWRIGHT_BASE", catalog.SMALL)
        yield


@pytest.fixture(autouse=True)
def cache_of_the_test(request: pytest.FixtureRequest, users_cache: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that needs the default base model does not fetch 97 MB again: it uses the user's cache."""
    if request.node.get_closest_marker("default_base"):
        if users_cache is None:
            monkeypatch.delenv("MAILWRIGHT_CACHE")
        else:
            monkeypatch.setenv("MAILWRIGHT_CACHE", users_cache)


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """Every client of httpx or openai would read all certificates again, 20 to 40 ms, though few tests speak TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def usual_priority() -> Iterator[None]:
    """Tests train in their own process, whose priority could not be raised again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "NICENESS", 0)
        yield


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_base(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def base_model(tiny_base: Path) -> BaseModel:
    return find(str(tiny_base))


@pytest.fixture
def store(tmp_path: Path, base_model: BaseModel) -> Store:
    """A store of the test's own with `formal@1`, `formal@2` (promoted: the first) and `friendly@1`."""
    store = Store(tmp_path / "store")
    for seed, name in enumerate(["formal", "formal", "friendly"], start=1):
        tiny.publish(store, base_model, name, seed)
    return store
