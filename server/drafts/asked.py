"""How a request asks for checked drafts: a model name that ends in `:checked`, or the field `drafts`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from adapters.emails.prompts import SYSTEM_ROLES, Turn
from adapters.emails.tasks import Task
from adapters.errors import RequestError
from server.paths import COMPLETIONS, RESPONSES

CHECKED = ":checked"
FIELD = "drafts"
DEFAULT_DRAFTS, MAX_DRAFTS = 8, 16
# Unless the request says otherwise. The first draft is the likeliest answer, the others differ and keep to the task.
FIRST_TEMPERATURE, TEMPERATURE = 0.0, 0.5
# What asks for several answers, for something other than an email, or for more than its text.
ANSWERS = ("n", "best_of")
REFUSED = (*ANSWERS, "tools", "response_format", "text", "logprobs", "top_logprobs", "echo", "suffix")


def take_drafts(request: dict[str, Any]) -> int:
    """How many drafts `request` asks for, 0 if it asks for a plain answer; takes that out of the request.

    Raises:
        RequestError: it asks for too many, or for drafts of something that is no email.
    """
    model, count = request["model"], request.pop(FIELD, None)
    checked = model.endswith(CHECKED)
    request["model"] = model.removesuffix(CHECKED)
    if count is None:
        count = DEFAULT_DRAFTS if checked else 0
    if type(count) is not int or not 0 <= count <= MAX_DRAFTS:
        raise RequestError(f"drafts is not a number from 1 to {MAX_DRAFTS}", f'give "drafts": {DEFAULT_DRAFTS}', FIELD)
    for field in REFUSED if count else ():
        if request.get(field) and (field not in ANSWERS or request[field] != 1):
            raise RequestError(f"{field} cannot be combined with checked drafts", "leave one of them out", field)
    return int(count)


def task_of(path: str, request: dict[str, Any]) -> Task:
    """The task of a request to `path`; empty where vLLM will refuse it."""
    if path == COMPLETIONS:
        return _task(_text(request.get("prompt")))
    turns = request.get("input" if path == RESPONSES else "messages")
    if isinstance(turns, str):
        return _task(turns)
    said = [turn for turn in turns or [] if isinstance(turn, dict) and turn.get("role") not in SYSTEM_ROLES]
    users = [turn for turn in said if turn.get("role") == "user"]
    pairs = [
        (_text(one.get("content")), _text(other.get("content")))
        for one, other in pairwise(said)
        if (one.get("role"), other.get("role")) == ("user", "assistant")
    ]
    return _task(_text(users[-1].get("content")) if users else "", tuple(pairs))


def draft_request(request: dict[str, Any], number: int) -> dict[str, Any]:
    """The request for draft `number`, from 0, to vLLM."""
    seed = {"seed": request["seed"] + number} if isinstance(request.get("seed"), int) else {}
    temperature = request.get("temperature")
    if temperature is None:
        temperature = TEMPERATURE if number else FIRST_TEMPERATURE
    return request | seed | {"temperature": temperature}


def _task(text: str, previous: tuple[Turn, ...] = ()) -> Task:
    """A task whose facts are not listed."""
    return Task("", text, (), previous)


def _text(content: Any) -> str:
    """The words of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts: Sequence[Any] = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
