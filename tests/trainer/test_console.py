"""Lines of characters that stand for numbers."""

import math

from hypothesis import given
from hypothesis import strategies as st

from trainer.console import LEVELS, sparkline


@given(st.lists(st.floats(0, 1e6)))
def test_a_bar_is_higher_for_more(values: list[float]):
    drawn = sparkline(values)
    assert len(drawn) == len(values)
    heights = [LEVELS.index(level) for level in drawn]
    order = sorted(range(len(values)), key=lambda at: values[at])
    assert [heights[at] for at in order] == sorted(heights)
    assert not values or max(values) < math.ulp(0) * 10 or max(heights) == len(LEVELS) - 1


def test_nan_and_what_is_above_the_scale_have_characters_of_their_own():
    assert sparkline([0.0, math.nan, 1.0, math.inf]) == "▁x█x"
    assert sparkline([2.0, 3.0, 9.0], 2.0, 3.0) == "▁█^"
    assert sparkline([math.nan]) == "x"
