"""An email task -> chat messages: the only place where a prompt is composed.

A plain API caller sends what training saw: the task as a user message, without a system prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

Message = dict[str, str]
# One finished exchange: (task, email).
Turn = tuple[str, str]


def task_messages(task: str, previous: Sequence[Turn] = ()) -> list[Message]:
    """The messages that ask for `task`, after the `previous` exchanges of the same conversation, oldest first."""
    messages: list[Message] = []
    for earlier_task, email in previous:
        messages += [{"role": "user", "content": earlier_task}, {"role": "assistant", "content": email}]
    return [*messages, {"role": "user", "content": task}]


def reply_task(task: str, sender: str, message: str) -> str:
    """The task of answering a `message` from `sender`, which follows the task with `>` before each line."""
    quoted = "\n".join(f"> {line}".rstrip() for line in message.strip().splitlines())
    return f"{task}\n\nReply to this email from {sender}:\n{quoted}"
