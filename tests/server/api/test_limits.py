"""What a request may ask for, and which of its fields is said to be at fault."""

import importlib
import json
import typing
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import RequestError
from server.api.limits import (
    CHAT,
    COMPLETIONS,
    FIELDS,
    MAX_ANSWERS,
    MAX_BIASES,
    MAX_DEPTH,
    MAX_MESSAGES,
    MESSAGES,
    RESPONSES,
    Limits,
    read_request,
)

LIMITS = Limits(context=100, takes_tools=False)


def check(path: str, fields: dict[str, Any], limits: Limits) -> None:
    read_request(path, json.dumps({"model": "formal", **fields}).encode(), limits)


def wrong(path: str, limits: Limits = LIMITS, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as refused:
        check(path, {"model": "formal", **fields}, limits)
    return refused.value


@pytest.mark.parametrize("field", ["chat_template", "top_k", "ignore_eos", "vllm_xargs", "cache_salt", "made_up"])
def test_fields_that_the_api_does_not_have_are_refused_unless_the_operator_allows_them(field: str):
    error = wrong(CHAT, **{field: 1})
    assert (error.status, error.code, error.param) == (400, "invalid_request", field)
    assert field in error.message
    check(CHAT, {"model": "formal", field: 1}, Limits(100, False, frozenset({field})))


CLIENT_TYPES = {
    CHAT: ("openai.types.chat.completion_create_params", "CompletionCreateParams"),
    COMPLETIONS: ("openai.types.completion_create_params", "CompletionCreateParams"),
    RESPONSES: ("openai.types.responses.response_create_params", "ResponseCreateParams"),
    MESSAGES: ("anthropic.types.message_create_params", "MessageCreateParams"),
}


def fields_of_the_client(path: str) -> dict[str, Any]:
    """Each field with its type, as the provider's own client declares it."""
    module, name = CLIENT_TYPES[path]
    kinds = typing.get_args(getattr(importlib.import_module(module), name))
    return {field: kind for each in kinds for field, kind in typing.get_type_hints(each).items()}


@pytest.mark.parametrize("path", CLIENT_TYPES)
def test_every_field_that_the_clients_know_is_let_through(path: str):
    assert fields_of_the_client(path).keys() <= FIELDS[path] | {"betas"}


INTEGER_FIELDS = [
    *(
        (path, field)
        for path in CLIENT_TYPES
        for field, kind in fields_of_the_client(path).items()
        if kind in (int, int | None)
    ),
    (MESSAGES, "top_k"),
]


@pytest.mark.parametrize("value", ["1000", 9.0, True, False], ids=json.dumps)
@pytest.mark.parametrize(("path", "field"), INTEGER_FIELDS)
def test_what_the_api_has_as_an_integer_is_taken_as_nothing_else(path: str, field: str, value: Any):
    error = wrong(path, **{field: value})
    assert (error.status, error.code, error.param) == (400, "invalid_request", field)
    assert error.message == f"{field} is {json.dumps(value)}, which is not an integer"


def test_the_fields_that_the_api_has_as_integers_are_found():
    assert {(CHAT, "n"), (COMPLETIONS, "best_of"), (COMPLETIONS, "logprobs")} <= set(INTEGER_FIELDS)
    assert {(RESPONSES, "max_output_tokens"), (MESSAGES, "max_tokens"), (CHAT, "top_logprobs")} <= set(INTEGER_FIELDS)
    assert (CHAT, "logprobs") not in INTEGER_FIELDS


@pytest.mark.parametrize(("path", "field"), INTEGER_FIELDS)
def test_an_integer_or_null_passes_where_the_api_has_an_integer(path: str, field: str):
    for value in (1, None):
        check(path, {"model": "formal", field: value}, LIMITS)


def test_a_value_that_is_no_integer_is_quoted_in_part():
    assert len(wrong(CHAT, n="1" * 5000).message) < 150


@pytest.mark.parametrize(
    ("path", "fields", "param", "code"),
    [
        (CHAT, {"max_tokens": 101}, "max_tokens", "context_length_exceeded"),
        (CHAT, {"max_completion_tokens": 101}, "max_completion_tokens", "context_length_exceeded"),
        (RESPONSES, {"max_output_tokens": 101}, "max_output_tokens", "context_length_exceeded"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 3300}]}, "messages", "context_length_exceeded"),
        (COMPLETIONS, {"prompt": ["x" * 1700, "x" * 1700]}, "prompt", "context_length_exceeded"),
        (RESPONSES, {"instructions": "x" * 3300}, "instructions", "context_length_exceeded"),
        (CHAT, {"messages": [{"role": "narrator", "content": "x"}]}, "messages", "invalid_request"),
        (CHAT, {"messages": [{"role": "user"}] * (MAX_MESSAGES + 1)}, "messages", "invalid_request"),
        (CHAT, {"messages": [{"content": "x"}]}, "messages", "invalid_request"),
        (RESPONSES, {"input": [{"role": "narrator", "content": "x"}]}, "input", "invalid_request"),
        (RESPONSES, {"input": [{"type": "message", "role": None, "content": "x"}]}, "input", "invalid_request"),
        (RESPONSES, {"input": [{"role": "user"}] * (MAX_MESSAGES + 1)}, "input", "invalid_request"),
        (CHAT, {"n": MAX_ANSWERS + 1}, "n", "invalid_request"),
        (COMPLETIONS, {"n": 3, "prompt": ["a", "b", "c"]}, "prompt", "invalid_request"),
        (COMPLETIONS, {"prompt": [[1]] * (MAX_ANSWERS + 1)}, "prompt", "invalid_request"),
        (COMPLETIONS, {"best_of": 2}, "best_of", "invalid_request"),
        (CHAT, {"logit_bias": dict.fromkeys(map(str, range(MAX_BIASES + 1)), 1)}, "logit_bias", "invalid_request"),
        (CHAT, {"stop": ["x"] * 17}, "stop", "invalid_request"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools", "invalid_request"),
        (CHAT, {"functions": [{}]}, "functions", "invalid_request"),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities", "invalid_request"),
        (RESPONSES, {"background": True}, "background", "invalid_request"),
        (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id", "invalid_request"),
    ],
)
def test_each_bound_names_the_field_at_fault(path: str, fields: dict[str, Any], param: str, code: str):
    error = wrong(path, **fields)
    assert (error.param, error.code, bool(error.hint)) == (param, code, True)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"logprobs": True, "top_logprobs": 2, "temperature": 0.5, "top_p": 1, "seed": -1}),
        (CHAT, {"max_tokens": 100, "n": MAX_ANSWERS, "stop": ["x"] * 16, "store": True, "metadata": {"a": "b"}}),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 3000}], "tools": [], "modalities": ["text"]}),
        (COMPLETIONS, {"prompt": list(range(99)), "best_of": 1, "echo": True}),
        (RESPONSES, {"input": "Hello", "background": False, "store": True}),
        (RESPONSES, {"input": [{"role": role, "content": "x"} for role in ("developer", "user", "assistant")]}),
        (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}),
        (MESSAGES, {"max_tokens": 10, "system": "Be brief.", "temperature": 0}),
    ],
)
def test_what_the_api_allows_within_bounds_passes(path: str, fields: dict[str, Any]):
    check(path, {"model": "formal", **fields}, LIMITS)


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (CHAT, "n", "Dear Ada"),
        (CHAT, "seed", ["Dear Ada"]),
        (MESSAGES, "max_tokens", {"Dear Ada": 1}),
        (CHAT, "messages", [{"role": "Dear Ada"}]),
        (RESPONSES, "input", [{"role": "Dear Ada"}]),
    ],
)
def test_an_error_quotes_no_text_that_may_be_mail(path: str, field: str, value: Any):
    error = wrong(path, **{field: value})
    assert "Ada" not in f"{error.message} {error.hint}"


