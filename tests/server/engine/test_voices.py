"""The store, what is loaded, and what is counted of it, together."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from adapters.store.audit import Audit
from adapters.store.store import Store
from server.engine.voices import Voices
from server.metrics import Metrics
from tests.server.fake_engine import FakeEngine


def test_a_load_is_counted_on_the_event_loop_and_written_to_the_audit_log_off_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    engine, registry, threads = FakeEngine(), CollectorRegistry(), {}

    def noted(method: Callable[..., object]) -> Callable[..., object]:
        def noting(*args: object, **details: object) -> object:
            threads[method.__name__] = threading.current_thread()
            return method(*args, **details)

        return noting

    monkeypatch.setattr(Metrics, "label", noted(Metrics.label))
    monkeypatch.setattr(Audit, "record", noted(Audit.record))

    async def scene() -> None:
        voices = Voices(store, engine, engine.judge, 2, Metrics(registry, "tiny").load_ended)
        await voices.residency.load(store.resolve("formal@1"))

    asyncio.run(scene())
    assert threads["label"] is threading.current_thread()
    assert threads["record"] is not threading.current_thread()
    counted = {"adapter": "formal", "result": "loaded"}
    assert registry.get_sample_value("mailwright_adapter_loads_total", counted) == 1
    [entry] = store.audit.entries(1)
    assert (entry["what"], entry["adapter"]) == ("load", "formal@1")
