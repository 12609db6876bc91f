import shutil
import subprocess
import sys

import pytest

from adapters.errors import AdapterNotFound
from adapters.store.leases import Lease, claims, holders
from adapters.store.store import Store
from server.engine import claims as server_claims
from server.engine.claims import StoreClaims


def held(store: Store) -> list[str]:
    return sorted(holders(store.directory, dead=[]))


def test_a_held_version_is_claimed_in_the_store_until_every_holder_has_released_it(store: Store):
    mine = StoreClaims(store)
    version = store.resolve("formal")
    mine.hold(version)
    mine.hold(version)
    mine.release(version)
    assert held(store) == ["formal@1"]
    mine.release(version)
    assert held(store) == []


def test_files_that_are_gone_cannot_be_held(store: Store):
    version = store.resolve("formal@2")
    shutil.rmtree(version.path)
    with pytest.raises(AdapterNotFound):
        StoreClaims(store).hold(version)
    assert held(store) == []


def test_a_store_that_cannot_be_written_is_served_without_a_lease_and_the_log_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(directory: object) -> Lease:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(server_claims, "Lease", refuse)
    mine = StoreClaims(store)
    assert "Read-only file system" in caplog.text
    assert "gc" in caplog.text
    mine.hold(store.resolve("formal"))
    mine.release(store.resolve("formal"))
    version = store.resolve("formal")
    shutil.rmtree(version.path)
    with pytest.raises(AdapterNotFound):
        mine.hold(version)


def test_a_process_that_ends_takes_its_claims_with_it(store: Store):
    program = (
        "from pathlib import Path; from adapters.store.store import Store\n"
        "from server.engine.claims import StoreClaims\n"
        f"store = Store(Path({str(store.directory)!r})); StoreClaims(store).hold(store.resolve('formal'))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert claims(store.directory) == []
