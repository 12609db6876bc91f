"""The real peft and transformers on a tiny random Llama, whose answers are noise: only their count and form matter."""

import json
from pathlib import Path

import pytest

from adapters.store import Store
from tests import tiny
from trainer import evaluate
from trainer.cli import main
from trainer.data import Example, task_example

pytestmark = [pytest.mark.training]
Capture = pytest.CaptureFixture[str]
EMAIL = "Dear Ada,\n\nThank you for 12 chairs.\n\nBest,\nKim"
ROWS = [
    {"task": f"Thank {name} for 12 chairs.", "email": EMAIL, "facts": [[name], ["12 chairs"]], "kind": "thanks"}
    for name in ("Ada", "Bo", "Chidi")
]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MAX_NEW_TOKENS", 12)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path / "tasks.jsonl"


def evaluated(store: Store, base: Path, tasks: Path, *arguments: object) -> int:
    flags = ["--tasks", tasks, "--examples", tasks, "--store", store.directory, "--base", base]
    return main(["evaluate", "formal@2", *[str(part) for part in (*flags, *arguments)]])


def test_evaluate_prints_three_rows_and_what_they_rest_on(store: Store, tiny_base: Path, tasks: Path, capsys: Capture):
    assert evaluated(store, tiny_base, tasks) == 0
    head, *rows, foot = capsys.readouterr().out.splitlines()
    assert head.split() == ["facts", "kept", "all", "kept", "placeholders", "ends", "by", "itself", "words"]
    assert [row[:20].strip() for row in rows] == ["base, no example", "base, one example", "formal@2"]
    assert foot.startswith("3 tasks, base model tiny-llama, greedy; formal@2: recipe ")
    assert "1 emails" in foot


def test_evaluate_as_json_says_base_recipe_and_rows(store: Store, tiny_base: Path, tasks: Path, capsys: Capture):
    assert evaluated(store, tiny_base, tasks, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["base"], printed["recipe"]) == ("tiny-llama", {})
    assert [row["model"] for row in printed["rows"]] == ["base, no example", "base, one example", "formal@2"]
    for row in printed["rows"]:
        assert row["tasks"] == 3
        assert all(0 <= row[share] <= 1 for share in ("facts_kept", "all_kept", "placeholders", "ends_by_itself"))


def test_evaluate_writes_the_answers_of_every_row(store: Store, tiny_base: Path, tasks: Path, tmp_path: Path):
    assert evaluated(store, tiny_base, tasks, "--answers", tmp_path / "answers.json") == 0
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert [len(texts) for texts in answers.values()] == [3, 3, 3]
    assert answers["formal@2"] != answers["base, no example"]


def test_an_adapter_of_another_base_model_is_refused(store: Store, tasks: Path, tmp_path: Path, capsys: Capture):
    other = tiny.make_base(tmp_path / "other-llama", seed=5)
    assert evaluated(store, other, tasks) == 2
    printed = capsys.readouterr().err
    assert "error: formal@2 was trained on another base model (tiny-llama)\n" in printed
    assert f"hint: leave --base out, or give --base {store.resolve('formal@2').manifest().base}\n" in printed


def test_the_base_model_is_the_adapters_own_unless_another_is_given(store: Store, tasks: Path, capsys: Capture):
    flags = ["--tasks", tasks, "--examples", tasks, "--store", store.directory]
    assert main(["evaluate", "formal@2", *map(str, flags)]) == 0
    printed = capsys.readouterr()
    assert "base model tiny-llama" in printed.out
    assert "device CPU, " in printed.err


class Scripted:
    """Stands for the writer: answers every task with the same email, and remembers what it was asked."""

    def __init__(self, answer: str, ended: bool = True) -> None:
        self.answer, self.ended = answer, ended
        self.asked: list[tuple[bool, list[list[dict[str, str]]]]] = []

    def write(self, prompts, use_adapter, advance):
        self.asked.append((use_adapter, prompts))
        return [(self.answer, self.ended) for _ in prompts]


def scripted(monkeypatch: pytest.MonkeyPatch, writer: Scripted, tasks: list[Example], examples: list[Example]):
    monkeypatch.setattr(evaluate, "Writer", lambda *_: writer)
    return evaluate.evaluate(Path("adapter"), "formal@2", Path("base"), tasks, examples, lambda _: None)


def task(name: str, kind: str = "thanks") -> Example:
    return task_example(f"Thank {name} for 12 chairs.", EMAIL, [[name], ["12 chairs"]], kind=kind)


def test_the_shares_are_of_all_facts_and_of_all_tasks(monkeypatch: pytest.MonkeyPatch):
    (row, *_), _ = scripted(monkeypatch, Scripted(EMAIL), [task("Ada"), task("Bo")], [task("Chidi")])
    assert (row.tasks, row.facts_kept, row.all_kept) == (2, 0.75, 0.5)
    assert (row.placeholders, row.ends_by_itself, row.words) == (0, 1, 9)


def test_an_answer_that_is_cut_does_not_end_by_itself(monkeypatch: pytest.MonkeyPatch):
    writer = Scripted("Dear [Name],", ended=False)
    (row, *_), _ = scripted(monkeypatch, writer, [task("Ada")], [task("Chidi")])
    assert (row.ends_by_itself, row.placeholders, row.facts_kept) == (0, 1, 0)


def test_only_the_last_row_uses_the_adapter(monkeypatch: pytest.MonkeyPatch):
    writer = Scripted(EMAIL)
    scripted(monkeypatch, writer, [task("Ada")], [task("Chidi")])
    assert [use_adapter for use_adapter, _ in writer.asked] == [False, False, True]
    (_, plain), (_, with_example), (_, adapters) = writer.asked
    assert plain == adapters == [[{"role": "user", "content": "Thank Ada for 12 chairs."}]]
    assert "Thank Chidi for 12 chairs." in with_example[0][0]["content"]


def test_the_example_is_one_of_the_tasks_kind_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    writer = Scripted(EMAIL)
    examples = [task("Chidi", "thanks"), task("Dagny", "apology")]
    scripted(monkeypatch, writer, [task("Ada", "apology"), task("Bo", "complaint")], examples)
    shown = [messages[0]["content"] for messages in writer.asked[1][1]]
    assert "Thank Dagny" in shown[0]
    assert "Thank Chidi" in shown[1]


def test_the_example_stands_before_the_earlier_turns_of_a_revision(monkeypatch: pytest.MonkeyPatch):
    writer = Scripted(EMAIL)
    revision = task_example("Shorter.", EMAIL, [["Ada"]], previous=[("Thank Ada.", EMAIL)])
    scripted(monkeypatch, writer, [revision], [revision, task("Chidi")])
    (messages,) = writer.asked[1][1]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert "Thank Chidi" in messages[0]["content"]
    assert messages[2]["content"] == "Shorter."


def test_answers_do_not_depend_on_their_batch(store: Store, tiny_base: Path, monkeypatch: pytest.MonkeyPatch):
    writer = evaluate.Writer(tiny_base, store.resolve("formal").path)
    prompts = [[{"role": "user", "content": text}] for text in ("Hi", "Thank Ada for the 12 chairs.", "Greet Bo.")]
    done: list[int] = []
    together = list(writer.write(prompts, use_adapter=True, advance=done.append))
    monkeypatch.setattr(evaluate, "BATCH", 1)
    assert list(writer.write(prompts, use_adapter=True, advance=done.append)) == together
    assert done == [3, 1, 1, 1]