def test_tools_pass_where_the_template_has_a_place_for_them():
    check(CHAT, {"tools": [{"type": "function"}]}, Limits(100, takes_tools=True))


def schema(inner: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "email", "schema": inner}}


EMAIL = {
    "type": "object",
    "properties": {"subject": {"type": "string", "maxLength": 60}, "body": {"type": "string", "maxLength": 2000}},
    "required": ["subject", "body"],
}


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "object", "properties": {f"field{number}": {"type": "string"} for number in range(1000)}},
        {"anyOf": [{"type": "string", "maxLength": number} for number in range(65)]},
        {"anyOf": [{"oneOf": [{"type": "string", "maxLength": number} for number in range(9)]}] * 8},
        {"type": "string", "pattern": "((a|b|c|d){1,100}){1,100}x"},
        {"type": "string", "pattern": "(a{50}){50}"},
        {"type": "string", "pattern": "a{1000000000}"},
        {"type": "string", "pattern": "a{0,99999999999}"},
        {"type": "string", "pattern": f"a{{{'9' * 5000}}}"},
        {"type": "string", "pattern": f"a{{{'0' * 20}1001}}"},
        {"type": "string", "pattern": "(a{1, 100}){ 1 ,\t100 }"},
        {"type": "string", "pattern": "a{1001,}"},
        {"type": "object", "patternProperties": {"^(a{1,99}){1,99}$": {}}},
    ],
)
def test_schemas_that_would_take_minutes_to_compile_are_refused(inner: Any):
    assert wrong(CHAT, response_format=schema(inner)).param == "response_format"


