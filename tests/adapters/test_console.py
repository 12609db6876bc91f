import sys

import pytest

from adapters.console import table

LONG = "word " * 60


def test_a_table_has_a_line_a_row_where_no_terminal_reads_it():
    head, first, second = table(["", "adapter", "note"], [["*", "formal@1", LONG], ["", "base", None]]).splitlines()
    assert head.split() == ["adapter", "note"]
    assert first == f"*  formal@1  {LONG.strip()}"
    assert second == "   base"


def test_a_terminal_wraps_a_long_cell_and_loses_nothing_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    lines = table(["adapter", "note"], [["formal@1", LONG + "x" * 90]]).splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join(lines).count("word") == 60
    assert "".join(lines).count("x") == 90
    assert "\x1b" not in "".join(lines)


def test_a_cell_is_text_and_no_markup():
    assert table(["note"], [["[bold]loud[/bold] :smile:"]]).splitlines()[1] == "[bold]loud[/bold] :smile:"
