"""A conversation with both sides -> Markdown or JSON, for a file to save."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from ui.client import Answer, Ask


@dataclass(frozen=True)
class Written:
    """One side of an exchange: the request and the answer."""

    ask: Ask
    answer: Answer


@dataclass(frozen=True)
class Exchange:
    """One task and both answers; `continued_from` is the side whose answer is in the later prompts."""

    task: str
    left: Written | None
    right: Written | None
    continued_from: Literal["left", "right"] | None = None


@dataclass(frozen=True)
class Conversation:
    when: datetime
    exchanges: Sequence[Exchange]


def as_json(conversation: Conversation) -> str:
    exchanges = [
        {
            "task": exchange.task,
            "left": exchange.left and _side(exchange.left),
            "right": exchange.right and _side(exchange.right),
            "continued_from": exchange.continued_from,
        }
        for exchange in conversation.exchanges
    ]
    written = {"when": conversation.when.isoformat(), "exchanges": exchanges}
    return json.dumps(written, indent=2, ensure_ascii=False) + "\n"


def as_markdown(conversation: Conversation) -> str:
    # Each fence is longer than any row of backticks in the text, so no email turns into markup.
    parts = [f"# Emails compared, {conversation.when:%d %B %Y, %H:%M}"]
    for number, exchange in enumerate(conversation.exchanges, start=1):
        parts += [f"## Task {number}", _fenced(exchange.task)]
        for name, written in (("Left", exchange.left), ("Right", exchange.right)):
            if written:
                parts += [f"### {name}: `{written.answer.version or written.ask.model}`", _figures(written)]
                parts.append(_fenced(written.answer.text))
        if exchange.continued_from:
            parts.append(f"The conversation continued from the {exchange.continued_from} answer.")
    return "\n\n".join(parts) + "\n"


def _side(written: Written) -> dict[str, object]:
    settings = asdict(written.ask)
    # The messages are the tasks and answers of the exchanges before: they are in the file already.
    del settings["messages"]
    return {**settings, **asdict(written.answer)}


def _figures(written: Written) -> str:
    ask, answer = written.ask, written.answer
    lines = [
        f"- model `{ask.model}`, temperature {ask.temperature:g}, seed {ask.seed}, at most {ask.max_tokens} tokens",
        f"- {answer.state}" + (f": {answer.problem}" if answer.problem else ""),
    ]
    figures = [
        f"first token after {answer.first_token_seconds:.2f} s" if answer.first_token_seconds is not None else "",
        f"{answer.tokens} tokens" if answer.tokens is not None else "",
        f"{answer.tokens_per_second:.1f} tokens/s" if answer.tokens_per_second is not None else "",
    ]
    if any(figures):
        lines.append(f"- {', '.join(figure for figure in figures if figure)}")
    return "\n".join(lines)


def _fenced(text: str) -> str:
    longest = max((len(row) for row in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
