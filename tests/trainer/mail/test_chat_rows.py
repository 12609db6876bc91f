import json
from typing import Any

import pytest

from trainer.mail.chat_rows import Conversation, conversation
from trainer.mail.message import UnreadableMail
from trainer.text.personal_data import Privacy

USER, ANSWER = {"role": "user", "content": "Thank Ada."}, {"role": "assistant", "content": "Dear Ada,\n\nThank you."}


def row(given: dict[str, Any]) -> dict[str, Any]:
    found = conversation(given)
    assert isinstance(found, Conversation)
    return found.row()


def test_openais_rows_become_a_trainers_rows():
    assert row({"messages": [USER, ANSWER]}) == {"task": USER["content"], "email": ANSWER["content"], "facts": []}
    developer = {"role": "developer", "content": "Be kind.", "name": "x"}
    given = {"messages": [developer, USER, {**ANSWER, "weight": 1}]}
    assert row(given) == {"messages": [{"role": "system", "content": "Be kind."}, USER, ANSWER]}


def test_facts_that_are_none_are_left_out():
    given = {"task": "Thank Ada.", "email": "Dear Ada, thanks.", "facts": ["Ada", ["a", "b"], 7, [], [""]]}
    assert row(given)["facts"] == [["Ada"], ["a", "b"]]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("x", "no list"),
        ([{"role": "tool", "content": "x"}], "role of system, user, assistant"),
        ([USER, {"role": "assistant", "content": None}], "no text"),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], "no text"),
        ([ANSWER], "follows no user message"),
        ([USER], "no assistant message"),
        ([], "no assistant message"),
        ([7], "role of"),
    ],
)
def test_a_row_that_cannot_be_learned_from_says_why(messages: Any, reason: str):
    found = conversation({"messages": messages})
    assert isinstance(found, UnreadableMail)
    assert reason in str(found)


def test_what_no_file_can_hold_is_left_out():
    given = {"task": "Thank \ud800 Ada.\0", "email": "Dear Ada.", "facts": ["Ada\ud800"]}
    assert json.dumps(row(given), ensure_ascii=False).encode().count(b"\0") == 0


def test_texts_and_messages_do_not_mix():
    assert isinstance(conversation({"prompt": "x", "completion": [ANSWER]}), UnreadableMail)


def test_personal_data_is_replaced_throughout_a_conversation():
    given = {"task": "Say a@b.example.", "email": "It is a@b.example.", "facts": ["a@b.example"]}
    found = conversation(given)
    assert isinstance(found, Conversation)
    assert found.replaced(Privacy("mask")).row() == {
        "task": "Say [EMAIL].",
        "email": "It is [EMAIL].",
        "facts": [["[EMAIL]"]],
    }
