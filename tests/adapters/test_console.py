import io

"""Tables and the status line, as a terminal and a pipe get them."""

import sys

import pytest

from adapters.console import byte_bar, status, table

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


def test_numbers_are_aligned_to_the_right_and_text_to_the_left():
    assert table(["name", "size", "cost"], [["a", 5, "$1.50"], ["bcdefg", "−1,234", "–"]]).splitlines() == [
        "name      size   cost",
        "a            5  $1.50",
        "bcdefg  −1,234      –",
    ]


def test_a_cell_is_neither_markup_nor_coloured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert table(["kind"], [["[bold]EMAIL[/bold] :smile: 5"]]) == "kind\n[bold]EMAIL[/bold] :smile: 5"


def test_without_rows_the_headers_are_printed():
    assert table(["name", "size"], []) == "name  size"


def test_no_status_line_is_printed_into_a_pipe(capfd: pytest.CaptureFixture[str]):
    with status("checking") as change:
        change("checking formal@1")
        print("printed meanwhile")
    assert capfd.readouterr() == ("printed meanwhile\n", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_bytes_and_the_time_left_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    with byte_bar("fetching tiny.gguf", 2_000_000) as advance:
        advance(1_000_000)
    assert capfd.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with byte_bar("fetching tiny.gguf", 2_000_000) as advance:
        advance(1_000_000)
        progress = terminal.getvalue()
    assert "fetching tiny.gguf" in progress
    assert "of 2.00MB" in progress
    assert "left" in progress
