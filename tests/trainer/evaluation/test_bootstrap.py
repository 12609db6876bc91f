import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.store.manifest import Comparison
from trainer.evaluation import bootstrap
from trainer.evaluation.bootstrap import Tally, compare, interval

SHARES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=30)
KEPT = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30)
few = settings(max_examples=30, deadline=None)


def difference(one: Tally, other: Tally, smaller_is_better: bool = False) -> Comparison | None:
    return compare("facts_kept", one, "base", other, smaller_is_better)


def kept(pairs: list[tuple[int, int]]) -> Tally:
    """(kept, lost) of each task."""
    return Tally([kept for kept, _ in pairs], [kept + lost for kept, lost in pairs])


def test_a_ratio_is_of_the_sums_and_not_the_mean_of_ratios():
    assert Tally([1, 0], [1, 9]).figure == 0.1
    assert Tally.mean([1, 0]).figure == 0.5
    assert Tally([0, 0], [0, 0]).figure == 0
    assert Tally([], []).figure is None


def test_the_interval_of_a_mean_holds_the_true_mean_95_times_of_100(monkeypatch: pytest.MonkeyPatch):
    """Of 48 tasks, as many as are shipped; a percentile interval is known to be a little narrow."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    random = np.random.default_rng(1)
    found = [interval(Tally.mean(random.binomial(1, 0.6, 48).tolist())) for _ in range(300)]
    assert 0.91 <= np.mean([each is not None and each[0] <= 0.6 <= each[1] for each in found]) <= 0.98


def test_the_interval_of_a_ratio_holds_the_true_ratio(monkeypatch: pytest.MonkeyPatch):
    """Tasks have more or fewer facts, and all facts of a task are easy or hard together."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    random = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        facts = random.integers(3, 10, 48)
        low, high = interval(Tally((facts * random.beta(4, 1, 48)).tolist(), facts.tolist())) or (1, 0)
        held += low <= 0.8 <= high
    assert 0.91 <= held / 300 <= 0.98


def test_a_verdict_on_two_equal_writers_is_given_one_time_in_twenty(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    random = np.random.default_rng(3)
    verdicts = []
    for _ in range(300):
        one, other = (Tally.mean(random.binomial(1, 0.5, 48).tolist()) for _ in range(2))
        found = difference(one, other)
        assert found
        verdicts.append(found.verdict)
    assert verdicts.count("no difference shown") >= 0.91 * 300
    assert {"better", "worse"} <= set(verdicts)


def test_pairing_sees_what_the_spread_between_tasks_would_hide():
    hard, easy = [0.1] * 12, [0.9] * 12
    one, other = Tally.mean([x + 0.05 for x in [*hard, *easy]]), Tally.mean([*hard, *easy])
    found = difference(one, other)
    assert found
    assert found.verdict == "better"
    assert found.difference == pytest.approx(0.05)
    assert (interval(one) or (0, 0))[0] < other.figure


@few
@given(KEPT)
def test_no_verdict_on_what_is_identical(pairs: list[tuple[int, int]]):
    found = difference(kept(pairs), kept(pairs))
    assert found
    assert (found.difference, found.low, found.high, found.verdict) == (0, 0, 0, "no difference shown")


@few
@given(st.data(), KEPT)
def test_turned_round_the_difference_is_the_negative_one(data: st.DataObject, pairs: list[tuple[int, int]]):
    others = data.draw(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=len(pairs), max_size=len(pairs))
    )
    there, back = difference(kept(pairs), kept(others)), difference(kept(others), kept(pairs))
    assert there
    assert back
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    opposite = {"better": "worse", "worse": "better", "no difference shown": "no difference shown"}
    assert opposite[there.verdict] == back.verdict


@few
@given(st.data(), KEPT)
def test_where_smaller_is_better_only_the_verdict_turns(data: st.DataObject, pairs: list[tuple[int, int]]):
    others = data.draw(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=len(pairs), max_size=len(pairs))
    )
    plain, turned = (difference(kept(pairs), kept(others), smaller) for smaller in (False, True))
    assert plain
    assert turned
    assert (plain.difference, plain.low, plain.high) == (turned.difference, turned.low, turned.high)
    assert (plain.verdict == "no difference shown") == (turned.verdict == "no difference shown")
    assert plain.verdict != turned.verdict or plain.verdict == "no difference shown"


@few
@given(SHARES)
def test_an_interval_lies_within_the_values_and_is_the_same_every_time(values: list[float]):
    found = interval(Tally.mean(values))
    assert found
    assert min(values) <= found[0] <= found[1] <= max(values)
    assert found == interval(Tally.mean(values))


@few
@given(SHARES, st.floats(0.1, 10))
def test_a_scale_scales_the_interval(values: list[float], scale: float):
    plain, scaled = interval(Tally.mean(values)), interval(Tally.mean([scale * value for value in values]))
    assert plain
    assert scaled == pytest.approx([scale * end for end in plain])


def test_one_task_has_no_interval_and_no_verdict():
    one = Tally.mean([1.0])
    assert interval(one) is None
    assert difference(one, one) is None


def test_other_tasks_cannot_be_paired():
    with pytest.raises(ValueError, match="3 tasks cannot be paired with 2"):
        difference(Tally.mean([1, 1, 1]), Tally.mean([1, 1]))
