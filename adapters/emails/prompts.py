"""An email task -> chat messages: the only place where a prompt is composed.

What a plain API caller sends is what training saw: the task as a user message, no system prompt. A voice lives in the
adapter's weights, never in hidden words. This file does not know chat templates; the tokenizer applies those.
"""

from __future__ import annotations

from collections.abc import Sequence

Message = dict[str, str]
Turn = tuple[str, str]
"""One finished exchange: (task, email)."""


def task_messages(task: str, previous: Sequence[Turn] = ()) -> list[Message]:
    """The messages that ask for `task`, after the `previous` exchanges of the same conversation, oldest first."""
    messages: list[Message] = []
    for earlier_task, email in previous:
        messages += [{"role": "user", "content": earlier_task}, {"role": "assistant", "content": email}]
    return [*messages, {"role": "user", "content": task}]


def reply_task(task: str, sender: str, message: str) -> str:
    """The task of answering a `message` from `sender`: what to say first, then the message, quoted as mail quotes."""
    quoted = "\n".join(f"> {line}".rstrip() for line in message.strip().splitlines())
    return f"{task}\n\nReply to this email from {sender}:\n{quoted}"
