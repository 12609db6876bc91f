import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from trainer.cli import main
from trainer.data.examples import read_examples

Capture = pytest.CaptureFixture[str]


def trainer(*arguments: object) -> int:
    return main(["check", *map(str, arguments)])


def row(topic: int, extra: str = "") -> dict[str, Any]:
    words = " ".join(f"topic{topic}x{number}" for number in range(50))
    return {"task": f"Write to {topic}.", "email": f"Dear Ada,\n\n{words}.{extra}\n\nKind regards,\nKim", "id": topic}


def written(name: str, *rows: Any) -> Path:
    Path(name).write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return Path(name)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def good() -> Path:
    return written("good.jsonl", *map(row, range(100)))


@pytest.fixture
def bad() -> Path:
    return written("bad.jsonl", *map(row, range(100)), "{", row(3), row(200, " I am [Your Name]."))


def test_good_emails_are_ready_with_their_figures(good: Path, tiny_base: Path, capsys: Capture):
    assert trainer(good, "--base", tiny_base) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("good.jsonl: 100 emails, 100 different ones\ntokens ")
    assert re.search(r"^ +\d+-\d+ +█{40} \d+$", printed, re.MULTILINE)
    assert printed.endswith("\n\nready\n")
    for figure in ("kinds", "voices", "threads", "languages", "variety", "personal"):
        assert f"\n{figure} " in printed


def test_findings_are_numbered_with_places_and_a_remedy(bad: Path, tiny_base: Path, capsys: Capture):
    assert trainer(bad, "--base", tiny_base) == 1
    printed = capsys.readouterr().out
    findings = printed.partition("\n\n")[2]
    assert findings.splitlines()[:4] == [
        "1. rows that cannot be used: 1",
        "   bad.jsonl:101: not JSON (Expecting property name enclosed in double quotes)",
        "   -> mend them, or leave them out: trainer check bad.jsonl --fix cleaned.jsonl",
        "",
    ]
    assert "3. duplicates in 1 cluster" in findings
    assert "\n   bad.jsonl:4 = bad.jsonl:102\n" in findings
    assert "2. 1 email with a placeholder" in findings
    assert printed.endswith("\n\nnot usable\n")


def test_the_remedy_that_is_printed_can_be_run(bad: Path, capsys: Capture):
    assert trainer(bad) == 1
    command = re.search(r"trainer (check .*)", capsys.readouterr().out)
    assert command is not None
    assert trainer(*command[1].split()[1:]) == 1
    assert trainer("cleaned.jsonl") == 0
    assert capsys.readouterr().out.endswith("ready\n")


def test_a_fix_writes_a_copy_and_its_changes_for_the_user_alone(bad: Path, capsys: Capture):
    before = bad.read_bytes()
    trainer(bad, "--fix", "clean.jsonl")
    assert bad.read_bytes() == before
    assert [json.loads(line) for line in Path("clean.jsonl").read_text().splitlines()] == [row(n) for n in range(100)]
    assert [json.loads(line) for line in Path("clean.jsonl.changes.jsonl").read_text().splitlines()] == [
        {
            "file": "bad.jsonl",
            "line": 101,
            "reason": "not JSON (Expecting property name enclosed in double quotes)",
        },
        {"file": "bad.jsonl", "line": 102, "reason": "the same email as bad.jsonl:4"},
        {"file": "bad.jsonl", "line": 103, "reason": "it has a placeholder"},
    ]
    assert "wrote clean.jsonl: 100 rows; clean.jsonl.changes.jsonl lists the 3 left out" in capsys.readouterr().err
    for file in ("clean.jsonl", "clean.jsonl.changes.jsonl"):
        assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    assert {file.name for file in Path().iterdir()} == {"bad.jsonl", "clean.jsonl", "clean.jsonl.changes.jsonl"}
    assert len(read_examples([Path("clean.jsonl")])) == 100


