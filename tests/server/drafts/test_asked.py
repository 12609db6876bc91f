"""How drafts are asked for, and what the task of a request is."""

from typing import Any

import pytest

from adapters.emails.prompts import Turn
from adapters.errors import RequestError
from server.drafts.asked import DEFAULT_DRAFTS, draft_request, take_drafts, task_of
from server.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES

USER = {"role": "user", "content": "Thank Ada."}


@pytest.mark.parametrize(
    ("asked", "count", "model"),
    [
        ({"model": "formal"}, 0, "formal"),
        ({"model": "formal:checked"}, DEFAULT_DRAFTS, "formal"),
        ({"model": "formal@2:checked"}, DEFAULT_DRAFTS, "formal@2"),
        ({"model": "formal:checked", "drafts": 3}, 3, "formal"),
        ({"model": "formal", "drafts": 16}, 16, "formal"),
        ({"model": "formal", "drafts": 0}, 0, "formal"),
        ({"model": "formal", "drafts": None}, 0, "formal"),
        ({"model": "formal:checked", "n": 1, "logprobs": False}, DEFAULT_DRAFTS, "formal"),
    ],
)
def test_drafts_are_asked_for_by_the_name_or_by_a_field(asked: dict[str, Any], count: int, model: str):
    assert take_drafts(asked) == count
    assert asked["model"] == model
    assert "drafts" not in asked


@pytest.mark.parametrize("count", [-1, 17, "3", 2.0, True, [2]])
def test_another_number_of_drafts_is_refused(count: object):
    with pytest.raises(RequestError, match="drafts is not a number from 1 to 16"):
        take_drafts({"model": "formal", "drafts": count})


@pytest.mark.parametrize(
    "field", [{"n": 2}, {"tools": [{}]}, {"response_format": {"type": "json_object"}}, {"logprobs": True}]
)
def test_what_is_no_email_is_refused(field: dict[str, Any]):
    with pytest.raises(RequestError, match="cannot be combined with checked drafts"):
        take_drafts({"model": "formal:checked", **field})
    assert take_drafts({"model": "formal", **field}) == 0


@pytest.mark.parametrize(
    ("path", "request_", "task"),
    [
        (CHAT, {"messages": [{"role": "system", "content": "Write."}, USER]}, ("Thank Ada.", ())),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Thank Ada."}]}]},
            ("Thank Ada.", ()),
        ),
        (
            CHAT,
            {"messages": [USER, {"role": "assistant", "content": "Dear Ada"}, {"role": "user", "content": "Shorter."}]},
            ("Shorter.", (("Thank Ada.", "Dear Ada"),)),
        ),
        (COMPLETIONS, {"prompt": "Thank Ada."}, ("Thank Ada.", ())),
        (RESPONSES, {"input": "Thank Ada."}, ("Thank Ada.", ())),
        (RESPONSES, {"input": [USER]}, ("Thank Ada.", ())),
        (MESSAGES, {"system": "Write.", "messages": [USER]}, ("Thank Ada.", ())),
        (CHAT, {"messages": []}, ("", ())),
        (CHAT, {"messages": ["Thank Ada."]}, ("", ())),
    ],
)
def test_the_task_is_the_last_message(path: str, request_: dict[str, Any], task: tuple[str, tuple[Turn, ...]]):
    found = task_of(path, request_)
    assert (found.task, found.previous) == task


def test_each_draft_has_a_seed_of_its_own_and_the_first_is_the_likeliest_answer():
    asked = {"model": "formal", "seed": 7}
    assert [draft_request(asked, number)["seed"] for number in range(3)] == [7, 8, 9]
    assert [draft_request(asked, number)["temperature"] for number in range(3)] == [0, 0.5, 0.5]
    assert draft_request(asked | {"temperature": 0.2}, 0)["temperature"] == 0.2
    assert "seed" not in draft_request({"model": "formal"}, 1)
