"""Tables and the status line, as a terminal and a pipe get them."""

import pytest

from adapters.console import status, table


def test_numbers_are_aligned_to_the_right_and_text_to_the_left():
    assert table(["name", "size", "cost"], [["a", 5, "$1.50"], ["bcdefg", "−1,234", "–"]]).splitlines() == [
        "name      size   cost",
        "a            5  $1.50",
        "bcdefg  −1,234      –",
    ]


def test_what_does_not_fit_wraps_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "20")
    printed = table(["name", "path"], [["formal", "/srv/" + "x" * 50]])
    assert max(map(len, printed.splitlines())) <= 20
    assert printed.count("x") == 50
    assert "formal" in printed


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
