"""An email task -> chat messages: the only place where a prompt is composed.

Training puts an instruction before the task, the version's manifest keeps it, and the server puts the same one before a
request that has no system message. So a plain API caller sends the task alone, and the model reads what training saw.
"""

from __future__ import annotations

from collections.abc import Sequence

Message = dict[str, str]
SYSTEM_ROLES = ("system", "developer")
# One finished exchange: (task, email).
Turn = tuple[str, str]

# Without one the untrained base model rambles; docs/decisions/training.md has the longer ones that were tried.
INSTRUCTION = (
    "Write the email that the user asks for. Answer with the email only: "
    "subject, greeting, text, closing, sender's name."
)


def task_messages(task: str, previous: Sequence[Turn] = ()) -> list[Message]:
    """The messages that ask for `task`, after the `previous` exchanges of the same conversation, oldest first."""
    messages: list[Message] = []
    for earlier_task, email in previous:
        messages += [{"role": "user", "content": earlier_task}, {"role": "assistant", "content": email}]
    return [*messages, {"role": "user", "content": task}]


def instructed(messages: Sequence[Message], instruction: str) -> list[Message]:
    """`messages` with `instruction` as their system message, unless they have one or it is empty."""
    own = any(message["role"] in SYSTEM_ROLES for message in messages)
    return list(messages) if own or not instruction else [{"role": "system", "content": instruction}, *messages]


def reply_task(task: str, sender: str, message: str) -> str:
    """The task of answering a `message` from `sender`, which follows the task with `>` before each line."""
    quoted = "\n".join(f"> {line}".rstrip() for line in message.strip().splitlines())
    return f"{task}\n\nReply to this email from {sender}:\n{quoted}"
