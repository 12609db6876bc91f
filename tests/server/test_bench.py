"""The tables of the benches: medians over rounds, and shares of the ceiling at the same threads and clients."""

import pytest

pytest.importorskip("torch")

from tests.server.bench import CEILING, OURS, Measured, table


def measured(server: str, clients: int, speed: float, binding: str = "all") -> Measured:
    return Measured(binding, server, "base", clients, speed, 50.0, 60.0, 10.0, 12.0)


def test_a_row_is_the_median_of_its_rounds_and_its_share_of_the_ceiling():
    rows = [measured(OURS, 1, speed) for speed in (10, 45, 1000)] + [measured(CEILING, 1, 50)]
    assert "| all | 1 | ours | base | 45 | 0.90 | 50, 60 | 10.0, 12.0 |" in table(rows)


def test_the_ceiling_is_that_of_the_same_threads_and_clients():
    rows = [
        *(measured(OURS, clients, 90, binding) for binding in ("one", "all") for clients in (1, 8)),
        *(measured(CEILING, clients, 100 * clients, binding) for binding in ("one", "all") for clients in (1, 8)),
    ]
    lines = table(rows).splitlines()
    assert [line.split(" | ")[5] for line in lines if "| ours |" in line] == ["0.90", "0.11", "0.90", "0.11"]
