"""The comparison page: one task, two models side by side.

Both sides always get the same task after the same history: from the second task on, the person chooses the answer to
continue from. Each side is an event of its own, so neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import gradio as gr

from adapters.emails.diff import ONLY_LEFT, ONLY_RIGHT, differences
from adapters.emails.tasks import shipped_tasks
from adapters.errors import MailwrightError, ServerProblem
from ui.client import Client
from ui.pages.teach import Teach
from ui.parts.export import Conversation, Exchange, as_json, as_markdown
from ui.parts.kept_examples import KeptExamples
from ui.parts.side import QUIET, Asked, Attempt, Latest, Side, SideName
from ui.parts.task_form import task_from_fields
from ui.settings import Settings

TITLE = "# Mailwright\nSame task, two models, side by side: see what a voice has learned."
CONCURRENT = "Times are measured by this page while both sides write at once; one that writes alone is faster."
FIRST_TASK = "heldout-02"
OWN = "A task of your own"
AS_TEXT, AS_FIELDS = "as text", "as fields"
RETRY_SECONDS = 3
# The script runs in the browser: the file is made there, and no email is written to the page's disk.
SAVE = """(text) => {
	const [name, type] = text.startsWith("{") ? ["emails.json", "application/json"] : ["emails.md", "text/markdown"];
	const link = document.createElement("a");
	link.href = URL.createObjectURL(new Blob([text], { type }));
	link.download = name;
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""

Earlier = tuple[Exchange, ...]


class Page:
    def __init__(self, settings: Settings, client: Client) -> None:
        self._client = client
        self._settings = settings
        self._tasks = {task.id: task for task in shipped_tasks() if not task.previous}
        with gr.Blocks(title="Mailwright", analytics_enabled=False) as self.blocks:
            self._asked = gr.State()
            self._earlier = gr.State(())
            self._header()
            self._task_card()
            with gr.Accordion("What both models are given", open=False, elem_classes="given") as self._given:
                self._transcript = gr.Textbox(
                    label="The conversation so far", lines=4, max_lines=16, interactive=False, buttons=["copy"]
                )
            self._two_sides(KeptExamples(settings.kept))
            self._carry_on_card()
            self._export_row()
            self._wire()
            self.blocks.unload(self._forget)

    def _header(self) -> None:
        with gr.Row(elem_id="header"):
            gr.Markdown(TITLE, elem_id="title")
            self._refresh = gr.Button("Refresh the models", size="sm", scale=0, min_width=180)
        self._away = gr.HighlightedText(
            None, show_label=False, container=False, visible=False, color_map={"problem": "#b91c1c"},
            show_inline_category=False, elem_classes="status away", label="The server",
        )  # fmt: skip
        self._retry = gr.Timer(RETRY_SECONDS, active=False)

    def _task_card(self) -> None:
        with gr.Group(elem_id="task-card"):
            with gr.Row():
                choices = [(_title(task.task), task.id) for task in self._tasks.values()]
                self._example = gr.Dropdown(
                    [(OWN, ""), *choices],
                    value=FIRST_TASK,
                    label="Start from",
                    info="The shipped tasks: no voice has seen them in training.",
                    scale=3,
                    min_width=280,
                )
                self._form = gr.Radio(
                    [("Text", AS_TEXT), ("Fields", AS_FIELDS)],
                    value=AS_TEXT,
                    label="Give the task as",
                    scale=2,
                    min_width=200,
                )
            self._task = gr.Textbox(
                self._tasks[FIRST_TASK].task,
                label="Task",
                lines=6,
                max_lines=12,
                elem_id="task",
                placeholder="What should the email say, to whom, and who signs it?",
            )
            with gr.Column(visible=False, elem_id="fields") as self._field_column:
                with gr.Row():
                    recipient = gr.Textbox(label="Recipient", placeholder="Ms Ada Kovac")
                    purpose = gr.Textbox(label="Purpose", placeholder="moving our appointment")
                    tone = gr.Textbox(label="Tone", placeholder="short and kind")
                    sender = gr.Textbox(label="Signed by", placeholder="Kim Lund")
                points = gr.Textbox(label="Points, one a line", lines=3, placeholder="was: Monday 2 June, 4 pm")
                answered = gr.Textbox(label="Message that it answers, if any", lines=2)
                self._fields = [recipient, purpose, tone, points, answered, sender]
        with gr.Row(elem_id="actions"):
            self._write = gr.Button("Write both", variant="primary", elem_id="write", scale=3)
            self._stop = gr.Button("Stop", elem_id="stop", scale=1)
            gr.Markdown("Ctrl-Enter writes", elem_id="key")

    def _two_sides(self, kept: KeptExamples) -> None:
        self._both: list[Side] = []
        self._marks: list[Any] = []
        with gr.Row(elem_classes="sides"):
            for side in ("left", "right"):
                with gr.Column(min_width=320, elem_id=side, elem_classes="side"):
                    self._both.append(Side("left" if side == "left" else "right", self._client))
        gr.Markdown(CONCURRENT, elem_classes="section")
        gr.Markdown("## Differences\nUnderlined: words that only this side has.", elem_classes="section")
        with gr.Row(elem_classes="sides"):
            for each, mark in zip(self._both, (ONLY_LEFT, ONLY_RIGHT), strict=True):
                with gr.Column(min_width=320):
                    self._marks.append(
                        gr.HighlightedText(
                            [("Both answers first.", None)],
                            label=f"{each.side.capitalize()} words",
                            color_map={mark: "#b45309" if each.side == "left" else "#1d4ed8"},
                            show_inline_category=False,
                            elem_classes=["differences", each.side],
                        )
                    )
        gr.Markdown("## Teach this\nPut an email right, keep it, and the voice can learn it.", elem_classes="section")
        with gr.Row(elem_classes="sides"):
            self._teach = []
            for each in self._both:
                with gr.Column(min_width=320):
                    self._teach.append(Teach(each, kept, self._settings.store))

    def _carry_on_card(self) -> None:
        gr.Markdown("## Carry on\nAsk both for a change. Both get the same conversation.", elem_classes="section")
        with gr.Group(elem_id="carry-on"):
            self._wish = gr.Textbox(label="Change", placeholder="shorter, and mention the deadline", lines=2)
            self._from = gr.Radio(
                [("the left answer", "left"), ("the right answer", "right")],
                value="right",
                label="Both models carry on from",
            )
        self._ask = gr.Button("Ask both", variant="primary", elem_id="ask")

    def _export_row(self) -> None:
        gr.Markdown("## Take it with you", elem_classes="section")
        with gr.Row():
            self._markdown = gr.Button("Save as Markdown", size="sm")
            self._json = gr.Button("Save as JSON", size="sm")
        self._file = gr.Textbox(visible=False)

    def _wire(self) -> None:
        left, right = self._both
        models = [self._away, self._retry, left.model, right.model, *(teach.voice for teach in self._teach)]
        current = models[2:]
        gr.on(
            [self.blocks.load, self._refresh.click, self._retry.tick, left.model.focus, right.model.focus],
            self._refreshed, current, models, **QUIET,
        )  # fmt: skip
        self._example.input(self._chosen, self._example, [self._task, self._form], **QUIET).then(
            self._shaped, self._form, [self._task, self._field_column], **QUIET
        )
        self._form.input(self._shaped, self._form, [self._task, self._field_column], **QUIET)

        given = [self._asked, self._earlier, self._transcript, self._given]
        begun = self._write.click(self._begin, [self._form, self._task, *self._fields], given, **QUIET)
        state = [self._asked, self._earlier, left.attempt, right.attempt]
        carried_on = self._ask.click(self._carry_on, [self._wish, self._from, *state], [*given, self._wish], **QUIET)
        for each, teach in zip(self._both, self._teach, strict=True):
            asked = [self._asked, each.latest, *each.settings]
            for trigger in (begun.success, carried_on.success, each.again.click):
                writing = trigger(each.write, asked, each.outputs, trigger_mode="multiple", **QUIET)
                writing.then(teach.fill, each.attempt, [teach.email, teach.attempt], **QUIET)
                writing.then(self._compared, [left.attempt, right.attempt], self._marks, **QUIET)
        self._stop.click(self._stopped, [left.latest, right.latest], None, **QUIET)
        for button, render in ((self._markdown, as_markdown), (self._json, as_json)):
            button.click(_exporting(render), state, self._file, **QUIET).success(
                None, self._file, None, js=SAVE, **QUIET
            )

    async def _refreshed(self, left: str | None, right: str | None, *voices: str | None) -> list[Any]:
        """The models that the server has now; the choices of the person stay."""
        try:
            models, voices_now = sorted_models(await self._client.models())
        except ServerProblem as exc:
            away = gr.HighlightedText([(str(exc), "problem")], visible=True)
            return [away, gr.Timer(active=True), *[gr.skip()] * (2 + len(voices))]
        voice = next(iter(voices_now), None)
        return [
            gr.HighlightedText([], visible=False),
            gr.Timer(active=False),
            offered(models, left, models[0]),
            offered(models, right, voice or models[0]),
            *[offered(voices_now, chosen, voice) for chosen in voices],
        ]

    def _chosen(self, example: str) -> list[Any]:
        return [self._tasks[example].task if example else "", AS_TEXT]

    def _shaped(self, form: str) -> list[Any]:
        return [gr.Textbox(visible=form == AS_TEXT), gr.Column(visible=form == AS_FIELDS)]

    def _begin(self, form: str, text: str, *fields: str) -> list[Any]:
        """A new conversation."""
        task = text.strip()
        if form == AS_FIELDS:
            try:
                task = task_from_fields(*fields)
            except MailwrightError as exc:
                raise _refusal("No task yet", f"{exc}: {exc.hint}.") from exc
        if not task:
            raise _refusal("No task yet", "Say what to write, or start from a shipped task.")
        shipped = next((known for known in self._tasks.values() if known.task.strip() == task), None)
        asked = Asked(task, facts=shipped.facts if shipped else ())
        return [asked, (), transcript(asked), gr.Accordion(open=False)]

    def _carry_on(
        self,
        wish: str,
        side: SideName,
        asked: Asked | None,
        earlier: Earlier,
        left: Attempt | None,
        right: Attempt | None,
    ) -> list[Any]:
        attempt = left if side == "left" else right
        if not wish.strip():
            raise _refusal("Nothing to ask", "Say what should change.")
        if asked is None or attempt is None or attempt.asked != asked or not attempt.written.answer.text:
            raise _refusal("Nothing to carry on", f"There is no {side} answer to carry on from.")
        done = exchange(asked, left, right, side)
        asked = Asked(wish.strip(), (*asked.previous, (asked.task, attempt.written.answer.text)), asked.facts)
        return [asked, (*earlier, done), transcript(asked), gr.Accordion(open=True), ""]

    def _compared(self, left: Attempt | None, right: Attempt | None) -> list[Any]:
        if not left or not right or left.asked != right.asked:
            return [[("Both answers first.", None)]] * 2
        return list(differences(left.written.answer.text, right.written.answer.text))

    async def _stopped(self, *latest: Latest) -> None:
        for writing in latest:
            writing.stop()

    async def _forget(self, request: gr.Request) -> None:
        """End the writing of a closed tab and delete its session, which Gradio would keep in memory."""
        sessions = self.blocks.state_holder.session_data
        session = sessions.get(request.session_hash or "")
        if session:
            for each in self._both:
                session[each.latest._id].stop()
            del sessions[request.session_hash]


def offered(names: list[str], chosen: str | None, default: str | None) -> gr.Dropdown:
    """New choices. The default is set only where there is no value: a person may be typing one."""
    return gr.Dropdown(choices=names) if chosen else gr.Dropdown(choices=names, value=default)


def sorted_models(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """All models (base models, voices, exact versions, newest first, checked drafts), and the voices alone."""
    exact = sorted((name for name in names if "@" in name), key=_by_version)
    voices = list(dict.fromkeys(name.partition("@")[0] for name in exact))
    # No adapter's name has a colon. Last, so that a name that is typed does not complete to its drafts.
    checked = [name for name in names if ":" in name]
    plain = [name for name in names if "@" not in name and ":" not in name]
    return [*sorted(plain, key=lambda name: name in voices), *exact, *checked], voices


def _by_version(name: str) -> tuple[str, int]:
    voice, _, number = name.partition("@")
    return voice, -int(number) if number.isdecimal() else 0


def transcript(asked: Asked) -> str:
    """The whole prompt of a model, word for word, under headings."""
    parts = [part for task, email in asked.previous for part in (f"TASK\n{task}", f"EMAIL\n{email}")]
    return "\n\n".join([*parts, f"TASK\n{asked.task}"])


def exchange(asked: Asked, left: Attempt | None, right: Attempt | None, side: SideName | None) -> Exchange:
    """One exchange of the conversation, without answers to an earlier task."""
    sides = [each.written if each and each.asked == asked else None for each in (left, right)]
    return Exchange(asked.task, sides[0], sides[1], side)


def _refusal(title: str, message: str) -> gr.Error:
    return gr.Error(message, title=title, print_exception=False)


def _exporting(render: Any) -> Any:
    def export(asked: Asked | None, earlier: Earlier, left: Attempt | None, right: Attempt | None) -> str:
        if asked is None:
            raise _refusal("Nothing to save", "Press Write first.")
        exchanges = [*earlier, exchange(asked, left, right, None)]
        return str(render(Conversation(datetime.now().astimezone(), exchanges)))

    return export


def _title(task: str) -> str:
    words = " ".join(task.split())
    return words if len(words) <= 80 else f"{words[:79].rsplit(' ', 1)[0]} …"
