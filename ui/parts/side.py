"""One side of the page: a model, its settings, and the answer while it is written.

Answers go into components that render no markup only: text boxes and highlighted text.
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

SideName = Literal["left", "right"]
# Pieces of text, each with a label or None, as Gradio types them.
Spans = list[tuple[str, str | float | None]]

# For every event: nothing blinks while it runs, and the page offers no API.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Gradio checks whether the tab is still open only when an event yields, so it yields while the server is silent too.
LOOK_SECONDS = 1.0
LENGTH_TOKENS = 256
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
    """The task for both sides, after one common history. Only a shipped task has `facts`."""

    task: str
    previous: tuple[Turn, ...] = ()
    facts: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Attempt:
    """The answer of one side, complete or partial, and its task."""

    asked: Asked
    written: Written


class Latest:
    """The current answer of one side in one browser: a newer one replaces it, Stop ends it."""

    def __init__(self) -> None:
        self.ended: asyncio.Event | None = None

    def start(self) -> asyncio.Event:
        self.stop()
        self.ended = asyncio.Event()
        return self.ended

    def stop(self) -> None:
        if self.ended:
            self.ended.set()


class Side:
    def __init__(self, side: SideName, client: Client) -> None:
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
                16, 1024, LENGTH_TOKENS, step=16, label=f"{name} length", info="100 tokens are about 75 words."
            )
        self.settings = [self.model, self.temperature, self.seed, self.length]
        # The components that `write` updates.
        self.outputs = [self.answer, self.attempt, self.status, self.figures, self.facts]

    async def write(
        self, asked: Asked, latest: Latest, model: str | None, temperature: float, seed: float | None, length: float
    ) -> AsyncGenerator[list[Any]]:
        """Updates of `outputs` while the answer grows, until it ends, Stop is pressed or a newer writing starts."""
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
            yield self._update(asked, ask, before, answer) if snapshot else [gr.skip()] * len(self.outputs)
            before = answer
        if answer.state in ("waiting", "writing"):
            # Gradio sends the last update twice, so the last one of a replaced answer must be empty.
            mine = latest.ended is ended
            stopped = replace(answer, state="stopped")
            yield self._update(asked, ask, before, stopped) if mine else [gr.skip()] * len(self.outputs)

    def _update(self, asked: Asked, ask: Ask, before: Answer | None, answer: Answer) -> list[Any]:
        over = answer.state not in ("waiting", "writing")
        return [
            answer.text,
            Attempt(asked, Written(ask, answer)),
            gr.skip() if before and before.state == answer.state else status_of(answer),
            figures(answer),
            gr.HighlightedText(marked_facts(asked.facts, answer.text, over), visible=bool(asked.facts))
            if before is None or over
            else marked_facts(asked.facts, answer.text, over),
        ]


async def watched(stream: AsyncGenerator[Answer], ended: asyncio.Event) -> AsyncGenerator[Answer | None]:
    """The items of `stream` until it ends or `ended` is set, and None after each LOOK_SECONDS without one."""
    ending = asyncio.create_task(ended.wait())
    coming = asyncio.ensure_future(anext(stream, None))
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
            coming = asyncio.ensure_future(anext(stream, None))
    finally:
        ending.cancel()
        coming.cancel()
        with suppress(asyncio.CancelledError):
            await coming
        await stream.aclose()


def status_of(answer: Answer) -> Spans:
    return [(answer.problem, "problem")] if answer.problem else [(STATES[answer.state], None)]


def figures(answer: Answer) -> Spans:
    # Always the same four, so that nothing moves when the values arrive.
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
    # `named` writes the labels out: colour alone never carries a meaning.
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