def refused(capsys: Capture, *arguments: object) -> str:
    assert trainer(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_a_file_that_is_there_is_overwritten_only_if_asked(good: Path, capsys: Capture):
    there = written("there.jsonl", row(1))
    assert "there.jsonl is there already\nhint: --force" in refused(capsys, good, "--fix", there)
    assert there.read_text() == json.dumps(row(1)) + "\n"
    assert trainer(good, "--fix", there, "--force") == 0
    assert there.read_bytes() == good.read_bytes()


@pytest.mark.parametrize("fixed", ["good.jsonl", "../{folder}/good.jsonl"])
def test_what_is_checked_is_never_overwritten(good: Path, tmp_path: Path, capsys: Capture, fixed: str):
    before = good.read_bytes()
    printed = refused(capsys, good, "--force", "--fix", fixed.format(folder=tmp_path.name))
    assert "is one of the files that are checked" in printed
    assert good.read_bytes() == before


def test_a_copy_that_cannot_be_written_is_an_error(good: Path, capsys: Capture):
    assert "nowhere/clean.jsonl cannot be written" in refused(capsys, good, "--fix", "nowhere/clean.jsonl")


def test_emails_of_the_held_out_file_are_found(good: Path, capsys: Capture):
    kept = written("kept.jsonl", row(7), row(300))
    assert trainer(good, "--heldout", kept) == 0
    printed = capsys.readouterr().out
    assert "\n   good.jsonl:8\n   -> leave them out: trainer check good.jsonl --heldout kept.jsonl --fix" in printed
    assert printed.endswith("usable with warnings\n")


def test_a_bad_row_of_the_held_out_file_is_an_error(good: Path, capsys: Capture):
    assert "kept.jsonl:1: not JSON" in refused(capsys, good, "--heldout", written("kept.jsonl", "{"))


def test_a_long_list_of_places_is_cut(capsys: Capture):
    trainer(written("many.jsonl", *(row(n, " I am [Your Name].") for n in range(30))))
    printed = capsys.readouterr().out
    assert printed.count("many.jsonl:") - printed.count("many.jsonl: ") == 10
    assert "and 20 more; --json lists all" in printed


def test_json_has_the_whole_report_and_nothing_else_on_stdout(bad: Path, tiny_base: Path, capsys: Capture):
    assert trainer(bad, "--base", tiny_base, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["rows"], report["different"]) == ("not usable", 102, 101)
    assert [finding["name"] for finding in report["findings"]] == ["unusable", "placeholder", "duplicates"]
    assert report["tokens"]["longest"] > 0
    assert "topic" not in json.dumps(report)


def test_emails_longer_than_asked_for_are_not_usable(good: Path, tiny_base: Path, capsys: Capture):
    assert trainer(good, "--base", tiny_base, "--max-length", 64) == 1
    assert "100 emails with more than 64 tokens" in capsys.readouterr().out


def test_without_a_base_model_on_the_machine_tokens_are_not_counted_and_nothing_is_fetched(
    good: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("adapters.models.fetch.fetch", lambda *_, **__: pytest.fail("something is fetched"))
    assert trainer(good) == 0
    assert "note: the tokens were not counted" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_an_error(good: Path, capsys: Capture):
    assert trainer(good, "nowhere.jsonl") == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "error: there is no file nowhere.jsonl"
    assert said.out == ""


def test_of_a_large_cluster_the_first_places_are_shown(capsys: Capture):
    written("many.jsonl", *map(row, range(10)), *[row(3, " Thanks.")] * 8)
    trainer("many.jsonl")
    cluster = " = ".join(f"many.jsonl:{line}" for line in (4, 11, 12, 13))
    assert f"   {cluster} and 5 more\n" in capsys.readouterr().out


def test_the_help_shows_examples(capsys: Capture):
    with pytest.raises(SystemExit):
        trainer("--help")
    assert "trainer check mine.jsonl --fix cleaned.jsonl" in capsys.readouterr().out
