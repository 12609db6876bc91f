"""What a request for an answer may ask for: the fields of the OpenAI API, within bounds, checked before vLLM sees it.

vLLM takes many fields of its own, some of which run templates or load data, and bounds little: `n` up to 16,384,
schemas that take minutes to compile. All other checks of types and values are vLLM's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adapters.errors import ContextTooLong, RequestError
from server.drafts.asked import FIELD as DRAFTS
from server.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The fields of OpenAI's API, and of Anthropic's for MESSAGES, as their own clients (openai 3.54, anthropic 2.12) have
# them; `top_p`, `top_k` and `temperature` of MESSAGES are in the API though not in that client's types.
FIELDS = {
    CHAT: _words(
        "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages"
        " metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key"
        " prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed"
        " service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity"
        " web_search_options"
    ),
    COMPLETIONS: _words(
        "best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed stop stream"
        " stream_options suffix temperature top_p user"
    ),
    RESPONSES: _words(
        "access_programs background background_options context_management conversation image include input instructions"
        " max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt"
        " prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store"
        " stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user"
    ),
    MESSAGES: _words(
        "cache_control container diagnostics inference_geo max_tokens messages metadata model output_config"
        " service_tier speed stop_sequences stream system temperature thinking tool_choice tools top_k top_p"
        " user_profile_id workspace_id"
    ),
}

# Fields of the API that would be ignored here though the answer depends on them: answers are not kept here.
UNSUPPORTED = {
    CHAT: ("audio", "functions", "function_call", "web_search_options"),
    RESPONSES: ("background", "conversation", "image", "previous_response_id", "prompt"),
    MESSAGES: ("container",),
}

# Integers on every path; COMPLETIONS has `logprobs` too, which is a boolean for CHAT.
INTEGERS = _words("best_of max_completion_tokens max_output_tokens max_tokens max_tool_calls n seed top_k top_logprobs")
JSON_KINDS: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}
TOKENS_ASKED = ("max_tokens", "max_completion_tokens", "max_output_tokens")
TEXTS = frozenset(["messages", "prompt", "input", "instructions", "system"])
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MESSAGES = 256
MAX_ANSWERS = 8  # `n`, times the prompts of a completion
MAX_STOPS = 16
MAX_BIASES = 300  # OpenAI's own limit
MAX_DEPTH = 32
# Texts, numbers, lists and objects: a look at ten times as many held up every stream for a second.
MAX_VALUES = 20_000
# More characters for each token of the context cannot fit; that shows without tokenising.
CHARACTERS_PER_TOKEN = 32
MAX_SCHEMA_BYTES = 16_384
# Of all ALTERNATIVES of a schema together: xgrammar took 1.3 s for 100 and over 30 s for 256.
MAX_ALTERNATIVES = 64
# Product of the bounds `{m,n}` in one pattern of a schema: xgrammar took 19 s for 10,000.
MAX_REPEATS = 1000
INT64 = 2**63
BEYOND = "the request has a number beyond 64 bits"
SURROGATE = re.compile("[\ud800-\udfff]")
ALTERNATIVES = ("anyOf", "oneOf", "allOf")
PATTERNS = ("pattern", "patternProperties")


@dataclass(frozen=True)
class Limits:
    """`context`: prompt and answer together, in tokens. `more_fields`: of vLLM's own, which the operator allows.

    `speculates`: tokens are guessed ahead, and vLLM cannot weigh single ones.
    """

    context: int
    takes_tools: bool
    more_fields: frozenset[str] = frozenset()
    speculates: bool = False


def read_request(path: str, body: bytes, limits: Limits) -> dict[str, Any]:
    """The request to `path` as an object that names a model and asks for nothing beyond `limits`.

    Raises:
        RequestError: with the field at fault if there is one.
    """
    request = _parse(body)
    _check_fields(path, request, limits)
    _check_integers(request, INTEGERS | {"logprobs"} if path == COMPLETIONS else INTEGERS)
    _check_texts(request, limits)
    _check_counts(request, limits)
    if request.get("tools") and not limits.takes_tools:
        raise RequestError(
            "this base model's chat template has no place for tools, so that the model would never see them",
            "leave tools out, or ask for a JSON answer with response_format",
            "tools",
        )
    for field in ("response_format", "text", "tools", "output_config"):
        if request.get(field):
            _check_schema(request[field], field)
    return request


def _parse(body: bytes) -> dict[str, Any]:
    # These stand between and around values; a text has some too, but fewer than this if it is to fit any context.
    commas, brackets = body.count(b","), body.count(b"[") + body.count(b"{")
    if commas + brackets > 5 * MAX_VALUES:
        raise _too_many()
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        request = JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        raise RequestError("the request's body is not valid JSON") from exc
    if not isinstance(request, dict):
        raise RequestError("the request's body must be a JSON object")
    # Nearly every request is simple enough that the loop could find nothing, and takes an eighth of the gate's time.
    if not text.isascii() or "\\u" in text or brackets > MAX_DEPTH or commas + brackets >= MAX_VALUES:
        for value in _every_value(request):
            if isinstance(value, str) and SURROGATE.search(value):
                raise RequestError("a text of the request is invalid Unicode: a lone surrogate (\\ud800 to \\udfff)")
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise RequestError(
            "the request names no model", 'give "model": the base model, an adapter, or adapter@version', "model"
        )
    return request


def _check_fields(path: str, request: dict[str, Any], limits: Limits) -> None:
    for field in request.keys() - FIELDS[path] - limits.more_fields - {DRAFTS}:
        raise RequestError(
            f"{field[:80]!r} is not a field of {path}",
            "leave it out; a field of vLLM's own has to be allowed by the operator (server --allow-fields)",
            field[:80],
        )
    for field in UNSUPPORTED.get(path, ()):
        if request.get(field):
            raise RequestError(f"this server does not support {field!r}", "leave it out", field)
    if limits.speculates and request.get("logit_bias"):
        raise RequestError(
            "this server guesses tokens ahead, and cannot weigh single ones at the same time",
            "leave logit_bias out, or have the operator start it without --speculate",
            "logit_bias",
        )
    modalities = request.get("modalities")
    if modalities and modalities != ["text"]:
        raise RequestError("this server writes text only", 'leave "modalities" out', "modalities")


def _check_integers(request: dict[str, Any], fields: frozenset[str]) -> None:
    """vLLM takes "1000", 9.0 and true for integers too, past the bounds that are compared with integers here."""
    for field in fields & request.keys():
        value = request[field]
        # A boolean is an int of Python's.
        if value is not None and type(value) is not int:
            number = isinstance(value, bool | float) or str(value).isdigit()
            # Other text in the wrong place may be mail.
            shown = json.dumps(value)[:80] if number else JSON_KINDS[type(value)]
            raise RequestError(f"{field} is {shown}, which is not an integer", "give a whole number", field)


def _check_texts(request: dict[str, Any], limits: Limits) -> None:
    for field in ("messages", "input"):
        messages = request[field] if isinstance(request.get(field), list) else []
        if len(messages) > MAX_MESSAGES:
            raise RequestError(
                f"the request has {len(messages)} messages", f"send at most {MAX_MESSAGES}, the latest", field
            )
        for message in messages:
            # Other items of `input`, such as the result of a tool, have no role.
            named = isinstance(message, dict) and (field == "messages" or "role" in message)
            # A chat template writes any role into the prompt.
            if named and message.get("role") not in ROLES:
                raise RequestError("a message has a role that is not in the API", f"use {', '.join(ROLES)}", field)
    for field in TEXTS & request.keys():
        value = request[field]
        characters = sum(len(part) for part in _every_value(value) if isinstance(part, str))
        if characters > limits.context * CHARACTERS_PER_TOKEN:
            raise ContextTooLong(
                f"{field} has {characters} characters, which cannot fit into {limits.context} tokens",
                "send a shorter conversation",
                field,
            )


def _check_counts(request: dict[str, Any], limits: Limits) -> None:
    for field in TOKENS_ASKED:
        asked = request.get(field) or 0
        if asked > limits.context:
            raise ContextTooLong(
                f"{field} is {asked}, and this model has a context of {limits.context} tokens, prompt included",
                "ask for fewer",
                field,
            )
    prompt = request.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)
    prompts = len(prompt) if several else 1  # type: ignore[arg-type]  # `several` says that it is a list
    for field in ("n", "best_of"):
        answers = (request.get(field) or 1) * prompts
        if answers > MAX_ANSWERS:
            where = field if prompts == 1 else "prompt"
            raise RequestError(f"the request asks for {answers} answers", f"ask for at most {MAX_ANSWERS}", where)
    if request.get("best_of") is not None and request["best_of"] != (request.get("n") or 1):
        raise RequestError("this server does not support 'best_of'", "leave it out", "best_of")
    for field, most in {"stop": MAX_STOPS, "stop_sequences": MAX_STOPS, "logit_bias": MAX_BIASES}.items():
        given = request.get(field)
        if isinstance(given, list | dict) and len(given) > most:
            raise RequestError(f"{field} has {len(given)} entries", f"give at most {most}", field)


def _check_schema(schema: Any, field: str) -> None:
    """Bound what a grammar compiled from `schema` costs; vLLM compiles it in the engine."""
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA_BYTES:
        raise RequestError(f"{field} is {size} bytes long", f"send at most {MAX_SCHEMA_BYTES}", field)
    items = list(_every_item(schema))
    alternatives = sum(len(value) for key, value in items if key in ALTERNATIVES and isinstance(value, list))
    if alternatives > MAX_ALTERNATIVES:
        raise RequestError(f"{field} has {alternatives} alternatives", f"use at most {MAX_ALTERNATIVES}", field)
    for key, value in items:
        patterns = list(value) if isinstance(value, dict) else [value]
        if key in PATTERNS and any(_repeats(str(pattern)) > MAX_REPEATS for pattern in patterns):
            raise RequestError(f"a pattern in {field} repeats too often", "use maxLength instead", field)


def _repeats(pattern: str) -> float:
    """How often its innermost part may be repeated by counts, if all of them were nested."""
    # xgrammar skips spaces in a count; a float takes any number of digits, a long one is infinite.
    counts = re.findall(r"\{(\d+),?(\d*)\}", "".join(pattern.split()))
    return math.prod(max(1.0, *(float(bound) for bound in bounds if bound)) for bounds in counts)


def _every_item(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object in `value`, with its value; `value` is not deep."""
    if isinstance(value, dict):
        yield from value.items()
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _every_item(part)


