"""Rows that are trainer's examples already, OpenAI's fine-tuning format above all: checked, and passed on.

This file does not know files or mail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.emails.prompts import Message
from trainer.data.examples import ROLES
from trainer.mail.message import UnreadableMail, clean

if TYPE_CHECKING:
    from trainer.text.personal_data import Privacy

SAME_AS_SYSTEM = "developer"
"""OpenAI's name for the system role since 2024."""


@dataclass(frozen=True)
class Conversation:
    messages: tuple[Message, ...]
    facts: tuple[tuple[str, ...], ...] = ()

    def row(self) -> dict[str, Any]:
        if [message["role"] for message in self.messages] != ["user", "assistant"]:
            return {"messages": list(self.messages)}
        asked, answer = (message["content"] for message in self.messages)
        return {"task": asked, "email": answer, "facts": [list(fact) for fact in self.facts]}

    def replaced(self, privacy: Privacy) -> Conversation:
        """With its personal data replaced; a conversation is a thread of its own."""
        contents = [message["content"] for message in self.messages]
        spellings = [spelling for fact in self.facts for spelling in fact]
        texts = iter(privacy.apply([*contents, *spellings], contents[0]))
        messages = tuple({**message, "content": next(texts)} for message in self.messages)
        return Conversation(messages, tuple(tuple(next(texts) for _ in fact) for fact in self.facts))


def conversation(row: dict[str, Any]) -> Conversation | UnreadableMail:
    """The row as a conversation that trainer/data/examples.py reads, or why it is none."""
    if "messages" in row:
        return _checked(row["messages"])
    asked, answer = (row.get("prompt"), row.get("completion")) if "prompt" in row else (row["task"], row["email"])
    if isinstance(asked, str) and isinstance(answer, str):
        asked, answer = [{"role": "user", "content": asked}], [{"role": "assistant", "content": answer}]
    if not isinstance(asked, list) or not isinstance(answer, list):
        return UnreadableMail("its two columns must both be texts, or both lists of messages")
    return _checked([*asked, *answer], _facts(row.get("facts")))


def _facts(given: Any) -> tuple[tuple[str, ...], ...]:
    """A fact that is no text or list of texts is left out."""
    facts = [[fact] if isinstance(fact, str) else fact for fact in given] if isinstance(given, list) else []
    return tuple(
        tuple(map(clean, fact))
        for fact in facts
        if isinstance(fact, list) and fact and all(isinstance(text, str) and text.strip() for text in fact)
    )


def _checked(given: Any, facts: tuple[tuple[str, ...], ...] = ()) -> Conversation | UnreadableMail:
    if not isinstance(given, list):
        return UnreadableMail('"messages" is no list')
    messages: list[Message] = []
    for message in given:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        role = "system" if role == SAME_AS_SYSTEM else role
        if role not in ROLES:
            return UnreadableMail(f"a message needs a role of {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            return UnreadableMail("a message has no text")
        if role == "assistant" and (not messages or messages[-1]["role"] != "user"):
            return UnreadableMail("an assistant message follows no user message")
        messages.append({"role": str(role), "content": clean(content)})
    if not any(message["role"] == "assistant" for message in messages):
        return UnreadableMail("it has no assistant message, so there is nothing to learn from")
    return Conversation(tuple(messages), facts)
