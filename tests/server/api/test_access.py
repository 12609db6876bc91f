"""Who asks and how much of it a key allows, on a clock of the test's own."""

import pytest

from adapters.errors import Forbidden, RateLimited, Unauthorised
from server.api.access import LOCAL, OPERATOR, Access, check_scope
from server.api.keys import Caller, Keys, Order


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def caller(**limits: int) -> Caller:
    return Caller("1", "key 1 (app)", frozenset({"infer"}), **limits)


def access(tmp_path, **options) -> Access:
    return Access(Keys(tmp_path), options.pop("api_key", None), options.pop("local", True), **options)


HERE = {b"host": b"127.0.0.1:8000"}


def test_without_keys_only_this_machine_is_let_in_and_only_on_a_loopback_address(tmp_path):
    assert access(tmp_path).caller(HERE) is LOCAL
    with pytest.raises(Unauthorised):
        access(tmp_path, local=False).caller(HERE)
    with pytest.raises(Forbidden, match="Host"):
        access(tmp_path).caller({b"host": b"mail.example.org"})


def test_the_operators_key_and_made_keys_count_beside_each_other(tmp_path):
    both = access(tmp_path, api_key="sesame")
    _, token = Keys(tmp_path).create(Order("app"))
    assert both.caller({b"authorization": b"Bearer sesame"}) is OPERATOR
    assert both.caller({b"authorization": f"Bearer {token}".encode()}).name.endswith("(app)")
    for header in (b"", b"Bearer", b"Bearer \xff\xfe", b"Basic sesame", b"Bearer sesam"):
        with pytest.raises(Unauthorised):
            both.caller({b"authorization": header})


def test_a_minutes_requests_may_come_at_once_and_then_evenly(tmp_path):
    clock = Clock()
    one, limited = caller(requests_per_minute=6), access(tmp_path, clock=clock)

    def requests() -> int:
        passed = 0
        try:
            while True:
                with limited.admitted(one):
                    passed += 1
        except RateLimited:
            return passed

    assert requests() == 6
    clock.now += 9
    assert requests() == 0
    clock.now += 2
    assert requests() == 1
    clock.now += 3600
    assert requests() == 6


def test_who_met_a_limit_hears_when_it_is_over(tmp_path):
    clock = Clock()
    one, limited = caller(requests_per_minute=1), access(tmp_path, clock=clock)
    with limited.admitted(one) as headers:
        assert headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(RateLimited) as refused, limited.admitted(one):
        pass
    clock.now += refused.value.retry_after
    with limited.admitted(one):
        pass


def test_answers_at_the_same_time_are_counted_until_they_end_however_they_end(tmp_path):
    one, limited = caller(streams=2), access(tmp_path)
    with limited.admitted(one), limited.admitted(one), pytest.raises(RateLimited), limited.admitted(one):
        pass
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), limited.admitted(one):
            raise ZeroDivisionError
    with limited.admitted(one), limited.admitted(Caller("2", "other", frozenset({"infer"}), streams=1)):
        pass


def test_a_limit_is_told_once_a_minute(tmp_path):
    clock, told = Clock(), []
    limited = access(tmp_path, clock=clock, limited=lambda who, what: told.append((who.name, what)))
    for _ in range(3):
        with limited.admitted(caller(streams=1)), pytest.raises(RateLimited), limited.admitted(caller(streams=1)):
            pass
    assert told == [("key 1 (app)", "streams")]
    clock.now += 60
    with limited.admitted(caller(streams=1)), pytest.raises(RateLimited), limited.admitted(caller(streams=1)):
        pass
    assert len(told) == 2


def test_the_error_says_which_scope_is_missing():
    check_scope(caller(), frozenset({"infer", "admin"}))
    with pytest.raises(Forbidden, match="has the scopes infer, and this needs admin"):
        check_scope(caller(), frozenset({"admin"}))
    with pytest.raises(Forbidden) as refused:
        check_scope(LOCAL, frozenset({"admin"}))
    assert "server keys create" in refused.value.hint
