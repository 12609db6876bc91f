"""Teach this: an answer that a person has corrected becomes an example of a voice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from adapters.errors import MailwrightError
from ui.parts.kept_examples import MINIMUM, KeptExamples
from ui.parts.side import QUIET, Attempt, Side

# In a clone: the emails of the shipped voices. The page does not know those of other voices.
SHIPPED_EMAILS = Path(__file__).parents[2] / "trainer" / "data" / "shipped" / "voices"
NOTHING = "Nothing kept yet on this page."

# (voice, id) of the rows that this side of this page has kept, oldest first.
Undoable = tuple[tuple[str, str], ...]


class Teach:
    def __init__(self, side: Side, kept: KeptExamples, store: Path) -> None:
        self._kept = kept
        self._store = store
        name = side.side.capitalize()
        self.attempt = gr.State()
        self.undoable = gr.State(())
        with gr.Accordion(f"Teach this: correct the {side.side} email and keep it", open=False, elem_classes="teach"):
            self.email = gr.Textbox(
                label=f"{name} email, as you would have sent it",
                lines=8,
                max_lines=20,
                interactive=True,
                placeholder="Write an answer first; then change it here.",
            )
            self.voice = gr.Dropdown(
                [], label=f"{name}: the voice that learns it", allow_custom_value=True, interactive=True
            )
            with gr.Row():
                self.keep = gr.Button("Keep", variant="primary", size="sm")
                self.undo = gr.Button("Undo", size="sm", interactive=False)
            self.note = gr.Textbox(
                NOTHING, label=f"{name}: kept so far", lines=2, max_lines=6, interactive=False, elem_classes="note"
            )
            self.command = gr.Textbox(
                label=f"{name}: teach the voice again with the kept emails",
                info="Run it in a terminal where Mailwright is active; then promote the new version.",
                lines=2,
                max_lines=6,
                interactive=False,
                visible=False,
                buttons=["copy"],
                elem_classes="command",
            )
        outputs = [self.undoable, self.undo, self.note, self.command]
        self.keep.click(self._keep, [self.attempt, self.email, self.voice, self.undoable], outputs, **QUIET)
        self.undo.click(self._undo, self.undoable, outputs, **QUIET)
        self.voice.change(self._show, self.voice, [self.note, self.command], **QUIET)

    def fill(self, attempt: Attempt | None) -> list[Any]:
        # With the task of this answer: the page may be writing the next one already.
        return [attempt.written.answer.text if attempt else "", attempt]

    def _keep(self, attempt: Attempt | None, email: str, voice: str | None, undoable: Undoable) -> list[Any]:
        if attempt is None:
            return [gr.skip(), gr.skip(), "Nothing kept: there is no answer yet. Press Write first.", gr.skip()]
        try:
            row = self._kept.keep(voice or "", attempt.asked.task, email, attempt.asked.previous)
        except MailwrightError as exc:
            return [gr.skip(), gr.skip(), _explained("Not kept", exc), gr.skip()]
        undoable = (*undoable, (voice or "", row.id))
        return [undoable, gr.Button(interactive=True), self._where(voice or "", row.count), self._command(voice or "")]

    def _undo(self, undoable: Undoable) -> list[Any]:
        if not undoable:
            return [(), gr.Button(interactive=False), NOTHING, gr.skip()]
        *others, (voice, row) = undoable
        try:
            count = self._kept.undo(voice, row)
        except MailwrightError as exc:
            return [gr.skip(), gr.skip(), _explained("Not undone", exc), gr.skip()]
        where = f"Undone. {self._where(voice, count)}"
        return [tuple(others), gr.Button(interactive=bool(others)), where, self._command(voice)]

    def _show(self, voice: str | None) -> list[Any]:
        try:
            return [self._where(voice or "", self._kept.count(voice or "")), self._command(voice or "")]
        except MailwrightError:
            return [NOTHING, gr.Textbox(visible=False)]

    def _where(self, voice: str, count: int) -> str:
        emails = "1 email" if count == 1 else f"{count} emails"
        more = "" if count >= MINIMUM else f"\nFrom {MINIMUM} on, the command that teaches it again appears here."
        return f"{emails} kept for {voice} in {self._kept.path(voice)}{more}"

    def _command(self, voice: str) -> Any:
        data = [file for file in [SHIPPED_EMAILS / f"{voice}.jsonl"] if file.is_file()]
        visible = self._kept.count(voice) >= MINIMUM
        return gr.Textbox(self._kept.command(voice, data, self._store), visible=visible)


def _explained(what: str, problem: MailwrightError) -> str:
    hint = f" {problem.hint[0].upper()}{problem.hint[1:]}." if problem.hint else ""
    return f"{what}: {problem}.{hint}"
