"""Every kind of bad adapter on the real server: refused with its own reason, and the engine never hears of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.store.store import POINTERS, Store
from tests import bad_adapters, tiny
from tests.serving import RunningServer

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def versions(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The bad version of each kind, all put into the server's store at once, none of them promoted."""
    elsewhere = Store(tmp_path_factory.mktemp("elsewhere") / "store")
    versions = {}
    for kind in bad_adapters.KINDS:
        version = tiny.publish(elsewhere, server.base, "bad", seed=1)
        bad_adapters.spoil(kind, version.path)
        versions[kind] = version.id
    (elsewhere.directory / "bad" / POINTERS).unlink()
    shutil.move(elsewhere.directory / "bad", server.store.directory / "bad")
    yield versions
    shutil.rmtree(server.store.directory / "bad")


@pytest.mark.parametrize("kind", bad_adapters.KINDS)
def test_it_is_422_with_its_own_reason(server: RunningServer, versions: dict[str, str], kind: str):
    refused = server.loads("bad", "refused")
    for _ in range(2):
        answer = server.ask(versions[kind])
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "adapter_unusable")
        assert bad_adapters.KINDS[kind].reason in answer.json()["error"]["message"]
    # The second time nothing was read again.
    assert server.loads("bad", "refused") == refused + 1


def test_the_engine_has_heard_of_none_and_the_good_ones_write_as_before(
    server: RunningServer, versions: dict[str, str], tmp_path: Path
):
    before = server.ask("formal@2").json()["choices"][0]["text"]
    for version in versions.values():
        assert server.ask(version).status_code == 422
    assert server.ask("formal@2").json()["choices"][0]["text"] == before
    assert (server.loads("bad", "loaded"), server.loads("bad", "failed")) == (0, 0)
    known = httpx.get(f"{server.url}/v1/adapters/bad", timeout=60).json()["versions"]
    assert len(known) == len(versions)
    assert not any(version["loaded"] for version in known)
    assert all(version["refused"] for version in known)
