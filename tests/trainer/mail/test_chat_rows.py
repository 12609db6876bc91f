import json
from typing import Any

import pytest

from trainer.data.examples import row_of
from trainer.mail.chat_rows import chat_examples, private
from trainer.mail.message import UnreadableMail
from trainer.text.personal_data import Privacy

USER, ANSWER = {"role": "user", "content": "Thank Ada."}, {"role": "assistant", "content": "Dear Ada,\n\nThank you."}
SHORTER = [{"role": "user", "content": "Shorter."}, {"role": "assistant", "content": "Ada, thanks."}]


def rows(given: dict[str, Any]) -> list[dict[str, Any]]:
    found = chat_examples(given)
    assert isinstance(found, list)
    return [row_of(example) for example in found]


def row(given: dict[str, Any]) -> dict[str, Any]:
    (only,) = rows(given)
    return only


def test_openais_rows_become_a_trainers_rows():
    assert row({"messages": [USER, ANSWER]}) == {"task": USER["content"], "email": ANSWER["content"]}
    developer = {"role": "developer", "content": "Be kind.", "name": "x"}
    given = {"messages": [developer, USER, {**ANSWER, "weight": 1}]}
    assert row(given) == {"prompt": [{"role": "system", "content": "Be kind."}, USER], "completion": [ANSWER]}


def test_every_email_of_a_conversation_becomes_a_row():
    turn = {"task": USER["content"], "email": ANSWER["content"]}
    revision = {"task": "Shorter.", "email": "Ada, thanks.", "previous": [turn]}
    assert rows({"messages": [USER, ANSWER, *SHORTER]}) == [turn, revision]
    assert row(revision) == revision


def test_facts_that_are_none_are_left_out():
    given = {"task": "Thank Ada.", "email": "Dear Ada, thanks.", "facts": ["Ada", ["a", "b"], 7, [], [""]]}
    assert row(given)["facts"] == [["Ada"], ["a", "b"]]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("x", "must be a list"),
        ([{"role": "tool", "content": "x"}], "role of system, user, assistant"),
        ([USER, {"role": "assistant", "content": None}], "must be a text"),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], "must be a text"),
        ([ANSWER], "must follow a user message"),
        ([USER], "no assistant message"),
        ([], "at least one user and one assistant message"),
        ([7], "role of"),
    ],
)
def test_a_row_that_cannot_be_learned_from_says_why(messages: Any, reason: str):
    found = chat_examples({"messages": messages})
    assert isinstance(found, UnreadableMail)
    assert reason in str(found)


def test_what_no_file_can_hold_is_left_out():
    given = {"task": "Thank \ud800 Ada.\0", "email": "Dear Ada.", "facts": ["Ada\ud800"]}
    assert json.dumps(row(given), ensure_ascii=False).encode().count(b"\0") == 0


def test_texts_and_messages_do_not_mix():
    assert isinstance(chat_examples({"prompt": "x", "completion": [ANSWER]}), UnreadableMail)


def test_personal_data_is_replaced_throughout_a_conversation():
    given = {"task": "Say a@b.example.", "email": "It is a@b.example.", "facts": ["a@b.example"]}
    (example,) = chat_examples(given)
    assert row_of(private(example, Privacy("mask"))) == {
        "task": "Say [EMAIL].",
        "email": "It is [EMAIL].",
        "facts": [["[EMAIL]"]],
    }
