"""Who asks and how much of it a key allows, on a clock of the test's own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import Forbidden, RateLimited, Unauthorised
from adapters.store.store import Store
from server.api.access import LOCAL, OPERATOR, Access
from server.api.keys import Caller, Keys, Order, Scope


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def caller(**limits: int) -> Caller:
    return Caller("1", "key 1 (app)", frozenset({"infer"}), **limits)


def access(tmp_path: Path, **options: Any) -> Access:
    return Access(Store(tmp_path), options.pop("api_key", None), options.pop("local", True), **options)


def authorised(access: Access, headers: dict[bytes, bytes], *scopes: Scope) -> Caller:
    return asyncio.run(access.authorise(headers, frozenset(scopes) or None))


HERE = {b"host": b"127.0.0.1:8000"}


def test_without_keys_only_this_machine_is_let_in_and_only_on_a_loopback_address(tmp_path):
    assert authorised(access(tmp_path), HERE) is LOCAL
    with pytest.raises(Unauthorised):
        authorised(access(tmp_path, local=False), HERE)
    with pytest.raises(Forbidden, match="Host"):
        authorised(access(tmp_path), {b"host": b"mail.example.org"})


def test_the_operators_key_and_made_keys_count_beside_each_other(tmp_path):
    both = access(tmp_path, api_key="sesame")
    _, token = Keys(tmp_path).create(Order("app"))
    assert authorised(both, {b"authorization": b"Bearer sesame"}) is OPERATOR
    assert authorised(both, {b"authorization": f"Bearer {token}".encode()}).name.endswith("(app)")
    for header in (b"", b"Bearer", b"Bearer \xff\xfe", b"Basic sesame", b"Bearer sesam"):
        with pytest.raises(Unauthorised):
            authorised(both, {b"authorization": header})


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

    async def minutes() -> None:
        assert requests() == 6
        clock.now += 9
        assert requests() == 0
        clock.now += 2
        assert requests() == 1
        clock.now += 3600
        assert requests() == 6

    asyncio.run(minutes())


def test_who_met_a_limit_hears_when_it_is_over(tmp_path):
    clock = Clock()
    one, limited = caller(requests_per_minute=1), access(tmp_path, clock=clock)

    async def minutes() -> None:
        with limited.admitted(one) as headers:
            assert dict(headers)[b"x-ratelimit-remaining-requests"] == b"0"
        with pytest.raises(RateLimited) as refused, limited.admitted(one):
            pass
        clock.now += refused.value.retry_after
        with limited.admitted(one):
            pass

    asyncio.run(minutes())


def test_answers_at_the_same_time_are_counted_until_they_end_however_they_end(tmp_path):
    one, limited = caller(streams=2), access(tmp_path)

    async def answers() -> None:
        with limited.admitted(one), limited.admitted(one), pytest.raises(RateLimited), limited.admitted(one):
            pass
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), limited.admitted(one):
                raise ZeroDivisionError
        with limited.admitted(one), limited.admitted(Caller("2", "other", frozenset({"infer"}), streams=1)):
            pass

    asyncio.run(answers())


def test_a_limit_is_written_into_the_audit_log_once_a_minute(tmp_path: Path):
    clock, one = Clock(), caller(streams=1)
    limited = access(tmp_path, clock=clock)

    async def meet_the_limit() -> None:
        with limited.admitted(one), pytest.raises(RateLimited), limited.admitted(one):
            pass
        # asyncio.run waits for the thread that writes.

    def written() -> list[tuple[str, str]]:
        return [(entry["who"], entry["limit"]) for entry in Store(tmp_path).audit.entries(10)]

    for _ in range(3):
        asyncio.run(meet_the_limit())
    assert written() == [("key 1 (app)", "streams")]
    clock.now += 60
    asyncio.run(meet_the_limit())
    assert len(written()) == 2


def test_the_error_says_which_scope_is_missing(tmp_path: Path):
    assert authorised(access(tmp_path), HERE, "infer", "admin") is LOCAL
    with pytest.raises(Forbidden) as refused:
        authorised(access(tmp_path), HERE, "admin")
    assert "server keys create" in refused.value.hint
    _, token = Keys(tmp_path).create(Order("app"))
    with pytest.raises(Forbidden, match="has the scopes infer, and this needs admin"):
        authorised(access(tmp_path), {b"authorization": f"Bearer {token}".encode()}, "admin")
