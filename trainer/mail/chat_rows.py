"""Rows that are the trainer's examples already, OpenAI's fine-tuning format above all -> cleaned examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainer.data.examples import Example, examples_of
from trainer.mail.message import UnreadableMail, clean

if TYPE_CHECKING:
    from trainer.text.personal_data import Privacy

FIELDS = (("messages",), ("prompt", "completion"), ("task", "email"))
OPTIONAL_LISTS = ("facts", "previous")


def is_example(row: Mapping[str, Any]) -> bool:
    return any(all(key in row for key in keys) for keys in FIELDS)


def chat_examples(row: Mapping[str, Any]) -> list[Example] | UnreadableMail:
    """One example for each email of the row, or why there is none."""
    fields = next(keys for keys in FIELDS if all(key in row for key in keys))
    cleaned = {key: _cleaned(row[key]) for key in fields}
    cleaned |= {key: _cleaned(row[key]) for key in OPTIONAL_LISTS if isinstance(row.get(key), list)}
    # A column of a table that is called "facts" may hold anything.
    cleaned["facts"] = [fact for fact in cleaned.get("facts", ()) if _is_fact(fact)]
    try:
        return examples_of(cleaned)
    except ValueError as exc:
        return UnreadableMail(str(exc))


def private(example: Example, privacy: Privacy) -> Example:
    """The example with its personal data replaced; a conversation is a thread of its own."""
    contents = [message["content"] for message in example.messages]
    spellings = [spelling for fact in example.facts for spelling in fact]
    texts = iter(privacy.apply([*contents, example.email, *spellings], contents[0]))
    messages = tuple({**message, "content": next(texts)} for message in example.messages)
    email = next(texts)
    facts = tuple(tuple(next(texts) for _ in fact) for fact in example.facts)
    return replace(example, messages=messages, email=email, facts=facts)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        # OpenAI's name for the system role since 2024.
        role = {"role": "system"} if value.get("role") == "developer" else {}
        return {key: _cleaned(item) for key, item in value.items()} | role
    return value


def _is_fact(fact: Any) -> bool:
    spellings = [fact] if isinstance(fact, str) else fact
    return bool(spellings) and isinstance(spellings, list) and all(isinstance(s, str) and s.strip() for s in spellings)
