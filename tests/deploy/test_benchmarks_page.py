"""docs/benchmarks/index.md shows what results.json beside it holds, and a newer result replaces the older one."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.conftest import script

PAGE = script("benchmarks_page")
OLD = {
    "bench": "bench-gate",
    "headline": "The gate costs 0.5 ms.",
    "date": "2026-01-01 10:00",
    "machine": "2 cores",
    "rows": [{"clients": 1, "median, ms": 4.25}, {"clients": 64, "median, ms": 51.0}],
}
NEW = OLD | {"headline": "The gate costs 0.1 ms.", "date": "2026-02-01"}
OTHER = OLD | {"bench": "demo", "headline": "It takes a minute.", "date": "2026-01-15"}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with results of the test's own."""
    monkeypatch.setattr(PAGE, "DOCS", tmp_path)
    (tmp_path / "results.json").write_text(json.dumps([OTHER, OLD]))
    return PAGE


def result(directory: Path, **content: object) -> str:
    (directory / "new.json").write_text(json.dumps(content))
    return str(directory / "new.json")


def test_the_page_is_in_step_with_the_results():
    assert PAGE.main(["--check"]) == 0, "stale: run .venv/bin/python deploy/benchmarks_page.py"


def test_the_results_stand_newest_first_and_each_bench_once():
    results = json.loads((PAGE.DOCS / "results.json").read_text())
    dates = [result["date"] for result in results]
    assert dates == sorted(dates, reverse=True)
    assert len({result["bench"] for result in results}) == len(results)


def test_a_stale_page_is_reported_and_then_written(
    page: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert page.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert page.main([]) == 0
    assert page.main(["--check"]) == 0
    assert "| 1 | 4.25 |\n| 64 | 51 |\n" in (tmp_path / "index.md").read_text()


def test_a_newer_result_replaces_the_older_one_of_its_bench(page: ModuleType, tmp_path: Path) -> None:
    assert page.main(["add", result(tmp_path, **NEW)]) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == [NEW, OTHER]
    written = (tmp_path / "index.md").read_text()
    assert "0.1 ms" in written
    assert "0.5 ms" not in written


def test_an_older_result_is_refused(page: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"bench-gate of 2026-01-01 10:00, newer than 2025-12-31"):
        page.main(["add", result(tmp_path, **OLD | {"date": "2025-12-31"})])
    assert json.loads((tmp_path / "results.json").read_text()) == [OTHER, OLD]


@pytest.mark.parametrize("wrong", [{"date": "yesterday"}, {"rows": []}, {"speed": 12}, {"bench": "Bench gate"}])
def test_what_is_not_a_result_is_refused(page: ModuleType, tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(SystemExit, match=rf"(?s)is not a result: .*{next(iter(wrong))}"):
        page.main(["add", result(tmp_path, **OLD | wrong)])


def test_rows_with_other_keys_begin_another_table() -> None:
    rows = [{"clients": 1, "tokens/s": 90}, {"adapters": 16, "tokens/s": 1492}]
    written = PAGE.page([PAGE.Result(**OLD | {"rows": rows})])
    assert "| clients | tokens/s |\n| --- | --- |\n| 1 | 90 |\n\n| adapters | tokens/s |" in written
    assert "| 16 | 1,492 |" in written
