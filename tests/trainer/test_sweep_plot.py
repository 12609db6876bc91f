"""The picture of a sweep: that it is one, that every trial is on it, and that no losses break it."""

import io
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.speed import Sweep, Trial
from trainer.sweep_plot import BOTTOM, COLOURS, HEIGHT, LINE, WIDTH, _apart, png


def colours(sweep: Sweep) -> set[str]:
    """Which verdicts' colours stand in the picture."""
    image = Image.open(io.BytesIO(png(sweep)))
    assert (image.format, image.size) == ("PNG", (WIDTH, HEIGHT))
    pixels = {f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue) in image.getcolors(WIDTH * HEIGHT) or []}
    return {verdict for verdict, colour in COLOURS.items() if colour in pixels}


def test_every_verdict_has_its_line():
    trials = (
        Trial(1e-4, (4.0, 3.9, 3.9, 3.8), 3.9),
        Trial(1e-3, (4.0, 3.0, 2.5, 2.0), 2.0),
        Trial(1e-1, (4.0, 3.0, 900.0, math.nan), math.nan),
    )
    assert colours(Sweep(trials, 4.0, 4, 8, 8)) == set(COLOURS)
    assert colours(Sweep(trials[:2], 4.0, 4, 8, 8)) == {"too slow", "just right"}


@pytest.mark.parametrize("losses", [(math.nan,), (4.0,), (4.0, math.inf), (0.0, 0.0), (4.0,) * 30])
def test_a_trial_of_a_step_or_without_a_number_can_be_drawn(losses: tuple[float, ...]):
    png(Sweep((Trial(0.5, losses, losses[-1]),), 4.0, max(len(losses), 2), 8, 8))


@settings(deadline=None)
@given(st.lists(st.floats(84, HEIGHT - BOTTOM), max_size=20))
def test_names_never_overlap(heights: list[float]):
    moved = _apart(sorted(heights))
    assert all(after - before >= LINE - 1e-6 for before, after in pairwise(moved))
    assert all(height <= HEIGHT - BOTTOM for height in moved)
