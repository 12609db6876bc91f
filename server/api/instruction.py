"""The instruction that a voice was taught with, before a request that brings none of its own."""

from __future__ import annotations

from typing import Any

from adapters.emails.prompts import SYSTEM_ROLES
from adapters.store.version import Version
from server.api.models_route import version_info
from server.paths import CHAT, MESSAGES, RESPONSES

# Where a request of each path may bring a system message; a raw completion has no messages.
FIELDS = {RESPONSES: "instructions", MESSAGES: "system"}


def instruct(path: str, request: dict[str, Any], version: Version) -> None:
    """Put the instruction of `version` into the `request` to `path`, unless that has a system message or takes none."""
    instruction = version_info(version).instruction
    if not instruction:
        return
    turns = request.get("input" if path == RESPONSES else "messages")
    # Anything but a list of messages stays as it is, and vLLM refuses it.
    turns = turns if isinstance(turns, list) else []
    messages = [turn for turn in turns if isinstance(turn, dict)]
    if any(message.get("role") in SYSTEM_ROLES for message in messages):
        return
    if path in FIELDS:
        request[FIELDS[path]] = request.get(FIELDS[path]) or instruction
    elif path == CHAT and messages:
        request["messages"] = [{"role": "system", "content": instruction}, *turns]
