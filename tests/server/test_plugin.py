"""How the parts are put together, as far as no vLLM is needed for it."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from adapters.store.audit import Audit
from adapters.store.store import Store
from server.engine.residency import Residency
from server.metrics import Metrics
from server.plugin import EndpointPlugin
from tests.server.fake_engine import FakeEngine


def test_a_load_is_counted_on_the_event_loop_and_written_to_the_audit_log_off_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    engine, plugin, threads = FakeEngine(), EndpointPlugin(), {}
    registry = CollectorRegistry()
    plugin._store, plugin._metrics = store, Metrics(registry, "tiny")

    def noted(method: Callable[..., object]) -> Callable[..., object]:
        def noting(*args: object, **details: object) -> object:
            threads[method.__name__] = threading.current_thread()
            return method(*args, **details)

        return noting

    monkeypatch.setattr(Metrics, "label", noted(Metrics.label))
    monkeypatch.setattr(Audit, "record", noted(Audit.record))

    async def scene() -> None:
        await Residency(engine.judge, engine, engine, 2, plugin._load_ended).load(store.resolve("formal@1"))

    asyncio.run(scene())
    assert threads["label"] is threading.current_thread()
    assert threads["record"] is not threading.current_thread()
    counted = {"adapter": "formal", "result": "loaded"}
    assert registry.get_sample_value("mailwright_adapter_loads_total", counted) == 1
    [entry] = store.audit.entries(1)
    assert (entry["what"], entry["adapter"]) == ("load", "formal@1")
