import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import ConfigError, DataError
from trainer.data.examples import (
    Example,
    Problem,
    digest,
    groups,
    read_examples,
    read_rows,
    row_of,
    split,
    task_example,
    write_rows,
)

# The first split of a process loads datasketch.
unhurried = settings(deadline=None)
TASK = {"task": "Thank Ada.", "email": "Dear Ada,\n\nThank you.\n\nKind regards,\nKim"}


def written(directory: Path, *rows: Any, name: str = "emails.jsonl") -> Path:
    """A JSONL file of `rows`; a text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (directory / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory / name


def only(file: Path) -> Example:
    (example,) = read_examples([file])
    return example


def problems(*files: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_examples(files)
    return caught.value.problems


def test_a_row_of_task_and_email(tmp_path: Path):
    example = only(written(tmp_path, TASK))
    assert example.messages == ({"role": "user", "content": "Thank Ada."},)
    assert example.email == TASK["email"]
    assert (example.facts, example.voice, example.kind) == ((), None, None)


def test_a_row_may_say_facts_voice_and_kind(tmp_path: Path):
    row = TASK | {"facts": [["14 May", "May 14"], "Ada"], "voice": "formal", "kind": "thanks", "id": "x-1"}
    example = only(written(tmp_path, row))
    assert example.facts == (("14 May", "May 14"), ("Ada",))
    assert (example.voice, example.kind) == ("formal", "thanks")


def test_a_row_may_have_earlier_turns(tmp_path: Path):
    example = only(written(tmp_path, TASK | {"task": "Shorter.", "previous": [TASK]}))
    assert [message["role"] for message in example.messages] == ["user", "assistant", "user"]
    assert example.messages[1]["content"] == TASK["email"]
    assert example.task == "Shorter."


def test_a_row_of_prompt_and_completion_is_the_same_example(tmp_path: Path):
    row = {"prompt": TASK["task"], "completion": TASK["email"]}
    assert only(written(tmp_path, row)) == task_example(TASK["task"], TASK["email"])


def test_prompt_and_completion_may_be_messages(tmp_path: Path):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Thank Ada."}]
    row = {"prompt": prompt, "completion": [{"role": "assistant", "content": "Dear Ada"}]}
    example = only(written(tmp_path, row))
    assert example.messages == tuple(prompt)
    assert example.email == "Dear Ada"


def test_a_prompt_of_several_turns_teaches_its_completion_only(tmp_path: Path):
    first = [{"role": "user", "content": "Thank Ada."}, {"role": "assistant", "content": "Dear Ada"}]
    row = {
        "prompt": [*first, {"role": "user", "content": "Warmer."}],
        "completion": [{"role": "assistant", "content": "Hi Ada"}],
    }
    assert only(written(tmp_path, row)).email == "Hi Ada"


def test_a_conversation_teaches_each_of_its_emails(tmp_path: Path):
    turns = [("user", "Thank Ada."), ("assistant", "Dear Ada"), ("user", "Warmer."), ("assistant", "Hi Ada")]
    examples = read_examples(
        [written(tmp_path, {"messages": [{"role": role, "content": text} for role, text in turns]})]
    )
    assert [(example.task, example.email) for example in examples] == [
        ("Thank Ada.", "Dear Ada"),
        ("Warmer.", "Hi Ada"),
    ]
    assert len(examples[1].messages) == 3


def test_a_json_list_and_json_lines_give_the_same(tmp_path: Path):
    rows = [TASK, TASK | {"task": "Thank Bo."}]
    (tmp_path / "my_email_dataset.json").write_text(json.dumps(rows, indent=2))
    assert read_examples([tmp_path / "my_email_dataset.json"]) == read_examples([written(tmp_path, *rows)])


def test_a_byte_order_mark_and_empty_lines_do_no_harm(tmp_path: Path):
    file = tmp_path / "from_windows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(TASK).encode() + b"\r\n\r\n  \r\n")
    assert only(file).task == "Thank Ada."


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0c"])
def test_a_line_of_json_ends_at_a_newline_only(tmp_path: Path, mark: str):
    assert only(written(tmp_path, TASK | {"email": f"Dear Ada,{mark}Kim"})).email == f"Dear Ada,{mark}Kim"


def test_several_files_are_read_in_order(tmp_path: Path):
    first, second = written(tmp_path, TASK, name="a"), written(tmp_path, TASK | {"task": "Thank Bo."}, name="b")
    assert [example.task for example in read_examples([second, first])] == ["Thank Bo.", "Thank Ada."]


def test_space_around_texts_is_dropped(tmp_path: Path):
    assert only(written(tmp_path, {"task": "\n Thank Ada. ", "email": "Dear Ada\n\n"})).email == "Dear Ada"


def test_exact_repeats_are_dropped(tmp_path: Path):
    as_prompt = {"prompt": TASK["task"], "completion": TASK["email"] + "\n"}
    other = written(tmp_path, as_prompt, TASK | {"task": "Thank Bo."}, name="other")
    assert [e.task for e in read_examples([written(tmp_path, TASK, TASK), other])] == ["Thank Ada.", "Thank Bo."]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON"),
        ("7", "a row must be a JSON object, not int"),
        ([TASK], "must be a JSON object, not list"),
        ({}, "it has none of task/email"),
        ({"text": "Dear Ada"}, "it has none of task/email, prompt/completion and messages, but 'text'"),
        ({"task": "Thank Ada."}, "'email' must be a text"),
        ({"email": "Dear Ada"}, "'task' must be a text"),
        (TASK | {"email": "  "}, "'email' must be a text that is not empty"),
        (TASK | {"email": ["Dear Ada"]}, "'email' must be a text that is not empty, got list"),
        (TASK | {"previous": ["Dear Ada"]}, "'task' must be a text"),
        ({"prompt": "Thank Ada."}, "'completion' must be a text"),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, "'completion' must be a list of messages"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": "Thank Ada."}, "messages must be a list"),
        ({"messages": [{"role": "user", "content": "a"}]}, "it has no assistant message"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "must follow a user message"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "a message needs a role of system, user, assistant"),
        ({"messages": [{"role": "user"}]}, "'content' must be a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_row_is_named_with_its_line_and_reason(tmp_path: Path, row: Any, reason: str):
    file = written(tmp_path, TASK, row)
    (problem,) = problems(file)
    assert problem.startswith(f"{file}:2: ")
    assert reason in problem


@pytest.mark.parametrize(
    "field",
    [
        {"facts": 7},
        {"facts": [7]},
        {"facts": [[7]]},
        {"facts": [[]]},
        {"facts": "14 May"},
        {"facts": [""]},
        {"previous": 7},
        {"voice": ["formal"]},
    ],
    ids=str,
)
def test_a_wrong_extra_field_is_a_bad_row_like_any_other(tmp_path: Path, field: dict[str, Any]):
    file = written(tmp_path, TASK, TASK | field)
    (problem,) = problems(file)
    assert problem.startswith(f"{file}:2: ")
    assert next(iter(field)) in problem


@pytest.mark.parametrize("field", ["facts", "previous", "voice", "kind"])
def test_a_null_field_counts_as_absent(tmp_path: Path, field: str):
    assert only(written(tmp_path, TASK | {field: None})) == task_example(TASK["task"], TASK["email"])


def test_all_bad_rows_of_all_files_are_listed_at_once(tmp_path: Path):
    first = written(tmp_path, TASK, "{", {"task": "x"}, name="first.jsonl")
    second = written(tmp_path, "[", name="second.json")
    listed = problems(first, second, tmp_path / "nowhere.jsonl")
    assert [line.partition(": ")[0] for line in listed] == [
        f"{first}:2",
        f"{first}:3",
        f"{second}:2",
        str(tmp_path / "nowhere.jsonl"),
    ]


def test_the_error_says_how_many_rows_are_bad(tmp_path: Path):
    with pytest.raises(DataError, match="2 rows cannot be used") as caught:
        read_examples([written(tmp_path, "{", "{", TASK)])
    assert caught.value.hint


def test_a_bad_row_of_a_json_list_is_named_by_its_number(tmp_path: Path):
    file = written(tmp_path, json.dumps([TASK, {"task": "x"}], indent=1), name="list.json")
    (problem,) = problems(file)
    assert problem.startswith(f"{file}:2: 'email'")


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    (tmp_path / "mail.bin").write_bytes(b"\xff\xfe\x00")
    (problem,) = problems(tmp_path / "mail.bin")
    assert problem.startswith(f"{tmp_path / 'mail.bin'}: cannot be read")


@pytest.mark.parametrize("text", ["", "\n\n", "[]"])
def test_a_file_without_emails_is_an_error(tmp_path: Path, text: str):
    (tmp_path / "empty.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"no emails in .*empty\.jsonl"):
        read_examples([tmp_path / "empty.jsonl"])


def numbered(count: int) -> list[Example]:
    return [task_example(f"task {number}", f"email {number}") for number in range(count)]


@given(st.integers(0, 200), st.floats(0, 0.99), st.integers())
@unhurried
def test_a_split_is_disjoint_complete_and_the_same_for_the_same_seed(count: int, fraction: float, seed: int):
    examples = numbered(count)
    train, heldout = split(examples, fraction, seed)
    assert sorted(e.task for e in train + heldout) == sorted(e.task for e in examples)
    assert split(examples, fraction, seed) == (train, heldout)
    assert abs(len(heldout) - count * fraction) <= 1
    assert train or not count


@given(st.integers(10, 200), st.floats(0.0001, 0.1), st.integers())
@unhurried
def test_of_ten_emails_at_least_one_is_held_out(count: int, fraction: float, seed: int):
    assert split(numbered(count), fraction, seed)[1]


def test_nothing_is_held_out_where_nobody_asked_for_it():
    assert split(numbered(20), 0, seed=1)[1] == []


GROUPED = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), max_size=30)


@given(GROUPED, st.floats(0, 0.99), st.integers())
@unhurried
def test_no_thread_is_in_both_parts(threads: list[str | None], fraction: float, seed: int):
    examples = [task_example(f"t{n}", f"e{n}", thread=thread) for n, thread in enumerate(threads)]
    train, heldout = split(examples, fraction, seed)
    assert sorted(e.task for e in train + heldout) == sorted(e.task for e in examples)
    assert not {e.thread for e in train} & {e.thread for e in heldout} - {None}


def letter(topic: str, size: int = 60) -> str:
    """An email of `size` words that shares none with a letter about another topic."""
    return " ".join(f"{topic}{number}" for number in range(size))


def test_near_duplicates_are_in_one_part():
    examples = [
        task_example(f"{topic} {copy}", f"{letter(topic)} {copy}") for topic in "abcdefghij" for copy in ("x", "y")
    ]
    for seed in range(20):
        train, heldout = split(examples, 0.2, seed)
        assert len(heldout) == 4
        assert not {e.email[:2] for e in train} & {e.email[:2] for e in heldout}


def test_the_same_long_request_is_in_one_part_and_a_short_one_is_not():
    long = [task_example(letter("a", 20), f"email {number}") for number in range(2)]
    short = [task_example("Shorter, please.", letter(topic)) for topic in "bc"]
    assert groups([*long, *short]) == [[0, 1], [2], [3]]


def test_the_same_short_request_after_the_same_email_is_in_one_part():
    turns = [(letter("a", 9), letter("b"))]
    revisions = [task_example("Shorter.", f"email {number}", previous=turns) for number in range(2)]
    assert groups(revisions) == [[0, 1]]


def test_where_all_are_one_thread_nothing_is_held_out():
    examples = [task_example(f"t{n}", f"e{n}", thread="a") for n in range(20)]
    train, heldout = split(examples, 0.5, seed=1)
    assert (len(train), heldout) == (20, [])


def test_a_group_that_is_larger_than_what_was_asked_for_is_held_out_where_there_is_no_smaller():
    examples = [task_example(f"t{n}", f"e{n}", thread=str(n % 4)) for n in range(12)]
    assert len(split(examples, 0.01, seed=1)[1]) == 3


def test_rows_are_read_with_their_places_and_problems(tmp_path: Path):
    file = written(tmp_path, TASK, "{", TASK, {"task": "x"})
    rows, problems = read_rows([file, tmp_path / "nowhere"])
    assert [(row.file, row.line, row.example.task, row.raw) for row in rows] == [
        (file, 1, "Thank Ada.", TASK),
        (file, 3, "Thank Ada.", TASK),
    ]
    assert [(problem.file, problem.line) for problem in problems] == [(file, 2), (file, 4), (tmp_path / "nowhere", 0)]
    assert str(problems[0]).startswith(f"{file}:2: not JSON")
    assert isinstance(problems[2], Problem)


@pytest.mark.parametrize(
    "row", ["[" * 100_000, '{"task": ' + "1" * 10_000 + "}", json.dumps(TASK).replace("Ada", r"\ud800")]
)
def test_a_hostile_row_is_a_bad_row_like_any_other(tmp_path: Path, row: str):
    file = written(tmp_path, TASK, row)
    rows, problems = read_rows([file])
    assert [row.line for row in rows] == [1]
    assert [problem.line for problem in problems] == [2]


def test_a_bad_row_is_not_quoted(tmp_path: Path):
    (problem,) = problems(written(tmp_path, TASK | {"facts": [["a secret", ""]]}))
    assert "secret" not in problem


@pytest.mark.parametrize(
    "row",
    [
        TASK,
        TASK | {"facts": [["14 May", "May 14"]], "voice": "formal", "kind": "thanks", "thread": "1"},
        TASK | {"previous": [TASK, TASK | {"task": "Warmer."}]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                *task_example("a", "b").messages,
                {"role": "assistant", "content": "b"},
            ]
        },
    ],
    ids=["task", "labels", "turns", "system"],
)
def test_an_example_makes_a_row_that_reads_as_the_example(tmp_path: Path, row: dict[str, Any]):
    example = only(written(tmp_path, row))
    assert only(written(tmp_path, row_of(example))) == example


def test_another_seed_splits_otherwise():
    assert split(numbered(50), 0.2, seed=1) != split(numbered(50), 0.2, seed=2)


@pytest.mark.parametrize(
    "other",
    [
        task_example("task 0", "other"),
        task_example("other", "email 0"),
        task_example("task 0", "email 0", previous=[("a", "b")]),
    ],
)
def test_the_digest_changes_with_task_email_and_earlier_turns(other: Example):
    assert digest([other]) != digest(numbered(1))
    assert digest(numbered(1)) == digest(numbered(1))


def test_the_digest_depends_on_the_order():
    assert digest(numbered(2)) != digest(reversed(numbered(2)))


def test_rows_are_for_the_users_eyes_only_and_a_failure_leaves_the_old_file(tmp_path: Path):
    file = tmp_path / "bob.jsonl"
    write_rows([{"task": "a", "email": "é"}], file)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        write_rows([{"task": object()}], file)
    assert json.loads(file.read_text(encoding="utf-8")) == {"task": "a", "email": "é"}
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be written"):
        write_rows([], tmp_path / "none" / "bob.jsonl")
