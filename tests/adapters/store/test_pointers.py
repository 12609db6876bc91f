import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import ConfigError
from adapters.store.pointers import MAX_HISTORY, Canary, Pointers

PROMOTED = Pointers().with_promoted(1)


def test_nothing_is_promoted_until_something_is():
    assert Pointers().meaning("formal", b"key") is None
    assert PROMOTED.meaning("formal", b"key") == 1


def test_rollbacks_go_back_one_promote_at_a_time():
    pointers = PROMOTED.with_promoted(2).with_promoted(3)
    assert pointers.rolled_back().promoted == 2
    assert pointers.rolled_back().rolled_back().promoted == 1
    with pytest.raises(ConfigError, match="no version was promoted before"):
        pointers.rolled_back().rolled_back().rolled_back()


def test_to_promote_what_is_promoted_adds_no_step_to_roll_back():
    with pytest.raises(ConfigError):
        PROMOTED.with_promoted(1).rolled_back()


def test_a_rollback_passes_over_what_was_retired():
    pointers = PROMOTED.with_promoted(2).with_promoted(3).with_retired(2)
    assert pointers.rolled_back().promoted == 1


def test_a_rollback_never_leads_to_what_is_promoted_already():
    with pytest.raises(ConfigError):
        PROMOTED.with_promoted(2).with_promoted(1).with_retired(2).rolled_back()


def test_only_so_many_rollbacks_are_remembered():
    pointers = PROMOTED
    for number in range(2, MAX_HISTORY + 50):
        pointers = pointers.with_promoted(number)
    assert len(pointers.history) == MAX_HISTORY
    assert pointers.history[-1] == MAX_HISTORY + 48


def test_a_canary_ends_with_a_rollback_or_the_next_promote():
    trial = PROMOTED.with_canary(2, 50)
    assert trial.rolled_back() == PROMOTED
    assert trial.with_promoted(2) == PROMOTED.with_promoted(2)


@pytest.mark.parametrize("percent", [-1, 0, 100, 1000])
def test_a_canary_takes_1_to_99_percent(percent: int):
    with pytest.raises(ConfigError, match=str(percent)):
        PROMOTED.with_canary(2, percent)


def test_a_canary_is_another_version_than_the_promoted_one():
    with pytest.raises(ConfigError, match="promoted already"):
        PROMOTED.with_canary(1, 10)
    with pytest.raises(ConfigError, match="needs a promoted version"):
        Pointers().with_canary(1, 10)


@given(st.binary(), st.integers(1, 98))
def test_a_canary_that_takes_a_key_takes_it_at_more_percent_too(key: bytes, percent: int):
    canary = Canary(version=2, percent=percent)
    assert canary.takes("formal", key) == canary.takes("formal", key)
    if canary.takes("formal", key):
        assert Canary(version=2, percent=percent + 1).takes("formal", key)


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_a_canary_takes_its_share_of_many_keys(percent: int):
    canary = Canary(version=2, percent=percent)
    taken = sum(canary.takes("formal", str(key).encode()) for key in range(20_000))
    assert taken / 20_000 == pytest.approx(percent / 100, abs=0.015)


def test_two_trials_fall_on_different_keys():
    keys = [str(key).encode() for key in range(2_000)]
    first, second = ({k for k in keys if Canary(version=n, percent=10).takes("formal", k)} for n in (2, 3))
    assert len(first & second) < len(first) / 2


def test_what_should_be_loaded_starts_with_what_is_promoted():
    assert PROMOTED.with_pin(5).with_pin(1).with_canary(2, 10).wanted == [1, 2, 5]
    assert Pointers().wanted == []


@pytest.mark.parametrize(
    "label", ["", "1", "Candidate", "a_b", "canary", "promoted", "a" * 64, "a\n", "a@b", "-a", "é"]
)
def test_a_label_must_be_a_plain_word_that_means_nothing_else(label: str):
    with pytest.raises(ConfigError, match="is not a valid label"):
        PROMOTED.with_label(label, 1)


def test_a_label_moves_and_goes():
    pointers = PROMOTED.with_label("candidate", 1).with_label("candidate", 2)
    assert pointers.labels == {"candidate": 2}
    assert pointers.without_label("candidate") == PROMOTED
    with pytest.raises(ConfigError) as caught:
        pointers.without_label("candidat")
    assert caught.value.hint == "there are candidate"


def test_a_retired_version_loses_label_and_pin_and_what_others_have_stays():
    pointers = PROMOTED.with_label("a", 2).with_label("b", 3).with_pin(2).with_pin(3).with_retired(2)
    assert (pointers.labels, pointers.pinned, pointers.retired) == ({"b": 3}, (3,), (2,))


def test_what_answers_the_bare_name_cannot_be_retired():
    with pytest.raises(ConfigError, match="is promoted"):
        PROMOTED.with_retired(1)
    with pytest.raises(ConfigError, match="is the canary"):
        PROMOTED.with_canary(2, 10).with_retired(2)


def test_a_retired_name_means_nothing_and_its_numbers_stay_known():
    pointers = PROMOTED.with_label("a", 2).with_canary(3, 10).with_retired(4).all_retired([1, 2, 3])
    assert pointers == Pointers(retired=(1, 2, 3, 4))
    assert pointers.brought_back([2]) == Pointers(retired=(1, 3, 4))


def test_what_is_written_reads_the_same():
    pointers = PROMOTED.with_promoted(2).with_label("a", 1).with_pin(1).with_retired(3).with_canary(1, 5)
    assert Pointers.model_validate_json(pointers.model_dump_json()) == pointers
