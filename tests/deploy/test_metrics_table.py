"""The list of series in deploy/README.md is the one that the server declares."""

import pytest

from server.metrics import ALL
from tests.deploy.conftest import script

TABLE = script("metrics_table")


def test_the_readme_lists_every_series_as_it_is_declared():
    readme = TABLE.README.read_text()
    assert TABLE.rewritten(readme) == readme, "stale: run .venv/bin/python deploy/metrics_table.py"
    for series in ALL:
        assert f"| `{series.name}` |" in readme


def test_a_stale_list_is_written_anew_and_nothing_else():
    readme = TABLE.README.read_text()
    stale = readme.replace(TABLE.row(ALL[0]), "").replace("mailwright_build_info", "mailwright_build")
    assert stale != readme
    assert TABLE.rewritten(stale) == readme


def test_a_readme_without_the_place_for_it_is_refused():
    with pytest.raises(SystemExit, match="lacks"):
        TABLE.rewritten("# Metrics\n")
