"""The real server under attack: never a 5xx, never a hang, nothing kept, and the next good request is answered.

Short forms; tests/hostile has the long ones.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tests.hostile.attacks import (
    CHAT,
    HOST,
    SECOND,
    SMUGGLED,
    Attacked,
    address_of,
    fuzz_openapi,
    fuzz_wire,
    hold_half_open,
    slowloris,
    throw,
)
from tests.serving import RunningServer

pytestmark = pytest.mark.vllm

GROWTH_MB = 64
"""1,000 connections take some 10 MB of the process, which the allocator keeps; the answers in between their share."""


@pytest.fixture
def attacked(server: RunningServer) -> Iterator[Attacked]:
    with Attacked(server, GROWTH_MB) as attacked:
        yield attacked


@pytest.mark.parametrize("rest", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_what_could_be_two_requests_or_one_is_refused(server: RunningServer, rest: bytes):
    request = b"POST " + CHAT + b" HTTP/1.1\r\n" + HOST + rest + SECOND
    (answer,) = throw(address_of(server), [request], quiet=60)
    answer.check()
    assert answer.status == 400


def test_anything_on_the_wire(attacked: Attacked):
    fuzz_wire(attacked, examples=60, patience=None)


def test_what_the_openapi_page_allows_and_what_it_does_not(attacked: Attacked, server: RunningServer):
    fuzz_openapi(attacked, server.url, examples=3)


def test_connections_that_drip(attacked: Attacked):
    asyncio.run(slowloris(attacked, count=50))


def test_a_thousand_half_open_connections(attacked: Attacked):
    hold_half_open(attacked, count=1000)
