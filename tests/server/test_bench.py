"""The tables of the benches: medians over rounds, and shares of the ceiling at the same threads and clients."""

import pytest

pytest.importorskip("torch")

from tests.server import bench_growth
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


def test_what_grows_has_a_table_each_and_the_clients_are_drawn():
    speeds = {case: [1.0, 10.0 * case.value, 1e6] for case in bench_growth.GROWING}
    lines = bench_growth.table(speeds).splitlines()
    assert lines[:3] == [
        "| clients, base model | 1 | 2 | 4 | 8 | 16 | 32 | 64 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| tokens a second | 10 | 20 | 40 | 80 | 160 | 320 | 640 |",
    ]
    assert sum(line.startswith("| tokens a second") for line in lines) == 4
    assert "    bar [10, 20, 40, 80, 160, 320, 640]" in bench_growth.plot(speeds)
