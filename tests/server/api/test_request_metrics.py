"""What is measured of one request, on a clock that the test turns."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.types import Message

from server.api.request_metrics import Observation, has_text, tokens_used
from server.metrics import Metrics

START = {"type": "http.response.start", "status": 200, "headers": []}
ROLE = {"role": "assistant", "content": ""}


def compact(content: object) -> bytes:
    """JSON as vLLM writes it."""
    return json.dumps(content, separators=(",", ":")).encode()


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 40, "total_tokens": 40 + tokens, "completion_tokens": tokens}


def event(tokens: int, **choice: object) -> bytes:
    """One event of a stream; without `choice` the last one, which has the usage only."""
    choices = [{"index": 0, **choice}] if choice else []
    return b"data: " + compact({"id": "chatcmpl-1", "choices": choices, "usage": usage(tokens)}) + b"\n\n"


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


DONE = part(b"data: [DONE]\n\n")
END = part(b"", more=False)


class Play:
    """Sends what vLLM would send, each at its second, and remembers the series."""

    def __init__(self, *scene: tuple[float, Message], cold: bool = False, gone_at_end: bool = False) -> None:
        self._registry = CollectorRegistry()
        self._now = 0.0
        self.left: list[Message] = []
        asyncio.run(self._play(scene, cold, gone_at_end))

    async def _play(self, scene: tuple[tuple[float, Message], ...], cold: bool, gone_at_end: bool) -> None:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.left.append(message)

        with Observation(Metrics(self._registry, "tiny-llama"), receive, send, lambda: self._now) as seen:
            seen.set_adapter("formal")
            seen.cold = cold
            for self._now, message in scene:
                if message is START:
                    seen.mark_submitted()
                await seen.send(message)
            if gone_at_end:
                await seen.receive()

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"mailwright_{name}", {"adapter": "formal", **labels})


STREAM = (
    (0.25, START),
    (0.5, part(event(0, delta=ROLE))),
    (1.0, part(event(1, delta={"content": "Dear"}))),
    (1.5, part(b": keep-alive\n\n")),
    (2.0, part(event(2, delta={"content": " all"}))),
    (3.0, part(event(3, delta={"content": ""}, finish_reason="stop"))),
    (3.0, part(event(3))),
    (3.5, DONE),
    (3.5, END),
)


def test_a_stream_is_timed_from_its_arrival_to_its_tokens_and_its_end():
    shown = Play(*STREAM)
    assert shown("queue_wait_seconds_sum") == 0.25
    assert shown("time_to_first_token_seconds_sum", load="warm") == 1.0
    assert shown("time_to_first_token_seconds_sum", load="cold") is None
    assert shown("time_per_output_token_seconds_sum") == (3.0 - 1.0) / 2
    assert shown("end_to_end_seconds_sum") == 3.5
    assert shown("prompt_tokens_total") == 40
    assert shown("completion_tokens_total") == 3
    assert shown("requests_total", outcome="ok") == 1
    assert shown.left == [message for _, message in STREAM]


def test_a_request_that_waited_for_a_load_is_cold():
    shown = Play(*STREAM, cold=True)
    assert shown("time_to_first_token_seconds_sum", load="cold") == 1.0
    assert shown("time_to_first_token_seconds_sum", load="warm") is None


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": "D"}},
        {"delta": {"role": "assistant", "content": "D"}},
        {"delta": {"reasoning": "hm"}},
        {"delta": {"tool_calls": [{"index": 0}]}},
        {"text": "D"},
    ],
)
def test_the_first_token_is_the_first_text(choice: dict[str, object]):
    assert has_text(event(1, **choice))


@pytest.mark.parametrize("choice", [{"delta": ROLE}, {"delta": {}}, {"text": ""}, {"delta": {"content": None}}, {}])
def test_an_event_without_text_is_no_token(choice: dict[str, object]):
    assert not has_text(event(0, **choice))


@pytest.mark.parametrize("body", [b'data: {"', b'data: {"choices":null}\n\n', b'data: {"error": {}}\n\n'])
def test_an_event_of_another_shape_is_no_token(body: bytes):
    assert not has_text(body)


def test_a_whole_answer_has_no_first_token_but_its_usage():
    answer = {"choices": [{"message": {"content": "Dear all"}}], "usage": usage(7), "prompt_logprobs": None}
    shown = Play((0.5, START), (2.0, part(compact(answer), more=False)))
    assert shown("end_to_end_seconds_sum") == 2.0
    assert (shown("prompt_tokens_total"), shown("completion_tokens_total")) == (40, 7)
    for name in ("time_to_first_token_seconds_count", "time_per_output_token_seconds_count"):
        assert shown(name, **({"load": "warm"} if "first" in name else {})) is None


def test_a_stream_of_one_token_has_no_time_between_tokens():
    shown = Play((0, START), (1, part(event(1, text="D"))), (1, part(event(1))), (1, DONE), (1, END))
    assert shown("time_to_first_token_seconds_sum", load="warm") == 1
    assert shown("time_per_output_token_seconds_count") is None


@pytest.mark.parametrize(
    ("ending", "gone", "outcome"),
    [
        ((), True, "client_gone"),
        ((), False, "server_error"),
        (((2.5, part(b'data: {"error": {}}\n\n', more=False)),), False, "server_error"),
        (((2.5, part(b'data: {"error": {}}\n\n', more=False)),), True, "server_error"),
    ],
)
def test_a_stream_that_was_cut_counts_the_tokens_that_were_written(ending: Any, gone: bool, outcome: str):
    shown = Play(*STREAM[:5], *ending, gone_at_end=gone)
    assert shown("requests_total", outcome=outcome) == 1
    assert shown("completion_tokens_total") == 2
    assert shown("end_to_end_seconds_count") is None
    assert shown("time_per_output_token_seconds_count") is None


@pytest.mark.parametrize("scene", [STREAM, STREAM[:-1]])
def test_a_client_that_hangs_up_after_the_last_word_has_its_answer(scene: Any):
    assert Play(*scene, gone_at_end=True)("requests_total", outcome="ok") == 1


@given(st.text(), st.integers(0, 10**6), st.booleans())
def test_usage_is_found_behind_any_text(text: str, tokens: int, streamed: bool):
    text += '"usage":{"prompt_tokens":1,"completion_tokens":2}'
    answer = compact({"choices": [{"text": text}], "usage": usage(tokens)})
    assert tokens_used(b"data: " + answer + b"\n\n" if streamed else answer) == (40, tokens)


@pytest.mark.parametrize(
    "message", [b"", b"{}", b'{"usage":null}', b'{"usage":{', b'{"usage":{}}', b'{"usage":{"prompt_tokens":null}}']
)
def test_no_usage_is_no_tokens(message: bytes):
    assert tokens_used(message) == (0, 0)
