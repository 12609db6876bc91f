"""The attacks of tests/server/api/test_hostile.py, many more of each, with the numbers that came out."""

import asyncio
import os

import pytest

from tests.hostile.attacks import Attacked, fuzz_openapi, fuzz_wire, hold_half_open, slowloris
from tests.hostile.conftest import Show
from tests.serving import RunningServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

EXAMPLES = int(os.environ.get("MAILWRIGHT_FUZZ_EXAMPLES", "500"))
GROWTH_MB = 128
BODY_PATIENCE = 90.0
"""A body may take 30 s (server/api/connection.py)."""


def test_anything_on_the_wire(server: RunningServer, show: Show):
    with Attacked(server, GROWTH_MB) as attacked:
        fuzz_wire(attacked, EXAMPLES, BODY_PATIENCE)
    show("fuzz-wire", attacked.figures)


def test_what_the_openapi_page_allows_and_what_it_does_not(server: RunningServer, show: Show):
    with Attacked(server, GROWTH_MB) as attacked:
        fuzz_openapi(attacked, server.url, EXAMPLES // 10)
    show("fuzz-openapi", attacked.figures)


def test_connections_that_drip(server: RunningServer, show: Show):
    with Attacked(server, GROWTH_MB) as attacked:
        asyncio.run(slowloris(attacked, count=300))
    show("fuzz-slowloris", attacked.figures)


def test_half_open_connections_again_and_again(server: RunningServer, show: Show):
    with Attacked(server, GROWTH_MB) as attacked:
        for _ in range(5):
            hold_half_open(attacked, count=1000)
    show("fuzz-half-open", attacked.figures)
