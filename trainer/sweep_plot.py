"""The curves of a sweep as a PNG: the training loss of every trial, step by step, named and judged at its right end.

Drawn with Pillow, at twice its size and then halved, which smooths the lines. Nothing is told by colour alone. This
file does not know where the picture is written.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

from trainer.speed import Sweep, Trial, shown, written

WIDTH, HEIGHT, TWICE = 1100, 620, 2
"""In pixels, after halving."""
LEFT, RIGHT, TOP, BOTTOM = 70, 340, 84, 60
"""The margins round the axes: numbers on the left, names on the right."""
TICKS, LINE, TEXT, TITLE = 8, 22, 15, 19
"""About as many numbers on an axis; heights of a name's line, of its letters and of the title's."""
INK, GRID, PAPER = "#222222", "#dddddd", "#ffffff"
COLOURS = {"too slow": "#3266a8", "just right": "#1d7a46", "too fast": "#b3402a"}
Point = tuple[float, float]


class _Canvas:
    """Draws in pixels of the finished picture."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH * TWICE, HEIGHT * TWICE), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], colour: str, width: float = 1) -> None:
        self._draw.line([(x * TWICE, y * TWICE) for x, y in points], colour, round(width * TWICE), "curve")

    def text(self, at: Point, text: str, anchor: str, colour: str = INK, size: int = TEXT) -> None:
        font = ImageFont.load_default(size * TWICE)
        self._draw.text((at[0] * TWICE, at[1] * TWICE), text, colour, font, anchor)

    def png(self) -> bytes:
        file = io.BytesIO()
        self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(file, "PNG")
        return file.getvalue()


def png(sweep: Sweep) -> bytes:
    """A picture of WIDTH x HEIGHT pixels."""
    canvas = _Canvas()
    title = f"Loss in training at {len(sweep.trials)} learning rates, {sweep.batch_size} emails a step"
    canvas.text((LEFT, 30), title, "lm", size=TITLE)
    _axes(canvas, sweep)
    ends: list[tuple[Point, Trial]] = []
    for trial in sweep.trials:
        points = [
            (_x(sweep, step), _y(sweep, loss)) for step, loss in enumerate(trial.losses, 1) if math.isfinite(loss)
        ]
        width = 3 if trial == sweep.chosen else 1.5
        if len(points) > 1:
            canvas.line(points, COLOURS[sweep.verdict(trial)], width)
        ends.append((points[-1] if points else (_x(sweep, 1), TOP), trial))
    ends.sort(key=lambda end: end[0][1])
    for (end, trial), height in zip(ends, _apart([y for (_, y), _ in ends]), strict=True):
        colour = COLOURS[sweep.verdict(trial)]
        canvas.line([end, (WIDTH - RIGHT + 30, height)], colour, 0.5)
        canvas.text((WIDTH - RIGHT + 36, height), _name(sweep, trial), "lm", colour)
    return canvas.png()


def _name(sweep: Sweep, trial: Trial) -> str:
    loss = (
        f"held-out loss {shown(trial.heldout)}" if math.isfinite(trial.heldout) else f"no number at {len(trial.losses)}"
    )
    return f"{written(trial.learning_rate)} {sweep.verdict(trial)}, {loss}"


def _axes(canvas: _Canvas, sweep: Sweep) -> None:
    right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
    for loss in _round_numbers(*sweep.scale):
        canvas.line([(LEFT, _y(sweep, loss)), (right, _y(sweep, loss))], GRID)
        canvas.text((LEFT - 8, _y(sweep, loss)), f"{loss:.4g}", "rm")
    for step in _round_numbers(1, sweep.steps):
        if step == int(step):
            canvas.text((_x(sweep, step), foot + 8), f"{step:.0f}", "mt")
    canvas.line([(LEFT, TOP), (LEFT, foot), (right, foot)], INK)
    canvas.text(((LEFT + right) / 2, HEIGHT - 18), "step", "mm")
    canvas.text((LEFT - 40, TOP - 22), "nats a token", "lm")


def _x(sweep: Sweep, step: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / max(1, sweep.steps - 1)


def _y(sweep: Sweep, loss: float) -> float:
    """What is above the scale runs along the top."""
    low, high = sweep.scale
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(1.0, (loss - low) / (high - low)))


def _round_numbers(low: float, high: float) -> Iterator[float]:
    rough = max(high - low, 1e-9) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    yield from (number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1))


def _apart(heights: Sequence[float]) -> list[float]:
    """`heights`, which rise, moved so that names at them neither overlap nor leave the axes."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + LINE) if moved else height)
    below: float = HEIGHT - BOTTOM
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], below)
        below = moved[at] - LINE
    return moved
