"""The command as a user runs it; the models are the real peft and transformers on a tiny random Llama: noise."""

import json
import re
from pathlib import Path

import pytest

from adapters.models.base_models import BaseModel
from adapters.store.manifest import Comparison, Manifest, Row, Verdict
from adapters.store.store import Store
from tests import tiny
from trainer.cli import main
from trainer.commands import evaluate
from trainer.commands.evaluate import report, sentence
from trainer.compute.device import choose
from trainer.evaluation import forgetting, writers
from trainer.evaluation.results import Answer, Result

pytestmark = [pytest.mark.training]
Capture = pytest.CaptureFixture[str]
EMAIL = "Dear Ada,\n\nThank you for 12 chairs.\n\nBest,\nKim"
ROWS = [
    {"task": f"Thank {name} for 12 chairs.", "email": EMAIL, "facts": [[name], ["12 chairs"]], "kind": "thanks"}
    for name in ("Ada", "Bo", "Chidi")
]
MODELS = ["base", "base, 1 example", "base, 3 examples", "promoted: formal@1", "formal@2"]


@pytest.fixture(autouse=True)
def little_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "MAX_NEW_TOKENS", 12)
    monkeypatch.setattr(forgetting, "measure", lambda *_: {"forgetting": 0.012, "answers_like_emails": 0.0})
    monkeypatch.delenv("MAILWRIGHT_SERVER", raising=False)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path / "tasks.jsonl"


def evaluated(store: Store, tasks: Path, *arguments: object) -> int:
    flags = ["--tasks", tasks, "--examples", tasks, "--store", store.directory, "--server", "none"]
    return main(["evaluate", "formal@2", *[str(part) for part in (*flags, *arguments)]])


def test_it_prints_a_table_a_verdict_and_what_they_rest_on(store: Store, tasks: Path, capsys: Capture):
    assert evaluated(store, tasks) == 0
    printed = capsys.readouterr()
    head, *rows = printed.out.splitlines()
    assert "sendable emails" in head
    assert "facts kept" in head
    assert [row.partition("  ")[0] for row in rows[:5]] == MODELS
    assert all(re.search(r"0 % \(0 to 0 %\)", row) for row in rows[:5])
    assert "no difference shown between formal@2 and base (sendable +0.00, 95 % interval 0.00 to 0.00)" in rows
    assert "forgetting 1.2 %" in printed.out
    assert "3 tasks, greedy, in process, " in printed.out
    assert rows[-1].startswith("base model tiny-llama; formal@2: recipe ")
    assert "1 emails" in rows[-1]
    assert f"written in process, cpu {choose().dtype}" in printed.err
    assert " left" in printed.err


def test_as_json_it_is_the_whole_result(store: Store, tasks: Path, capsys: Capture):
    assert evaluated(store, tasks, "--json") == 0
    result = Result.model_validate_json(capsys.readouterr().out)
    assert [row.model for row in result.rows] == MODELS
    assert (result.version, result.base, result.tasks) == ("formal@2", "tiny-llama", 3)
    own, base = result.row("formal@2"), result.row("base")
    assert own
    assert base
    assert own.figures["heldout_loss"] != base.figures["heldout_loss"]
    assert result.forgetting["forgetting"] == 0.012
    assert "copied_8grams" in result.memorisation
    assert len(result.pairs) == 3


def test_full_takes_three_more_answers_to_each_task(store: Store, tasks: Path, tmp_path: Path, capsys: Capture):
    assert evaluated(store, tasks, "--full", "--json", "--answers", tmp_path / "answers.json") == 0
    assert json.loads(capsys.readouterr().out)["decoding"] == "greedy and 3 seeds at temperature 0.7"
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert {row: [len(task) for task in tasks] for row, tasks in answers.items()} == {row: [4, 4, 4] for row in MODELS}
    assert answers["formal@2"] != answers["base"]


def test_the_promoted_version_has_no_row_beside_itself(store: Store, tasks: Path, capsys: Capture):
    flags = ["--tasks", tasks, "--examples", tasks, "--store", store.directory, "--server", "none", "--json"]
    assert main(["evaluate", "formal", *map(str, flags)]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["model"] for row in rows] == [*MODELS[:3], "formal@1"]


