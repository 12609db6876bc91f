import csv
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import ConfigError
from trainer.mail.mailboxes import MailItem
from trainer.mail.message import Mail, UnreadableMail
from trainer.mail.tables import parse_columns, read

ROWS = [
    {
        "Subject": "Oars",
        "To": "Anna Berg <anna@berg.example>",
        "Body": "Hi Anna,\n\n12 oars; all red.\n\nBob",
        "Date": "2025-03-03",
    },
    {"Subject": "Keys", "To": "Ines Duarte", "Body": 'Hi Ines,\n\nfind 3 keys, "please".\n\nBob', "Date": "nonsense"},
]


def rows(file: Path, **columns: str) -> list[MailItem]:
    return list(read(file, columns, lambda _: None))


def mails(file: Path, **columns: str) -> list[Mail]:
    return [one.item for one in rows(file, **columns) if isinstance(one.item, Mail)]


def written_csv(file: Path, delimiter: str, encoding: str = "utf-8", table: list[dict[str, str]] = ROWS) -> Path:
    with file.open("w", encoding=encoding, newline="") as stream:
        writer = csv.DictWriter(stream, table[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(table)
    return file


def parquet(file: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    return file


def json_list(file: Path) -> Path:
    file.write_text(json.dumps(ROWS))
    return file


def json_lines(file: Path) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in ROWS))
    return file


@pytest.mark.parametrize(
    "kind", ["comma.csv", "semicolon.csv", "tab.tsv", "list.json", "lines.jsonl", "lines.json", "t.parquet"]
)
def test_every_kind_of_table_gives_the_same_mail(tmp_path: Path, kind: str):
    delimiters = {"comma.csv": ",", "semicolon.csv": ";", "tab.tsv": "\t"}
    file = tmp_path / kind
    if kind in delimiters:
        written_csv(file, delimiters[kind])
    else:
        {"list.json": json_list, "t.parquet": parquet}.get(kind, json_lines)(file)
    first, second = mails(file)
    assert (first.subject, first.recipients) == ("Oars", (("Anna Berg", "anna@berg.example"),))
    assert (first.text, first.sender) == ("Hi Anna,\n\n12 oars; all red.\n\nBob", "")
    assert second.recipients == (("Ines Duarte", "ines duarte"),)
    assert second.text == 'Hi Ines,\n\nfind 3 keys, "please".\n\nBob'


def test_a_row_of_a_csv_stands_at_its_own_line(tmp_path: Path):
    (tmp_path / "t.csv").write_text(
        'subject,body\nOars,"one\ntwo"\n\nKeys,three\nBoat,' + "x" * 1_100_000 + "\nBuoy,five\n"
    )
    assert [one.where.rpartition(":")[2] for one in rows(tmp_path / "t.csv")] == ["2", "5", "6", "7"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_a_csv_in_another_encoding_is_read(tmp_path: Path, encoding: str):
    table = [{"subject": f"Fähre {n}", "body": "Die Fähre fährt früh über den schönen Fluß."} for n in range(20)]
    assert mails(written_csv(tmp_path / "t.csv", ",", encoding, table))[3].subject == "Fähre 3"


def test_columns_may_be_named(tmp_path: Path):
    file = written_csv(tmp_path / "t.csv", ",", table=[{"Betreff": "Oars", "Inhalt": "Ruder, 12.", "Faden": "7"}])
    (mail,) = mails(file, body="Inhalt", thread="faden")
    assert (mail.subject, mail.text, mail.thread) == ("Oars", "Ruder, 12.", "7")


def test_a_table_without_a_column_of_emails_is_an_error_that_lists_its_columns(tmp_path: Path):
    file = written_csv(tmp_path / "t.csv", ",", table=[{"Inhalt": "x", "n": "1"}])
    with pytest.raises(ConfigError, match="its columns are: Inhalt, n") as caught:
        rows(file)
    assert "--columns body=COLUMN" in caught.value.hint
    with pytest.raises(ConfigError, match="has no column Text"):
        rows(file, body="Text")


def test_columns_are_parsed():
    assert parse_columns("body=Text, subject=Betreff") == {"body": "Text", "subject": "Betreff"}


@pytest.mark.parametrize("text", ["", "Text", "mail=Text", "body="])
def test_columns_that_are_none_are_refused(text: str):
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_columns(text)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}]},
        {"prompt": "a", "completion": "b"},
        {"task": "a", "email": "b"},
    ],
)
def test_a_row_that_is_an_example_is_passed_on(tmp_path: Path, row: dict[str, Any]):
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    assert [one.item for one in rows(tmp_path / "t.jsonl")] == [row]


def test_a_row_that_cannot_be_read_stands_between_others(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text(
        '{"body": "one"}\n{\n\n7\n{"body": ' + json.dumps("x" * 300_000) + '}\n{"body": "two"}\n'
    )
    found = rows(tmp_path / "t.jsonl")
    assert [one.where.rpartition(":")[2] for one in found] == ["1", "2", "4", "5", "6"]
    reasons = [str(one.item) for one in found if isinstance(one.item, UnreadableMail)]
    assert reasons == ["it is not JSON", "it is not a JSON object", "its text is longer than 256 KiB"]


def test_a_line_of_many_megabytes_is_one_row(tmp_path: Path):
    long = '{"body": "' + "x" * 5_000_000 + '"}'
    (tmp_path / "t.jsonl").write_text(f'{{"body": "one"}}\n{long}\n{{"body": "two"}}\n')
    assert [one.where.rpartition(":")[2] for one in rows(tmp_path / "t.jsonl")] == ["1", "2", "3"]


def test_html_in_a_table_is_read_as_text(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"body": "<div>Hi <b>Anna</b></div><blockquote>old</blockquote>"}))
    assert mails(tmp_path / "t.jsonl")[0].text == "Hi Anna"


@pytest.mark.parametrize("name", ["t.parquet", "t.json"])
def test_a_file_that_is_not_what_it_is_called_is_an_error(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"[PAR nothing")
    with pytest.raises(ConfigError, match="is not"):
        rows(tmp_path / name)


@settings(deadline=None)
@given(data=st.binary(max_size=300), kind=st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet"]))
def test_no_bytes_raise_anything_but_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str):
    file = tmp_path_factory.getbasetemp() / f"any.{kind}"
    file.write_bytes(data)
    with suppress(ConfigError):
        rows(file)
