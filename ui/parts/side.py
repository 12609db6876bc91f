"""One side of the page: a model, its settings, and the answer as it is written.

An answer is shown by components that render no markup: text boxes and highlighted text. This file knows no other side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import gradio as gr

from adapters.emails.prompts import Turn, task_messages
from adapters.emails.tasks import keeps
from ui.client import Answer, Ask, Client
from ui.parts.export import Written

Side = Literal["left", "right"]
Spans = list[tuple[str, str | float | None]]
"""Pieces of text, each with a label or None; as wide as Gradio types them."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""For every event: nothing blinks while it runs, and the page is no API."""
LOOK_SECONDS = 1.0
"""Gradio looks whether the tab is still open only when an answer moves on: a silent server's has to move as well."""
LENGTH = 256
LINES = 16
GREY = "#475569"
STATES = {
    "waiting": "Waiting for the first word. A voice that is not loaded yet takes a moment.",
    "writing": "Writing …",
    "finished": "Finished.",
    "stopped": "Stopped.",
}


@dataclass(frozen=True)
class Asked:
    """What both sides are asked: a task after one common history. `facts` are those of a shipped task, or none."""

    task: str
    previous: tuple[Turn, ...] = ()
    facts: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Attempt:
    """What this side made of what was asked."""

    asked: Asked
    written: Written


class Latest:
    """The writing that counts on one side in one browser: a newer one replaces it, Stop ends it."""

    def __init__(self) -> None:
        self.ended: asyncio.Event | None = None

    def start(self) -> asyncio.Event:
        self.stop()
        self.ended = asyncio.Event()
        return self.ended

    def stop(self) -> None:
        if self.ended:
            self.ended.set()

    def forget(self) -> None:
        self.stop()
        self.ended = None


class Pane:
    def __init__(self, side: Side, client: Client) -> None:
        self.side = side
        self._client = client
        self.latest = gr.State(Latest())
        self.attempt = gr.State()
        name = side.capitalize()
        self.model = gr.Dropdown(
            [], label=f"{name} model", allow_custom_value=True, interactive=True, elem_classes="model"
        )
        self.answer = gr.Textbox(
            label=f"{name} answer",
            lines=LINES,
            max_lines=LINES,
            interactive=False,
            buttons=["copy"],
            placeholder="The email appears here.",
            elem_classes="answer",
        )
        self.status = _spans([("Press Write.", None)], f"{name} status", "status", {"problem": "#b91c1c"}, named=False)
        kinds = dict.fromkeys(("version", "first token", "tokens/s", "tokens"), GREY)
        self.figures = _spans(figures(Answer()), f"{name} figures", "figures", kinds)
        colours = {"kept": "#166534", "missing": "#991b1b", "not yet": GREY}
        self.facts = _spans([], f"{name}: facts of the task", "facts", colours, visible=False)
        self.again = gr.Button(f"Write the {side} one again", size="sm", elem_classes="again")
        with gr.Accordion(f"Settings of the {side} model", open=False):
            self.temperature = gr.Slider(
                0, 2, 0, step=0.1, label=f"{name} temperature", info="0 writes the likeliest words; more is freer."
            )
            self.seed = gr.Number(
                0, label=f"{name} seed", precision=0, info="Above temperature 0, another seed writes another email."
            )
            self.length = gr.Slider(
                16, 1024, LENGTH, step=16, label=f"{name} length", info="The most tokens; 100 are about 75 words."
            )

    @property
    def settings(self) -> list[Any]:
        return [self.model, self.temperature, self.seed, self.length]

    @property
    def shown(self) -> list[Any]:
        """What `write` yields into."""
        return [self.answer, self.attempt, self.status, self.figures, self.facts]

    async def write(
        self, asked: Asked, latest: Latest, model: str | None, temperature: float, seed: float | None, length: float
    ) -> AsyncGenerator[list[Any]]:
        """Updates of `shown` while the answer grows, until it ends, Stop is pressed or a newer writing starts."""
        ask = Ask(
            model=model or "",
            messages=task_messages(asked.task, asked.previous),
            temperature=temperature,
            seed=None if seed is None else int(seed),
            max_tokens=int(length),
        )
        ended = latest.start()
        before: Answer | None = None
        answer = Answer()
        async for snapshot in watched(self._client.write(ask), ended):
            answer = snapshot or answer
            yield self._update(asked, ask, before, answer) if snapshot else [gr.skip()] * len(self.shown)
            before = answer
        if answer.state in ("waiting", "writing"):
            # Gradio sends the last update twice, so that of a replaced writing has to be an empty one.
            mine = latest.ended is ended
            stopped = replace(answer, state="stopped")
            yield self._update(asked, ask, before, stopped) if mine else [gr.skip()] * len(self.shown)

    def _update(self, asked: Asked, ask: Ask, before: Answer | None, answer: Answer) -> list[Any]:
        over = answer.state not in ("waiting", "writing")
        return [
            answer.text,
            Attempt(asked, Written(ask, answer)),
            gr.skip() if before and before.state == answer.state else in_words(answer),
            figures(answer),
            gr.HighlightedText(marked_facts(asked.facts, answer.text, over), visible=bool(asked.facts))
            if before is None or over
            else marked_facts(asked.facts, answer.text, over),
        ]


async def watched(stream: AsyncGenerator[Answer], ended: asyncio.Event) -> AsyncGenerator[Answer | None]:
    """What `stream` yields until it is over or `ended` is set; None whenever nothing came for LOOK_SECONDS."""
    ending = asyncio.create_task(ended.wait())
    coming = _next(stream)
    try:
        while True:
            await asyncio.wait({coming, ending}, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return
            if not coming.done():
                yield None
                continue
            answer = coming.result()
            if answer is None:
                return
            yield answer
            coming = _next(stream)
    finally:
        ending.cancel()
        coming.cancel()
        with suppress(asyncio.CancelledError):
            await coming
        await stream.aclose()


def _next(stream: AsyncGenerator[Answer]) -> asyncio.Task[Answer | None]:
    async def wait() -> Answer | None:
        return await anext(stream, None)

    return asyncio.create_task(wait())


def in_words(answer: Answer) -> Spans:
    if answer.problem:
        return [(answer.problem, "problem")]
    return [(STATES[answer.state], None)]


def figures(answer: Answer) -> Spans:
    """Always the same four, so that nothing moves when they come in."""
    first, speed = answer.first_token_seconds, answer.tokens_per_second
    return [
        (answer.version or "–", "version"),
        ("–" if first is None else f"{first:.2f} s", "first token"),
        ("–" if speed is None else f"{speed:.0f}", "tokens/s"),
        ("–" if answer.tokens is None else str(answer.tokens), "tokens"),
    ]


def marked_facts(facts: Sequence[Sequence[str]], text: str, over: bool) -> Spans:
    missing = ("✗", "missing") if over else ("…", "not yet")
    marks = [("✓", "kept") if keeps(fact, text) else missing for fact in facts]
    return [(f"{sign} {fact[0]}", kind) for fact, (sign, kind) in zip(facts, marks, strict=True)]


def _spans(value: Spans, label: str, kind: str, colours: dict[str, str], named: bool = True, **more: Any) -> Any:
    """Text in pieces with a label each, which is written out if `named`: colour never says anything alone."""
    return gr.HighlightedText(
        value,
        label=label,
        show_label=False,
        color_map=colours,
        show_inline_category=named,
        container=False,
        elem_classes=kind,
        **more,
    )