def test_a_page_and_a_card_are_written_where_they_are_wanted(store: Store, tasks: Path, tmp_path: Path):
    assert evaluated(store, tasks, "--html", tmp_path / "page.html", "--card", tmp_path / "card.md") == 0
    assert "formal@2" in (tmp_path / "page.html").read_text()
    assert "formal" in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize("flag", ["--answers", "--html", "--card"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    store: Store, tasks: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, flag: str
):
    monkeypatch.setattr(evaluate, "_writer", lambda *_: pytest.fail("ten minutes were spent for nothing"))
    assert evaluated(store, tasks, flag, tmp_path / "nowhere" / "file") == 2
    assert f"there is no directory {tmp_path / 'nowhere'}" in capsys.readouterr().err


@pytest.mark.parametrize("voice", ["mine", "questions", "everyday"])
def test_without_emails_of_its_own_nothing_is_said_of_memory(
    store: Store, tasks: Path, base_model: BaseModel, capsys: Capture, voice: str
):
    tiny.publish(store, base_model, voice, 7)
    flags = ["--tasks", tasks, "--store", store.directory, "--server", "none", "--json"]
    assert main(["evaluate", voice, *map(str, flags)]) == 0
    assert json.loads(capsys.readouterr().out)["memorisation"] == {}


def test_an_adapter_of_another_base_model_is_refused(store: Store, tasks: Path, tmp_path: Path, capsys: Capture):
    other = tiny.make_base(tmp_path / "other-llama", seed=5)
    assert evaluated(store, tasks, "--base", other) == 2
    printed = capsys.readouterr().err
    assert "error: formal@2 was trained on another base model (tiny-llama)\n" in printed
    assert f"hint: leave --base out, or give --base {store.resolve('formal@2').manifest().base}\n" in printed


def test_a_server_that_was_asked_for_and_does_not_fit_is_an_error(store: Store, tasks: Path, capsys: Capture):
    assert evaluated(store, tasks, "--server", "http://127.0.0.1:1") == 2
    printed = capsys.readouterr().err
    assert "error: no Mailwright server answers at http://127.0.0.1:1 (ConnectError)\n" in printed
    assert "--server none" in printed


def test_the_environment_names_the_server_too(
    store: Store, tasks: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MAILWRIGHT_SERVER", "http://127.0.0.1:1/v1")
    assert main(["evaluate", "formal@2", "--tasks", str(tasks), "--store", str(store.directory)]) == 2
    assert "http://127.0.0.1:1 " in capsys.readouterr().err


class Elsewhere(writers.ThroughServer):
    def write(self, model, prompts, seed, advance):
        advance(len(prompts))
        return [Answer(f"{model} wrote this", True) for _ in prompts]


def test_a_server_on_this_machine_that_fits_writes_without_being_asked_for(
    store: Store, tasks: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def reason_against_server(address, versions, base):
        asked.append((address, [version.id for version in versions], base))
        return ""

    monkeypatch.setattr(writers, "reason_against_server", reason_against_server)
    monkeypatch.setattr(writers, "ThroughServer", Elsewhere)
    monkeypatch.setattr(writers, "InProcess", lambda *_: pytest.fail("a model was loaded for nothing"))
    flags = ["--tasks", tasks, "--examples", tasks, "--store", store.directory]
    assert main(["evaluate", "formal@2", *map(str, flags)]) == 0
    assert asked == [("http://127.0.0.1:8000", ["formal@2", "formal@1"], "tiny-llama")]
    printed = capsys.readouterr()
    assert "written through http://127.0.0.1:8000" in printed.err
    assert "greedy, http://127.0.0.1:8000" in printed.out
    assert "forgetting" not in printed.out


def test_a_server_on_this_machine_that_does_not_fit_is_left_alone(
    store: Store, tasks: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writers, "reason_against_server", lambda *_: "it serves another store")
    flags = ["--tasks", tasks, "--examples", tasks, "--store", store.directory]
    assert main(["evaluate", "formal@2", *map(str, flags)]) == 0
    assert "written in process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("better", "formal@2 is better than base (sendable +0.21, 95 % interval 0.10 to 0.33)"),
        ("worse", "formal@2 is worse than base (sendable +0.21, 95 % interval 0.10 to 0.33)"),
        (
            "no difference shown",
            "no difference shown between formal@2 and base (sendable +0.21, 95 % interval 0.10 to 0.33)",
        ),
    ],
)
def test_a_verdict_is_a_sentence_with_its_interval(verdict: Verdict, words: str):
    found = Comparison(against="base", figure="sendable", difference=0.21, low=0.1, high=0.33, verdict=verdict)
    assert sentence(result([found]), found) == words


def test_only_the_primary_figure_gets_a_sentence(store: Store):
    found = [
        Comparison(against="base", figure=figure, difference=0.2, low=0.1, high=0.3, verdict="better")
        for figure in ("sendable", "facts_kept", "facts_invented")
    ]
    printed = report(result(found), store.resolve("formal@2").manifest())
    assert [line for line in printed if " is better than " in line] == [sentence(result(found), found[0])]


def test_an_imported_version_says_that_its_training_is_unknown(store: Store):
    manifest = store.resolve("formal@2").manifest()
    imported = Manifest.model_validate(manifest.model_dump() | {"training": None})
    assert report(result([]), imported)[-1] == "base model tiny-llama; formal@2: imported"


def result(comparisons: list[Comparison]) -> Result:
    return Result(
        version="formal@2",
        base="tiny-llama",
        tasks=3,
        tasks_sha256="0" * 64,
        decoding="greedy",
        through="in process",
        machine="two cores",
        seconds=90,
        rows=[Row(model="formal@2", figures={"sendable": 0.5}, low={"sendable": 0.25}, high={"sendable": 0.75})],
        comparisons=comparisons,
    )