def _every_value(value: Any) -> Iterator[Any]:
    """Everything in `value`: keys, texts, numbers; without recursion.

    Raises:
        RequestError: there are more than MAX_VALUES, or they lie deeper than MAX_DEPTH.
    """
    left, seen = [(value, 0)], 0
    while left:
        seen += 1
        if seen > MAX_VALUES:
            raise _too_many()
        part, depth = left.pop()
        if isinstance(part, dict | list):
            if depth >= MAX_DEPTH:
                raise RequestError(f"the request is nested deeper than {MAX_DEPTH} levels")
            if isinstance(part, dict):
                yield from part
                part = part.values()
            left.extend((child, depth + 1) for child in part)
        else:
            yield part


def _too_many() -> RequestError:
    return RequestError(f"the request has more than {MAX_VALUES} values", "send a shorter conversation")


def _int64(digits: str) -> int:
    # More digits than the first need not be read to know.
    number = int(digits[:30])
    if abs(number) >= INT64:
        raise RequestError(BEYOND)
    return number


def _finite(text: str) -> float:
    number = float(text)
    # False for NaN and infinity too.
    if not abs(number) < INT64:
        raise RequestError(BEYOND)
    return number


JSON = json.JSONDecoder(parse_constant=_finite, parse_int=_int64, parse_float=_finite)
