"""Every Prometheus series of the server, declared once, and what counts into them.

The label `adapter` is the name of a published adapter without its version, with `@canary` behind it for the requests
that a version on trial answers, or the base model's own name. Names that callers make up are all `_unknown`, and beyond
MAX_NAMES published ones all others are `_other`, so that no caller can fill the memory with series. A name keeps its
series until the server ends.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Generic, Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.engine.residency import LoadResult
from server.vllm_version import installed_vllm

MAX_NAMES = 200
# No adapter's name begins with an underscore, and no label of a version is called canary.
UNKNOWN, OTHER, CANARY = "_unknown", "_other", "@canary"

# Between two questions to the engine, which answers between two steps: seldom enough to cost nothing.
RESIDENT_SECONDS = 5.0

Outcome = Literal["ok", "client_error", "refused", "server_error", "client_gone"]
Kind = TypeVar("Kind", Counter, Gauge, Histogram)


@dataclass(frozen=True)
class Series(Generic[Kind]):
    """One series as it is exposed; `buckets` are the upper limits of a histogram, without infinity."""

    kind: type[Kind]
    name: str
    unit: str
    help: str
    buckets: tuple[float, ...] = ()
    labels: tuple[str, ...] = ("adapter",)

    def registered(self, registry: CollectorRegistry) -> Kind:
        options: dict[str, Any] = {"buckets": self.buckets} if self.buckets else {}
        metric: Any = self.kind(self.name, self.help, self.labels, registry=registry, **options)
        # Looked up eight times a request, 2 us each; there are no more of them than names, and none is ever removed.
        metric.labels = cache(metric.labels)
        return metric  # type: ignore[no-any-return]


# Few buckets, because every adapter has them all; the limits that deploy/prometheus/ alerts on must be among them.
REQUESTS = Series(
    Counter,
    "mailwright_requests_total",
    "requests",
    "Requests for an answer that have ended: ok, client_error (4xx), refused (422 or 503: the adapter is unusable or"
    " the server overloaded), server_error (other 5xx, or an answer that broke off), client_gone (it hung up).",
    labels=("adapter", "outcome"),
)
IN_FLIGHT = Series(
    Gauge,
    "mailwright_requests_in_flight",
    "requests",
    "Requests whose adapter is known and whose answer has not ended.",
)
QUEUE_WAIT = Series(
    Histogram,
    "mailwright_queue_wait_seconds",
    "seconds",
    "From arrival until vLLM was given the request: reading it, and waiting for its adapter to load."
    " vLLM's own queue is not in it (vllm:request_queue_time_seconds).",
    (0.01, 0.1, 0.5, 1, 3, 5, 10, 30),
)
FIRST_TOKEN = Series(
    Histogram,
    "mailwright_time_to_first_token_seconds",
    "seconds",
    "Streams: from arrival until the first token left. load is cold if the request waited for its adapter to load.",
    (0.1, 0.25, 0.5, 1, 2.5, 3, 5, 10, 30),
    labels=("adapter", "load"),
)
PER_TOKEN = Series(
    Histogram,
    "mailwright_time_per_output_token_seconds",
    "seconds",
    "Streams that ended well: time between the first and the last token, for each token after the first.",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
END_TO_END = Series(
    Histogram,
    "mailwright_end_to_end_seconds",
    "seconds",
    "Requests with outcome ok: from arrival until the whole answer had left.",
    (0.25, 0.5, 1, 2.5, 3, 5, 10, 30, 60, 120),
)
PROMPT_TOKENS = Series(
    Counter, "mailwright_prompt_tokens_total", "tokens", "Tokens read, by what answers said of their usage."
)
COMPLETION_TOKENS = Series(
    Counter,
    "mailwright_completion_tokens_total",
    "tokens",
    "Tokens written, by what answers said of their usage, also of streams that were cut short.",
)
DRAFTS = Series(Counter, "mailwright_drafts_total", "drafts", "Drafts begun for requests that asked for checked ones.")
DRAFTED = Series(
    Counter,
    "mailwright_drafted_answers_total",
    "answers",
    "Answers chosen among drafts: held (the checker says that it can be sent), with_findings (none could).",
    labels=("adapter", "result"),
)
DRAFTING = Series(
    Histogram,
    "mailwright_drafting_seconds",
    "seconds",
    "How long writing and checking the drafts of a request took.",
    (1, 2.5, 5, 10, 20, 30, 60, 120),
)
LOADS = Series(
    Counter,
    "mailwright_adapter_loads_total",
    "loads",
    "Versions loaded for a request or ahead of it: loaded, refused (its files speak against it, vLLM never saw it),"
    " failed (vLLM could not load it).",
    labels=("adapter", "result"),
)
LOAD = Series(
    Histogram,
    "mailwright_adapter_load_seconds",
    "seconds",
    "How long such a load took, its checks included.",
    (0.1, 0.25, 0.5, 1, 3, 5, 10, 30),
    labels=("adapter", "result"),
)
RESIDENT = Series(
    Gauge,
    "mailwright_adapters_resident",
    "adapters",
    f"Versions that the engine holds in memory, asked within {RESIDENT_SECONDS:g} s of a change; NaN if it did not"
    " answer.",
    labels=(),
)
BUILD = Series(
    Gauge,
    "mailwright_build_info",
    "info",
    "Always 1; its labels say what is running.",
    labels=("version", "vllm", "base_model"),
)
ALL = (
    *(REQUESTS, IN_FLIGHT, QUEUE_WAIT, FIRST_TOKEN, PER_TOKEN, END_TO_END, PROMPT_TOKENS, COMPLETION_TOKENS),
    *(DRAFTS, DRAFTED, DRAFTING, LOADS, LOAD, RESIDENT, BUILD),
)


class Metrics:
    """The series in `registry`; to be used on the event loop's thread, and read from any."""

    def __init__(self, registry: CollectorRegistry, base_name: str) -> None:
        self.requests = REQUESTS.registered(registry)
        self.in_flight = IN_FLIGHT.registered(registry)
        self.queue_wait = QUEUE_WAIT.registered(registry)
        self.first_token = FIRST_TOKEN.registered(registry)
        self.per_token = PER_TOKEN.registered(registry)
        self.end_to_end = END_TO_END.registered(registry)
        self.prompt_tokens = PROMPT_TOKENS.registered(registry)
        self.completion_tokens = COMPLETION_TOKENS.registered(registry)
        self.drafts = DRAFTS.registered(registry)
        self.drafted = DRAFTED.registered(registry)
        self.drafting = DRAFTING.registered(registry)
        self._loads = LOADS.registered(registry)
        self._load = LOAD.registered(registry)
        self._resident = RESIDENT.registered(registry)
        self._names: set[str] = set()
        self._residents_changed = asyncio.Event()
        BUILD.registered(registry).labels(metadata.version("mailwright"), installed_vllm() or "", base_name).set(1)
        self._resident.set(math.nan)
        self._begin(UNKNOWN)
        self.label(base_name)

    def label(self, name: str) -> str:
        """The value of the label `adapter` for a name that is published, or the base model's."""
        if name in self._names:
            return name
        if len(self._names) >= MAX_NAMES:
            name = OTHER
        else:
            self._names.add(name)
        self._begin(name)
        return name

    def load_ended(self, name: str, result: LoadResult, seconds: float) -> None:
        label = self.label(name)
        for possible in get_args(LoadResult):
            self._loads.labels(label, possible)
        self._loads.labels(label, result).inc()
        self._load.labels(label, result).observe(seconds)

    async def follow_residents(
        self, residents: Callable[[], Awaitable[Collection[int]]], every: float = RESIDENT_SECONDS
    ) -> None:
        """Ask `residents` which versions the engine holds, after each `residents_changed`, until cancelled.

        A load makes the engine evict others silently. It is not asked while idle: vLLM's worker spins for a second
        after a question, 14 % of a core if asked every 5 s.
        """
        while True:
            self._residents_changed.clear()
            try:
                self._resident.set(len(await residents()))
            except Exception:  # any failure of the engine, which others report
                self._resident.set(math.nan)
                self._residents_changed.set()
            await asyncio.sleep(every)
            await self._residents_changed.wait()

    def residents_changed(self) -> None:
        """The engine loads or unloads a version."""
        self._residents_changed.set()

    def _begin(self, label: str) -> None:
        """At 0: Prometheus sees no increase in a counter that appears with the first error."""
        for outcome in get_args(Outcome):
            self.requests.labels(label, outcome)
