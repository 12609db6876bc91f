import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from adapters.emails.tasks import shipped_tasks
from adapters.errors import DataError
from trainer.data.check import check, check_before_training, fix, token_counter
from trainer.data.examples import Example, PlacedExample, Problem, read_rows, task_example
from trainer.data.findings import FEW_EMAILS, MIN_EMAILS, CheckReport, Finding

FILE = Path("mine.jsonl")
MAX_LENGTH = 1000


def email(topic: str, extra: str = "", close: str = "Kind regards,") -> str:
    """An email that shares hardly a word with one about another topic."""
    words = " ".join(f"{topic}{number}" for number in range(50))
    return f"Dear {topic},\n\n{words}.{extra}\n\n{close}\nKim"


def rows(*examples: Example, file: Path = FILE) -> list[PlacedExample]:
    return [PlacedExample(file, line, example) for line, example in enumerate(examples, start=1)]


def letters(count: int = FEW_EMAILS, voice: str | None = None) -> list[Example]:
    return [task_example(f"Write to topic{n}x.", email(f"topic{n}x"), voice=voice) for n in range(count)]


def words(examples: Sequence[Example]) -> list[int]:
    return [len(f"{example.task} {example.email}".split()) for example in examples]


def checked(
    examples: Sequence[Example], heldout: Sequence[Example] = (), problems: Sequence[Problem] = ()
) -> CheckReport:
    return check(rows(*examples), problems, words, MAX_LENGTH, rows(*heldout, file=Path("kept.jsonl")))


def found(report: CheckReport, name: str) -> Finding:
    (finding,) = [finding for finding in report.findings if finding.name == name]
    return finding


def test_a_hundred_different_emails_are_ready():
    report = checked(letters())
    assert (report.verdict, report.findings) == ("ready", [])
    assert (len(report.rows), report.different, report.threads) == (FEW_EMAILS, FEW_EMAILS, 0)
    assert report.tokens is not None
    assert report.tokens.longest == max(words(letters()))


def test_labels_are_counted():
    examples = [task_example("Thank Ada.", email(f"t{kind}"), kind=kind, thread=kind) for kind in ("a", "b", "b", None)]
    report = checked(examples)
    assert report.kinds == {"b": 2, "a": 1, "unlabelled": 1}
    assert report.threads == 2


def test_a_few_emails_are_a_warning_and_fewer_than_can_be_held_out_are_not_usable():
    assert checked(letters(FEW_EMAILS - 1)).verdict == "usable with warnings"
    assert checked(letters(MIN_EMAILS)).verdict == "usable with warnings"
    assert checked(letters(MIN_EMAILS - 1)).verdict == "not usable"
    assert checked([]).verdict == "not usable"


def test_copies_do_not_make_a_few_emails_many():
    report = checked(letters(5) * 40)
    assert (report.different, report.verdict) == (5, "not usable")


def test_rows_that_cannot_be_used_are_listed_with_their_reason():
    report = checked(letters(), problems=[Problem(FILE, 7, "not JSON")])
    assert report.verdict == "not usable"
    assert found(report, "unusable").remedy.endswith("trainer check mine.jsonl --fix cleaned.jsonl")
    assert report.as_dict()["unusable"] == [{"file": "mine.jsonl", "line": 7, "reason": "not JSON"}]


def test_an_email_that_is_too_long_is_not_usable_and_the_length_that_takes_it_is_named():
    report = checked([*letters(), task_example("Write.", email("longx", " word" * MAX_LENGTH))])
    finding = found(report, "too_long")
    assert (report.verdict, finding.rows) == ("not usable", (FEW_EMAILS,))
    assert report.tokens is not None
    assert f"--max-length {report.tokens.longest}" in finding.remedy


def test_where_nobody_counts_tokens_the_report_says_so():
    report = check(rows(*letters()), [], None, MAX_LENGTH)
    assert report.tokens is None
    assert found(report, "tokens").level == "notes"
    assert report.verdict == "ready"


@pytest.mark.parametrize(
    ("name", "flawed"),
    [
        ("placeholder", email("flawx", " I am [Your Name].")),
        ("mask", email("flawx", " Call [PHONE].")),
        ("breaks_off", email("flawx").partition(".")[0]),
    ],
)
def test_what_an_adapter_should_not_write_is_a_warning(name: str, flawed: str):
    report = checked([*letters(), task_example("Write.", flawed)])
    assert report.verdict == "usable with warnings"
    assert [finding.name for finding in report.findings] == [name]
    assert found(report, name).rows == (FEW_EMAILS,)


