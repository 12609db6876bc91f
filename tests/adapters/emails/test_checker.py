"""The fitted rule: what speaks for an email, what against, and what it calls sendable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.checker import DOUBT, FITTED, Fitted, Signals, check, fitted
from adapters.emails.tasks import Task
from tests.adapters.emails.test_findings import GOOD, TASK

ASKED = Task("", TASK, ())
SURE, UNSURE = Signals(-0.2), Signals(-1.5)


def test_a_good_email_that_its_writer_was_sure_of_is_likelier_sendable():
    good = check(ASKED, GOOD, True, SURE)
    assert good.probability > check(ASKED, GOOD, True, UNSURE).probability
    for flaw in ("room 7", "[room]", "room 6, from 9 June on"):
        assert good.probability > check(ASKED, GOOD.replace("room 6", flaw), True, SURE).probability


def test_it_holds_from_the_threshold_on():
    weights = dict.fromkeys(fitted().weights, 0.0)
    assert check(ASKED, GOOD, True, SURE, Fitted(weights, 0.5)).holds
    doubtful = check(ASKED, GOOD, True, SURE, Fitted(weights, 0.51))
    assert not doubtful.holds
    assert doubtful.findings == (DOUBT,)


def test_findings_are_given_whether_it_holds_or_not():
    weights = dict.fromkeys(fitted().weights, 0.0)
    verdict = check(ASKED, GOOD.replace("room 6", "room 7"), True, SURE, Fitted(weights, 0.5))
    assert verdict.holds
    assert [finding.kind for finding in verdict.findings] == ["missing", "invented"]


def test_no_finding_speaks_for_an_email():
    assert FITTED.is_file()
    for kind in ("missing", "invented", "form", "sender", "order", "swapped"):
        assert fitted().weights[kind] <= 0


@given(st.text(max_size=300), st.text(max_size=300), st.booleans(), st.floats(-50, 0))
def test_any_text_gets_a_probability(task: str, email: str, ended: bool, likelihood: float):
    assert 0 <= check(Task("", task, ()), email, ended, Signals(likelihood)).probability <= 1


@pytest.mark.parametrize("turns", [(), (("Write to Ada.", "Dear Ada"),)])
def test_what_was_told_has_every_turn_before_the_task(turns: tuple[tuple[str, str], ...]):
    assert Task("", "Shorter.", (), turns).told == "\n\n".join([*(text for turn in turns for text in turn), "Shorter."])