def test_the_schema_of_an_email_passes():
    check(CHAT, {"response_format": schema(EMAIL)}, LIMITS)
    check(CHAT, {"response_format": schema({"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,9}$"})}, LIMITS)
    check(CHAT, {"response_format": schema({"type": "string", "pattern": "^a{000000000002}b{1,}c{ 3, 30 }$"})}, LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": "base", "temperature": NaN}',
        b'{"model": "base", "temperature": -Infinity}',
        b'{"model": "base", "temperature": 1e999}',
        b'{"model": "base", "seed": ' + b"9" * 5000 + b"}",
        b'{"model": "base", "seed": ' + b"9" * 400 + b"}",
        b'{"model": "base", "seed": 9223372036854775808}',
        b'{"model": "base", "prompt": [' + b"1," * 20_000 + b"1]}",
        b'{"model": "base", "prompt": [' + b"[]," * 330_000 + b"[]]}",
        b'{"model": "base", "prompt": [' + (b"[" * 30 + b"]" * 30) * 15_000 + b"]}",
        b'{"model": "base", "user": "\\ud800"}',
        b'{"model": "base", "\\udfff": 1}',
        b'{"model": "base", "messages": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
        b"{}",
        b'{"model": 1}',
        b'{"model": ""}',
        b'{"model": null}',
        b'{"model": ["base"]}',
    ],
)
def test_a_body_that_nothing_could_take_is_400(body: bytes):
    with pytest.raises(RequestError) as refused:
        read_request(CHAT, body, LIMITS)
    assert refused.value.status == 400


def test_of_duplicate_keys_the_last_counts_for_everybody():
    assert read_request(CHAT, b'{"model": "base", "model": "formal"}', LIMITS) == {"model": "formal"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS[CHAT])), VALUES, max_size=8))
def test_whatever_its_fields_hold_a_request_is_checked_or_refused(fields: dict[str, Any]):
    body = json.dumps({**fields, "model": "formal"}).encode()
    with suppress(RequestError):
        read_request(CHAT, body, LIMITS)


def test_single_tokens_cannot_be_weighed_while_tokens_are_guessed():
    guessing = Limits(100, takes_tools=False, speculates=True)
    error = wrong(CHAT, guessing, logit_bias={"5": 1})
    assert (error.status, error.param) == (400, "logit_bias")
    assert "without --speculate" in error.hint
    for limits, field in ((guessing, {"logit_bias": {}}), (LIMITS, {"logit_bias": {"5": 1}})):
        check(CHAT, {"model": "formal", **field}, limits)