def test_one_email_without_a_sign_off_is_a_matter_of_taste_and_many_are_a_warning():
    bare = [
        task_example("Write.", email(f"bare{n}x", close="Cheerio then my dear old friend of the chairs"))
        for n in range(20)
    ]
    assert checked([*letters(), bare[0]]).verdict == "ready"
    assert len(found(checked([*letters(), *bare]), "no_sign_off").rows) == 20


def test_emails_that_all_begin_alike_are_a_warning():
    same = [task_example("Write.", e.email.replace(",\n\n", ",\n\nI hope this finds you well. ", 1)) for e in letters()]
    assert found(checked(same), "same_opening").level == "warns"


def test_two_voices_in_one_set_are_a_warning():
    assert found(checked([*letters(60, "formal"), *letters(120, "friendly")[60:]]), "voices").level == "warns"


def test_personal_data_is_a_note_and_no_verdict():
    report = checked([*letters(), task_example("Write.", email("mailx", " Ask ada@kite.example."))])
    assert report.personal == {"address": 1}
    assert (found(report, "personal").level, report.verdict) == ("notes", "ready")


def test_exact_and_near_duplicates_are_told_apart():
    first = letters()[0]
    report = checked([*letters(), first, task_example("Write.", first.email.replace("topic0x7", "another"))])
    assert report.exact == ((0, FEW_EMAILS),)
    assert report.near == ((0, FEW_EMAILS, FEW_EMAILS + 1),)
    assert "1 repeat an email exactly, 1 nearly" in found(report, "duplicates").sentence


def test_emails_and_requests_that_are_held_out_are_leaks():
    request = "Please write to the neighbours about the twelve chairs of the fete"
    examples = [*letters(), task_example(request, email("chairx"))]
    heldout = [
        task_example("Other.", letters()[3].email + "!"),
        task_example(f"{request}.", email("elsex")),
        task_example("Other.", email("nowherex")),
    ]
    report = checked(examples, heldout)
    finding = found(report, "leak")
    assert finding.rows == (3, FEW_EMAILS)
    assert finding.remedy.endswith("trainer check mine.jsonl --heldout kept.jsonl --fix cleaned.jsonl")
    assert not checked(examples).flaws["leak"]


def test_two_copies_among_the_held_out_are_no_leak():
    copies = [task_example("Other.", email("keptx"))] * 2
    assert checked(letters(), copies).verdict == "ready"


def test_every_shipped_task_is_recognised_as_it_is_or_nearly():
    shipped = shipped_tasks()
    examples = [task_example(task.task, email(f"own{n}x"), previous=task.previous) for n, task in enumerate(shipped)]
    examples += [task_example(f"{shipped[0].task} Thanks", email("otherx"))]
    assert found(checked(examples), "shipped_task").rows == tuple(range(len(shipped) + 1))


def test_the_report_is_json_and_quotes_no_email():
    examples = [
        *letters(),
        letters()[0],
        task_example("Write.", email("secretx", " I am [Your Name], ada@kite.example.")),
    ]
    told = json.dumps(checked(examples, problems=[Problem(FILE, 7, "not JSON")]).as_dict())
    assert "secretx" not in told
    assert "ada@" not in told
    assert json.loads(told)["near"] == [["mine.jsonl:1", "mine.jsonl:101"]]


def test_every_part_of_the_work_is_announced_and_timed():
    begun: list[str] = []
    report = check(rows(*letters(3)), [], words, MAX_LENGTH, begin=begun.append)
    assert list(report.seconds) == begun


def test_a_cleaned_copy_leaves_out_what_should_not_be_learnt_and_says_why():
    first = letters()[0]
    examples = [
        *letters(),
        first,
        task_example("Write.", first.email.replace("topic0x7", "another")),
        task_example("Write.", email("longx", " word" * MAX_LENGTH)),
        task_example("Write.", email("flawx", " I am [Your Name].")),
    ]
    report = checked(examples, [task_example("Other.", letters()[3].email)], [Problem(FILE, 200, "not JSON")])
    kept, changes = fix(rows(*examples), report)
    assert [row["email"] for row in kept] == [e.email for n, e in enumerate(letters()) if n != 3]
    assert [(change.line, change.reason) for change in changes] == [
        (200, "not JSON"),
        (4, "it is held out"),
        (101, "the same email as mine.jsonl:1"),
        (102, "nearly the same email as mine.jsonl:1"),
        (103, "it is too long"),
        (104, "it has a placeholder"),
    ]


