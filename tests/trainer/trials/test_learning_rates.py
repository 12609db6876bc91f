"""Which learning rate is too slow, just right or too fast: the rules, on losses as trials would leave them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.trials.learning_rates import JUST_RIGHT_SHARE, MIN_CHANGE, Sweep, Trial, format_loss, format_rate

BEFORE = 4.0
LOSSES = st.one_of(st.floats(0.01, 2 * BEFORE), st.just(math.nan), st.just(math.inf))


def sweep(heldout: dict[float, float]) -> Sweep:
    """Trials with these held-out losses; one that is no number broke off at its third step."""
    trials = [
        Trial(rate, (BEFORE, 3.5, loss), loss if math.isfinite(loss) else math.nan)
        for rate, loss in sorted(heldout.items())
    ]
    return Sweep(tuple(trials), BEFORE, 3, 8, 8)


def verdicts(heldout: dict[float, float]) -> list[str]:
    found = sweep(heldout)
    return [found.verdict(trial) for trial in found.trials]


def chosen(heldout: dict[float, float]) -> float | None:
    best = sweep(heldout).chosen
    return best and best.learning_rate


def test_slower_than_the_best_is_too_slow_and_faster_is_too_fast():
    assert verdicts({1e-4: 3.9, 1e-3: 2.0, 1e-2: 3.0}) == ["too slow", "just right", "too fast"]


def test_just_right_is_within_a_tenth_of_what_the_best_took_off():
    assert JUST_RIGHT_SHARE == 0.1
    assert verdicts({1e-4: 2.21, 3e-4: 2.19, 1e-3: 2.0, 3e-3: 2.19, 1e-2: 2.21}) == [
        "too slow",
        *["just right"] * 3,
        "too fast",
    ]


def test_the_best_is_the_slowest_of_equal_ones():
    assert chosen({1e-4: 2.05, 1e-3: 2.0, 1e-2: 2.0}) == 1e-3


def test_a_loss_that_is_no_number_is_too_fast():
    assert verdicts({1e-4: 2.0, 1e-3: math.nan, 1e-2: math.inf}) == ["just right", "too fast", "too fast"]


def test_a_loss_that_ends_clearly_above_where_it_began_is_too_fast():
    assert MIN_CHANGE == 0.02
    assert verdicts({1e-2: 4.07, 1e-1: 4.09}) == ["too slow", "too fast"]


def test_where_none_took_2_percent_off_nothing_is_just_right():
    assert verdicts({1e-5: 3.99, 1e-4: 3.93}) == ["too slow", "too slow"]
    assert chosen({1e-5: 3.99, 1e-4: 3.93}) is None
    assert chosen({1e-5: 3.99, 1e-4: 3.91}) == 1e-4


@pytest.mark.parametrize(
    ("heldout", "advice"),
    [
        ({1e-4: 3.9, 1e-3: 2.0, 1e-2: 3.0}, ""),
        ({1e-4: 3.9, 1e-3: 2.0}, "none was too fast: try faster ones too (--rates 1e-3,3e-3,1e-2)"),
        ({1e-2: 2.0, 1e-1: 5.0}, "none was too slow: try slower ones too (--rates 1e-3,3e-3,1e-2)"),
        ({1e-1: 5.0, 3e-1: 5.0}, "none was too slow: try slower ones too (--rates 1e-2,3e-2,1e-1)"),
        ({1e-5: 4.0, 1e-4: 4.0}, "none was too fast: try faster ones too (--rates 1e-4,3e-4,1e-3)"),
        ({1e-2: 3.0, 9e-1: 2.0}, "none was too fast: try faster ones too"),
        ({1e-4: 4.0, 1e-1: 5.0}, "try more steps, or rates in between"),
    ],
)
def test_the_advice_says_where_to_look_next(heldout: dict[float, float], advice: str):
    assert sweep(heldout).advice == advice


def test_the_curves_are_drawn_up_to_the_highest_of_those_that_are_not_too_fast():
    assert sweep({1e-4: 3.9, 1e-3: 2.0, 1e-2: 900.0}).scale == (2.0, BEFORE)
    assert sweep({1e-1: 90.0, 9e-1: math.nan}).scale == (3.5, 1.2 * BEFORE)


def test_a_first_loss_that_is_no_number_can_be_drawn():
    low, high = Sweep((Trial(0.5, (math.nan,), math.nan),), BEFORE, 3, 8, 8).scale
    assert low < high


@settings(deadline=None)
@given(st.dictionaries(st.floats(1e-6, 0.99), LOSSES, min_size=1, max_size=8))
def test_whatever_the_losses_the_best_is_just_right_and_the_verdicts_lie_on_their_sides_of_it(
    heldout: dict[float, float],
):
    found = sweep(heldout)
    best = found.chosen
    low, high = found.scale
    assert low < high
    for trial in found.trials:
        verdict = found.verdict(trial)
        if not math.isfinite(trial.heldout):
            assert verdict == "too fast"
        if best is None:
            assert verdict != "just right"
        elif verdict == "too slow":
            assert trial.learning_rate < best.learning_rate
            assert trial.heldout > best.heldout
        elif verdict == "too fast" and trial.learning_rate < best.learning_rate:
            assert not trial.heldout <= BEFORE
    if best:
        assert found.verdict(best) == "just right"
        assert best.heldout == min(t.heldout for t in found.trials if math.isfinite(t.heldout))


@pytest.mark.parametrize(
    ("loss", "text"), [(1.23456, "1.235"), (12345.6, "1.2e+04"), (1e30, "1.0e+30"), (math.nan, "NaN")]
)
def test_a_loss_is_short_whatever_it_is(loss: float, text: str):
    assert format_loss(loss) == text


@pytest.mark.parametrize(("rate", "text"), [(1e-5, "1e-5"), (0.0003, "3e-4"), (0.00025, "2.5e-4"), (0.5, "5e-1")])
def test_a_rate_is_written_as_people_write_it(rate: float, text: str):
    assert format_rate(rate) == text


@settings(deadline=None)
@given(st.floats(1e-9, 0.999))
def test_a_written_rate_is_read_as_the_same(rate: float):
    assert float(format_rate(rate)) == pytest.approx(rate, rel=1e-5)
