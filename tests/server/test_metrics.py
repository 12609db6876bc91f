"""The series: declared once, well named, bounded; and what the real server shows after a few requests."""

import asyncio
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import httpx
import openai
import pytest
from prometheus_client import CollectorRegistry, disable_created_metrics, enable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families as read_text

from adapters.store.manifest import NAME
from server.engine.residency import LoadResult
from server.metrics import ALL, MAX_NAMES, OTHER, UNKNOWN, Metrics, Outcome, Series
from tests import tiny
from tests.serving import RunningServer

MESSAGES = [{"role": "user", "content": "Ask for a meeting."}]


@pytest.fixture(autouse=True)
def no_second_series() -> Iterator[None]:
    """As server/plugin.py has it."""
    disable_created_metrics()
    yield
    enable_created_metrics()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, "tiny-llama")


def fill(metrics: Metrics, name: str) -> None:
    """Every series that an adapter can have."""
    label = metrics.label(name)
    for outcome in get_args(Outcome):
        metrics.requests.labels(label, outcome).inc()
    for result in ("held", "with_findings"):
        metrics.drafted.labels(label, result).inc()
    for series in (metrics.in_flight, metrics.prompt_tokens, metrics.completion_tokens, metrics.drafts):
        series.labels(label).inc()
    for series in (metrics.queue_wait, metrics.per_token, metrics.end_to_end, metrics.drafting):
        series.labels(label).observe(1)
    for load in ("warm", "cold"):
        metrics.first_token.labels(label, load).observe(1)
    for result in get_args(LoadResult):
        metrics.load_ended(name, result, 1)


def names_in(registry: CollectorRegistry) -> set[str]:
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {sample.labels["adapter"] for sample in samples if "adapter" in sample.labels}


def count_of(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in registry.collect())


def test_what_is_exposed_is_what_is_declared(metrics: Metrics, registry: CollectorRegistry):
    fill(metrics, "formal")
    types = [line.split()[2:] for line in generate_latest(registry).decode().splitlines() if line.startswith("# TYPE")]
    assert sorted(types) == sorted([series.name, series.kind.__name__.lower()] for series in ALL)
    labels: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels.setdefault(family.name, set()).update(set(sample.labels) - {"le"})
    assert labels == {series.name.removesuffix("_total"): set(series.labels) for series in ALL}


@pytest.mark.parametrize("series", ALL, ids=lambda series: series.name)
def test_a_name_has_its_unit_in_it(series: Series):
    assert series.name.startswith("mailwright_")
    assert series.unit in series.name.split("_")
    assert not series.buckets or series.name.endswith("_seconds")


def test_the_limits_that_alerts_compare_with_are_buckets():
    buckets = {series.name: series.buckets for series in ALL}
    assert {0.5, 1, 3, 5} <= set(buckets["mailwright_time_to_first_token_seconds"])
    assert {0.5, 1, 3, 5} <= set(buckets["mailwright_end_to_end_seconds"])
    assert 0.1 in buckets["mailwright_time_per_output_token_seconds"]


def lint(text: str) -> None:
    """Debian's promtool, which finds what is unusual in names, types and help."""
    promtool = shutil.which("promtool", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert promtool, "promtool is missing: `make setup` installs it"
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr + done.stdout) == (0, "")


def test_promtool_has_nothing_against_them(metrics: Metrics, registry: CollectorRegistry):
    fill(metrics, "formal")
    lint(generate_latest(registry).decode())


def test_beyond_200_names_all_others_are_one(metrics: Metrics, registry: CollectorRegistry):
    names = [f"voice-{number}" for number in range(MAX_NAMES + 50)]
    for name in names:
        fill(metrics, name)
    first = names[: MAX_NAMES - 1]
    assert names_in(registry) == {"tiny-llama", UNKNOWN, OTHER, *first}
    assert registry.get_sample_value("mailwright_end_to_end_seconds_count", {"adapter": OTHER}) == 51
    before = count_of(registry)
    for name in ["voice-0", "voice-249", "one-more"]:
        fill(metrics, name)
    assert count_of(registry) == before


def test_no_adapter_can_be_called_like_the_ones_we_made_up():
    assert not NAME.fullmatch(UNKNOWN)
    assert not NAME.fullmatch(OTHER)


