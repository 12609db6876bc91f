"""Error bodies: ours, vLLM's, and the one event that ends a broken stream."""

import asyncio
import json
from typing import Any

import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.types import Message

from adapters.errors import AdapterNotFound, AdapterUnusable, MailwrightError, Overloaded, Unauthorised
from server.api.errors import ErrorShaper, body_of, invalid_fields, rewritten


def error_in(body: bytes) -> dict[str, Any]:
    [(key, error)] = json.loads(body).items()
    assert key == "error"
    assert sorted(error) == ["code", "message", "param", "type"]
    return error


def shaped(*messages: Message, failure: MailwrightError | None = None) -> list[Message]:
    """What leaves when an application sends `messages` and then fails with `failure`."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def play() -> None:
        shaper = ErrorShaper(send, [])
        for message in messages:
            await shaper(message)
        if failure:
            await shaper.fail(failure)

    asyncio.run(play())
    return sent


def start(status: int, kind: bytes = b"application/json") -> Message:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", kind), (b"content-length", b"9")],
    }


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (AdapterNotFound("no 'frmal'", "did you mean formal?"), "invalid_request_error", "model_not_found", "model"),
        (AdapterUnusable("formal@1", ["rank", "NaN"]), "invalid_request_error", "adapter_unusable", "model"),
        (Unauthorised("no key"), "authentication_error", "invalid_api_key", None),
        (Overloaded("busy", 3), "server_error", "overloaded", None),
        (MailwrightError("broken"), "server_error", "internal_error", None),
    ],
)
def test_our_errors_say_what_and_what_to_do(error: MailwrightError, kind: str, code: str, param: str | None):
    found = error_in(body_of(error))
    assert (found["type"], found["code"], found["param"]) == (kind, code, param)
    assert error.message in found["message"]
    assert error.hint in found["message"]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (
            400,
            {"error": {"message": "m", "type": "BadRequestError", "param": "input_tokens", "code": 400}},
            "context_length_exceeded",
        ),
        (400, {"error": {"message": "m", "type": "BadRequestError", "param": None, "code": 400}}, "invalid_request"),
        (401, {"error": "Unauthorized"}, "invalid_api_key"),
        (404, {"error": {"message": "m", "type": "NotFoundError", "param": "model", "code": 404}}, "model_not_found"),
        (405, {"detail": "Method Not Allowed"}, "method_not_allowed"),
        (418, ["tea"], "invalid_request"),
        (422, {"detail": [{"loc": ["body"]}]}, "invalid_request"),
        (500, {"error": {"message": "m", "type": "InternalServerError", "param": None, "code": 500}}, "internal_error"),
        (503, {}, "overloaded"),
    ],
)
def test_vllms_errors_get_a_string_code(status: int, body: object, code: str):
    found = error_in(rewritten(status, json.dumps(body).encode()))
    assert found["code"] == code
    assert found["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert found["message"]


@pytest.mark.parametrize("body", [b"", b"Internal Server Error", b"\xff\xfe"])
def test_an_error_that_is_not_json_becomes_json(body: bytes):
    assert error_in(rewritten(500, body))["message"]


def test_a_code_that_is_a_string_already_stays():
    body = body_of(AdapterNotFound("no 'frmal'"))
    assert error_in(rewritten(404, body))["code"] == "model_not_found"


def test_an_error_in_two_parts_is_rewritten_with_its_length():
    head, body = shaped(start(400), part(b'{"error": {"mess', more=True), part(b'age": "m", "code": 400}}'))
    assert error_in(body["body"])["message"] == "m"
    assert dict(head["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert len(head["headers"]) == 2


def test_an_answer_leaves_as_it_is():
    answer = [start(200), part(b'{"error"', more=True), part(b": 1}")]
    assert shaped(*answer) == answer


def test_overload_says_when_to_come_back_and_a_missing_key_what_is_wanted():
    assert dict(shaped(failure=Overloaded("busy", 3))[0]["headers"])[b"retry-after"] == b"3"
    assert dict(shaped(failure=Unauthorised("no key"))[0]["headers"])[b"www-authenticate"] == b"Bearer"


def test_a_stream_that_breaks_ends_with_one_error_event():
    begun = [start(200, b"text/event-stream; charset=utf-8"), part(b'data: {"choices": []}\n\n', more=True)]
    *before, last = shaped(*begun, failure=MailwrightError("broken"))
    assert before == begun
    assert not last["more_body"]
    assert last["body"].endswith(b"\n\n")
    assert error_in(last["body"].removeprefix(b"data: "))["code"] == "internal_error"


def test_vllms_own_error_event_is_rewritten_and_nothing_follows_it():
    broken = part(b'data: {"error": {"message": "m", "type": "x", "param": null, "code": 500}}\n\n', more=True)
    _, last = shaped(start(200, b"text/event-stream"), broken, part(b"data: [DONE]\n\n", more=True), part(b""))
    assert not last["more_body"]
    assert error_in(last["body"].removeprefix(b"data: "))["code"] == "internal_error"


def test_nothing_is_said_twice():
    assert len(shaped(start(200), part(b"{}"), failure=MailwrightError("late"))) == 2


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        ("it is wrong (parameter=seed, value=canary (x)\n)", "seed", "it is wrong (parameter=seed)"),
        ("the template\nhas no such thing", None, "the template\nhas no such thing"),
    ],
)
def test_the_values_that_vllm_repeats_are_left_out(message: str, param: str | None, said: str):
    error = error_in(rewritten(400, json.dumps({"error": {"message": message, "param": param, "code": 400}}).encode()))
    assert (error["message"], error["param"]) == (said, param)


class Body(BaseModel):
    n: int
    stop: list[str]


@pytest.mark.parametrize(
    ("body", "said", "param"),
    [
        ({"n": "canary", "stop": [1]}, "n: Input should be a valid integer", "n"),
        ({"n": 1, "stop": [1]}, "stop.0: Input should be a valid string", "stop.0"),
        ({"n": 1, "stop": [1, 2, 3, 4, 5, 6]}, "stop.4: Input should be a valid string", "stop.0"),
        ({"n": 1}, "stop: Field required", "stop"),
    ],
)
def test_a_wrong_field_is_named_without_its_value(body: dict[str, Any], said: str, param: str):
    async def answered() -> bytes:
        try:
            Body.model_validate(body)
        except ValidationError as exc:
            faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in exc.errors()]
            return (await invalid_fields(Request({"type": "http"}), RequestValidationError(faults))).body
        return b""

    error = error_in(asyncio.run(answered()))
    assert (said in error["message"], error["param"], error["code"]) == (True, param, "invalid_request")
    assert "canary" not in error["message"]
    assert "stop.5" not in error["message"]


def test_a_503_of_vllms_own_says_when_to_come_back_and_ours_keeps_its_time():
    [begun, _] = shaped(start(503), part(b'{"error": {"message": "busy", "code": 503}}'))
    assert dict(begun["headers"])[b"retry-after"] == b"1"
    theirs = start(503)
    theirs["headers"].append((b"retry-after", b"7"))
    [begun, _] = shaped(theirs, part(b"{}"))
    assert [value for name, value in begun["headers"] if name == b"retry-after"] == [b"7"]