def test_of_duplicates_one_without_a_flaw_stays():
    flawed = task_example("Write.", letters()[0].email.replace("topic0x7", "[Your Name]"))
    examples = [flawed, *letters()]
    kept, changes = fix(rows(*examples), checked(examples))
    assert [change.line for change in changes] == [1]
    assert len(kept) == FEW_EMAILS


def written(tmp_path: Path, *lines: dict[str, Any]) -> Path:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "mine.jsonl"


def test_a_row_that_stays_keeps_the_fields_that_nobody_reads(tmp_path: Path):
    row = {"prompt": "Thank Ada.", "completion": email("ax"), "source": "my mailbox", "facts": ["Ada"]}
    read, problems = read_rows([written(tmp_path, row)])
    assert fix(read, check(read, problems, words, MAX_LENGTH))[0] == [row]


def test_a_conversation_that_loses_one_email_keeps_the_others(tmp_path: Path):
    turns = [
        ("user", "Thank Ada."),
        ("assistant", email("ax")),
        ("user", "Say more."),
        ("assistant", email("bx", " [Your Name]")),
    ]
    whole = [("user", "Thank Bo."), ("assistant", email("cx")), ("user", "Say more."), ("assistant", email("dx"))]
    file = written(tmp_path, *({"messages": [{"role": r, "content": c} for r, c in turns]} for turns in (turns, whole)))
    read, problems = read_rows([file])
    kept, changes = fix(read, check(read, problems, words, MAX_LENGTH))
    assert [change.line for change in changes] == [1]
    again, _ = read_rows([written(tmp_path, *kept)])
    assert [row.example for row in again] == [row.example for row in read if "[Your" not in row.example.email]


TOPICS = st.lists(st.sampled_from(["ax", "bx", "cx", "[Your Name]", "[PHONE]"]), max_size=8)


@given(TOPICS)
@settings(deadline=None, max_examples=30)
def test_a_cleaned_copy_needs_no_cleaning(topics: list[str]):
    examples = [task_example("Write.", email(topic)) for topic in topics]
    kept, _ = fix(rows(*examples), checked(examples))
    again = [task_example(row["task"], row["email"]) for row in kept]
    assert fix(rows(*again), checked(again))[1] == []


def test_tokens_are_counted_as_training_sees_them(tiny_base: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    examples = [task_example("Shorter.", "Dear Ada", previous=[("Thank Ada.", "Dear Ada, thanks")]), *letters(3)]
    one_by_one = [
        len(
            tokenizer.apply_chat_template([*e.messages, {"role": "assistant", "content": e.email}], return_dict=True)[
                "input_ids"
            ]
        )
        for e in examples
    ]
    assert token_counter(tokenizer)(examples) == one_by_one


def test_before_training_emails_that_are_too_long_are_all_refused(tiny_base: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with pytest.raises(DataError, match="2 emails are too long") as caught:
        check_before_training([*letters(2), task_example("Thank.", "Dear Ada")], tokenizer, 100, lambda _: None)
    assert caught.value.problems[0].startswith("email 1 ('Write to topic0x.'...) has ")
    assert caught.value.problems[0].endswith(" tokens with its task, at most 100")
    assert "--max-length" in caught.value.hint


def test_before_training_every_warning_is_one_line(tiny_base: Path):
    said: list[str] = []
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    shipped = task_example(shipped_tasks()[0].task, email("ax"))
    check_before_training([*letters(), letters()[0], shipped], tokenizer, 10_000, said.append)
    assert [line.partition(":")[0] for line in said] == ["warning"] * 2
    assert "shipped evaluation" in said[0]
    assert "duplicates" in said[1]
    assert not any("\n" in line for line in said)


def test_before_training_good_emails_are_passed_in_silence(tiny_base: Path):
    said: list[str] = []
    check_before_training(letters(), AutoTokenizer.from_pretrained(tiny_base), 10_000, said.append)
    assert said == []