def test_an_adapters_first_error_is_an_increase(metrics: Metrics, registry: CollectorRegistry):
    metrics.label("formal")
    for adapter in ("formal", "tiny-llama", UNKNOWN):
        for outcome in get_args(Outcome):
            assert registry.get_sample_value("mailwright_requests_total", {"adapter": adapter, "outcome": outcome}) == 0


def test_the_engine_is_asked_what_it_holds_after_every_change_and_again_if_it_failed(
    metrics: Metrics, registry: CollectorRegistry
):
    answers = iter([{1, 2}, ConnectionError("the engine is away"), {3}])
    shown = []
    asked_enough = asyncio.Event()

    async def residents() -> set[int]:
        shown.append(registry.get_sample_value("mailwright_adapters_resident"))
        answer = next(answers, None)
        if answer is None:
            asked_enough.set()
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        # Also while it is being asked.
        metrics.residents_changed()
        return answer

    async def play() -> None:
        following = asyncio.create_task(metrics.follow_residents(residents, every=0))
        await asyncio.wait_for(asked_enough.wait(), 10)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    asyncio.run(play())
    assert [None if math.isnan(value) else value for value in shown] == [None, 2, None, 1]


def test_an_idle_engine_is_not_asked_again(metrics: Metrics):
    asked = asyncio.Queue()

    async def residents() -> set[int]:
        asked.put_nowait("once")
        return set()

    async def play() -> None:
        following = asyncio.create_task(metrics.follow_residents(residents, every=0))
        await asyncio.wait_for(asked.get(), 10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert asked.empty()
        metrics.residents_changed()
        await asyncio.wait_for(asked.get(), 10)
        following.cancel()

    asyncio.run(play())


class Scrape:
    """What /metrics shows: `shown("mailwright_requests_total", adapter="formal", outcome="ok")`."""

    def __init__(self, server: RunningServer) -> None:
        self.text = httpx.get(f"{server.url}/metrics").raise_for_status().text
        samples = [sample for family in read_text(self.text) for sample in family.samples]
        self._samples = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples.get((f"mailwright_{name}", frozenset(labels.items())), 0.0)

    def adapters(self) -> set[str]:
        return {value for _, labels in self._samples for key, value in labels if key == "adapter"}


def until(server: RunningServer, condition: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape for which `condition` holds."""
    deadline = time.monotonic() + 60
    while not condition(shown := Scrape(server)):
        assert time.monotonic() < deadline, shown.text
        time.sleep(0.1)
    return shown


def stream(server: RunningServer, model: str) -> list[openai.types.chat.ChatCompletionChunk]:
    with server.client() as client:
        return list(
            client.chat.completions.create(
                model=model, messages=MESSAGES, max_tokens=24, temperature=0, stream=True, extra_body={"min_tokens": 24}
            )
        )


@pytest.mark.vllm
def test_a_stream_shows_in_its_adapters_series_first_cold_then_warm(server: RunningServer):
    tiny.publish(server.store, server.base, "metered", seed=21)
    prompt_tokens = stream(server, "metered")[-1].usage.prompt_tokens
    stream(server, "metered@1")
    shown = until(server, lambda shown: shown("requests_total", adapter="metered", outcome="ok") == 2)
    assert shown("requests_in_flight", adapter="metered") == 0
    assert shown("queue_wait_seconds_count", adapter="metered") == 2
    for load in ("cold", "warm"):
        assert shown("time_to_first_token_seconds_count", adapter="metered", load=load) == 1
    assert shown("time_per_output_token_seconds_count", adapter="metered") == 2
    assert shown("end_to_end_seconds_count", adapter="metered") == 2
    assert shown("prompt_tokens_total", adapter="metered") == 2 * prompt_tokens
    assert shown("completion_tokens_total", adapter="metered") == 2 * 24
    assert shown("adapter_loads_total", adapter="metered", result="loaded") == 1
    assert shown("adapter_load_seconds_count", adapter="metered", result="loaded") == 1
    spent = shown("end_to_end_seconds_sum", adapter="metered")
    first = sum(shown("time_to_first_token_seconds_sum", adapter="metered", load=load) for load in ("cold", "warm"))
    writing = 23 * shown("time_per_output_token_seconds_sum", adapter="metered")
    assert 0 < shown("queue_wait_seconds_sum", adapter="metered") < first < first + writing < spent


@pytest.mark.vllm
def test_whole_answers_of_the_base_model_are_one_adapter_under_all_its_names(server: RunningServer):
    before = Scrape(server)
    used = []
    with server.client() as client:
        used += [client.chat.completions.create(model="base", messages=MESSAGES, max_tokens=4).usage]
        used += [client.completions.create(model="tiny-llama", prompt="Dear all,", max_tokens=4).usage]
    after = until(server, lambda shown: shown("requests_in_flight", adapter="tiny-llama") == 0)
    for name, expected in {
        "prompt_tokens_total": sum(usage.prompt_tokens for usage in used),
        "completion_tokens_total": sum(usage.completion_tokens for usage in used),
        "end_to_end_seconds_count": 2,
    }.items():
        assert after(name, adapter="tiny-llama") - before(name, adapter="tiny-llama") == expected
    assert "base" not in after.adapters()
    assert "vllm:e2e_request_latency_seconds_count" in after.text


@pytest.mark.vllm
def test_junk_names_and_a_broken_adapter_show_as_what_they_are(server: RunningServer, tmp_path: Path):
    tiny.publish(server.store, server.base, "tampered", seed=22)
    config = server.store.resolve("tampered").path / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 8', '"r": 4'))
    before = Scrape(server)
    for model in ("no-such-voice", "Invent/me", "tampered", "tampered"):
        httpx.post(f"{server.url}/v1/chat/completions", json={"model": model, "messages": MESSAGES})
    httpx.post(f"{server.url}/v1/chat/completions", json={"model": "formal", "messages": 7})
    shutil.rmtree(server.store.directory / "tampered")
    after = Scrape(server)

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert more("requests_total", adapter=UNKNOWN, outcome="client_error") == 2
    assert more("requests_total", adapter="tampered", outcome="refused") == 2
    assert more("requests_total", adapter="formal", outcome="client_error") == 1
    assert more("adapter_loads_total", adapter="tampered", result="refused") == 1
    assert not {"no-such-voice", "Invent/me"} & after.adapters()


def hung_up(server: RunningServer) -> Scrape:
    """What the server shows once it is done with a request whose client left after the first word.

    Eight answers at once, so that the engine takes longer over them than this process takes to see the first word.
    """
    with server.client() as client:
        answer = client.chat.completions.create(
            model="friendly", messages=MESSAGES, n=8, max_tokens=1900, stream=True, extra_body={"min_tokens": 1900}
        )
        next(chunk for chunk in answer if chunk.choices[0].delta.content)
        answer.close()
    return until(server, lambda shown: shown("requests_in_flight", adapter="friendly") == 0)


@pytest.mark.vllm
def test_a_client_that_hangs_up_is_no_error_of_the_server(server: RunningServer):
    before = Scrape(server)
    gone = before("requests_total", adapter="friendly", outcome="client_gone")
    deadline = time.monotonic() + 60
    # With two cores busy this process may sleep through a whole answer; then it hung up too late, and tries again.
    while (after := hung_up(server))("requests_total", adapter="friendly", outcome="client_gone") == gone:
        assert time.monotonic() < deadline, after.text
    assert after("requests_in_flight", adapter="friendly") == 0
    assert after("requests_total", adapter="friendly", outcome="server_error") == 0
    assert after("completion_tokens_total", adapter="friendly") > before("completion_tokens_total", adapter="friendly")


@pytest.mark.vllm
def test_a_reader_that_leaves_ends_its_answer_in_the_engine(server: RunningServer):
    for _ in range(10):
        written = server.metric("vllm:generation_tokens_total")
        hung_up(server)
        until(server, lambda _: server.metric("vllm:num_requests_running") == 0)
        # A machine that gives this process no time may let the whole answer pass before it hangs up.
        if server.metric("vllm:generation_tokens_total") - written < 8 * 1800:
            return
    pytest.fail("ten answers were all written to their ends, though their readers had left")


@pytest.mark.vllm
def test_the_engine_says_how_many_versions_it_holds(server: RunningServer):
    stream(server, "formal@1")
    stream(server, "formal@2")
    until(server, lambda shown: shown("adapters_resident") >= 2)


@pytest.mark.vllm
def test_what_is_shown_is_ours_and_has_nothing_unusual(server: RunningServer):
    packed = httpx.get(f"{server.url}/metrics", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip", "vLLM's own route answered"
    text = packed.text
    lint("".join(line for line in text.splitlines(keepends=True) if "mailwright_" in line))
    assert "_created" not in text
    [build] = [family for family in read_text(text) if family.name == "mailwright_build_info"]
    assert build.samples[0].labels["base_model"] == "tiny-llama"
