import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import ConfigError, DataError
from tests.trainer import mailbox
from tests.trainer.mail.test_message import PIECES
from tests.trainer.mailbox import mbox, message
from trainer.data.examples import read_examples, write_rows
from trainer.mail.importer import Draft, ImportReport, Options, Progress, read_mail

QUESTION = {"sender": "Anna Berg <anna@berg.example>", "to": "Bob Smith <bob@smith.example>"}
ME = Options(me=("bob@smith.example",))


def imported(
    directory: Path, *messages: bytes, options: Options = ME, name: str = "All.mbox"
) -> tuple[list[Any], ImportReport]:
    return read_mail(mbox(directory, messages, name), options)


def test_a_mailbox_of_1000_messages_becomes_examples(tmp_path: Path):
    rounds = 1000 // mailbox.ROUND
    rows, report = read_mail(mbox(tmp_path, mailbox.whole_mailbox(1000)), Options())
    assert (report.read, report.used, report.replies) == (1000, mailbox.USED * rounds, mailbox.REPLIES * rounds)
    assert report.left_out == {reason: count * rounds for reason, count in mailbox.LEFT_OUT.items()}
    assert (report.me, report.me_guessed) == (("bob@smith.example",), True)
    write_rows(rows, tmp_path / "bob.jsonl")
    examples = read_examples([tmp_path / "bob.jsonl"])
    assert len(examples) == report.used
    assert not [example for example in examples if "7946" in example.email or "Pay your fees" in example.email]
    assert len({example.thread for example in examples}) == report.threads

    numbered = {row["email"].split("\n")[0]: row for row in rows}
    for style in range(4):
        row = numbered[f"Subject: Re: Oars 7-{style}"]
        assert row["email"].endswith(
            "\n\nHi Ines,\n\nIt needs 11 oars, and Pavel Marsh brings them on 14 May.\n\nBest,\nBob"
        )
        assert row["task"].endswith(
            "from Ines Duarte:\n> Hi Bob,\n>\n> how many oars does boat 107 need?\n>\n> Thanks\n> Ines"
        )
        assert "11 oars" in row["task"]
        assert ["Pavel Marsh"] in row["facts"]
        assert ["14 May"] in row["facts"]
    assert numbered["Subject: Keys 7"]["email"].endswith("Hi Anna,\n\nThe 10 keys are in the shed.\n\nCheers,\nBob")
    assert numbered["Subject: Keys 7"]["task"].endswith("from Anna Berg:\n> Where are they?")
    assert "30 members" in numbered["Subject: Fees 0"]["task"]
    assert "die große Fähre fährt um 15:15 Uhr über den Fluß." in numbered["Subject: Fähre 7"]["email"]
    assert "the ferry with its 12 seats goes at noon." in numbered["Subject: Ferry 7"]["email"]


def test_hostile_mail_gets_a_line_and_stops_nothing(tmp_path: Path):
    hostile = [
        *(mailbox.long_line(), mailbox.deep(), mailbox.broken_charset(), mailbox.endless_headers(), mailbox.bomb()),
        *mailbox.conversation_round(0),
    ]
    _, report = imported(tmp_path, *hostile)
    assert report.used == mailbox.USED + 2
    assert report.left_out["unreadable"] == 3
    assert [line.partition(", message ")[2] for line in report.problems] == [
        "1: its text is longer than 256 KiB",
        "2: its parts are nested too deep",
        "4: its headers are longer than 256 KiB",
    ]
    assert [line.partition(", message ")[2] for line in report.notes][:2] == [
        "3: its text is not in the charset that it names; read as the likeliest other",
        "5: an archive is attached; it was not opened",
    ]


def test_the_message_answered_comes_from_the_mailbox_else_from_the_quote(tmp_path: Path):
    quoted = "> Is it red?\n>\n> On 1 March 2025, Bob wrote:\n>> Old.\n"
    asked = message("Is it red?\n\nAnna", Message_ID="<q@x>", **QUESTION)
    answer = message(f"Yes, it is.\n\nBob\n\nOn 3 March 2025, Anna Berg wrote:\n{quoted}", In_Reply_To="<q@x>")
    for messages in ([asked, answer], [answer]):
        (row,), report = imported(tmp_path, *messages)
        assert row["task"].partition("from Anna Berg:\n")[2].startswith("> Is it red?")
        assert "Old" not in row["task"]
        assert report.replies == 1


def test_a_follow_up_to_ones_own_message_answers_nobody(tmp_path: Path):
    rows, report = imported(
        tmp_path,
        message("The boat is red.\n\nBob", Message_ID="<q@x>", Subject="Boat"),
        message("And the oars are blue.\n\nBob", In_Reply_To="<q@x>", Subject="Re: Boat"),
    )
    assert report.replies == 0
    assert rows[0]["thread"] == rows[1]["thread"]
    assert rows[1]["email"].startswith("Subject: Boat\n")


def test_the_folder_of_outgoing_mail_says_whose_mail_it_is(tmp_path: Path):
    box = tmp_path / "box"
    box.mkdir()
    newsletters = [message(f"{n}", sender="Club <club@club.example>", to="bob@smith.example") for n in range(5)]
    mbox(box, newsletters, "Inbox.mbox")
    mbox(box, [message("The boat is red.")], "Sent.mbox")
    assert read_mail(box, Options())[1].me == ("bob@smith.example",)


def test_without_a_sent_folder_it_is_the_sender_who_is_in_most_messages(tmp_path: Path):
    often = [message(f"Question {n} of mine?", **QUESTION) for n in range(3)]
    mine = [message("The boat is red."), message("It is not.", to="Ines <ines@x.example>")]
    assert imported(tmp_path, *often, *mine, options=Options())[1].me == ("bob@smith.example",)


def test_several_addresses_may_be_mine(tmp_path: Path):
    messages = [message("The boat is red."), message("The boat is blue.", sender="Bob <BOB@home.example>")]
    rows, report = imported(tmp_path, *messages, options=Options(me=("Bob@Smith.example", "bob@home.example")))
    assert len(rows) == 2
    assert not report.me_guessed


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("Best,\nBob", "empty after quotes and signature"),
        ("On 3 March 2025, Anna wrote:\n> The boat is red.", "empty after quotes and signature"),
        ("FYI\n\nBegin forwarded message:\n\nFrom: Club\n\nPay.", "forward without own words"),
        ("word " * 1000, "too long"),
        (", ".join(f"{n}21 boats" for n in range(1, 15)), "more facts than a request gives"),
    ],
)
def test_what_nothing_can_be_learned_from_is_left_out(tmp_path: Path, body: str, reason: str):
    _, report = imported(tmp_path, message("The boat is red."), message(body, Subject="x"))
    assert report.left_out == {reason: 1}


def test_a_message_that_lies_in_two_folders_is_used_once(tmp_path: Path):
    one, other = message("The boat is red.", Message_ID="<a@x>"), message("The boat is blue.")
    rows, report = imported(tmp_path, one, other, one, other)
    assert len(rows) == 2
    assert report.left_out == {"there twice": 2}


def test_personal_data_gets_the_same_stand_in_in_task_email_and_facts(tmp_path: Path):
    body = "Hi Anna,\n\nwrite to pavel@marsh.example, please.\n\nBob"
    (row,), report = imported(tmp_path, message(body, Subject="Pavel"))
    (stand_in,) = [fact[0] for fact in row["facts"] if "@" in fact[0]]
    assert stand_in in row["task"]
    assert stand_in in row["email"]
    assert "pavel@marsh" not in json.dumps(row)
    assert report.personal["address"] >= 3
    (kept,), _ = imported(tmp_path, message(body, Subject="Pavel"), options=Options(me=ME.me, privacy="keep"))
    assert "pavel@marsh.example" in kept["task"]


def test_names_are_personal_if_asked(tmp_path: Path):
    (row,), _ = imported(
        tmp_path, message("Hi Anna,\n\nthe boat is red.\n\nBest,\nBob"), options=Options(ME.me, names=True)
    )
    assert "Anna" not in json.dumps(row)
    assert "Bob" not in json.dumps(row)


def test_the_same_seed_gives_the_same_rows(tmp_path: Path):
    messages = list(mailbox.conversation_round(0))
    assert imported(tmp_path, *messages)[0] == imported(tmp_path, *messages)[0]
    assert imported(tmp_path, *messages)[0] != imported(tmp_path, *messages, options=Options(me=ME.me, seed=1))[0]


def test_a_table_without_senders_is_all_mine(tmp_path: Path):
    (tmp_path / "t.csv").write_text("subject,body,thread\nOars,12 oars are here.,7\nKeys,3 keys are here.,7\n")
    rows, report = read_mail(tmp_path / "t.csv", Options())
    assert [row["email"] for row in rows] == ["Subject: Oars\n\n12 oars are here.", "Subject: Keys\n\n3 keys are here."]
    assert rows[0]["thread"] == rows[1]["thread"]
    assert report.me == ()


def test_openais_format_is_passed_on_and_read_again(tmp_path: Path):
    good = {
        "messages": [{"role": "user", "content": "Thank Ada."}, {"role": "assistant", "content": "Thank you, Ada."}]
    }
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in (good, {"messages": good["messages"][:1]})))
    rows, report = read_mail(tmp_path / "t.jsonl", Options())
    assert report.left_out == {"unreadable": 1}
    assert report.problems == [
        f"{tmp_path / 't.jsonl'}:2: it has no assistant message, so there is nothing to learn from"
    ]
    write_rows(rows, tmp_path / "ada.jsonl")
    (example,) = read_examples([tmp_path / "ada.jsonl"])
    assert (example.task, example.email) == ("Thank Ada.", "Thank you, Ada.")


def test_a_model_may_write_the_task(tmp_path: Path):
    def describe(drafts: Sequence[Draft], progress: Progress) -> list[str | None]:
        return ["Tell Anna about the boat."] + [None] * (len(drafts) - 1)

    options = Options(me=ME.me, describe=describe)
    (one, other), report = imported(tmp_path, message("The boat is red."), message("It is blue."), options=options)
    assert one["task"] == "Tell Anna about the boat."
    assert "Anna" in other["task"]
    assert report.described == 1


def test_nothing_to_learn_from_is_an_error_that_says_why(tmp_path: Path):
    with pytest.raises(DataError, match="1 not by me") as caught:
        imported(tmp_path, message("The boat is red."), options=Options(me=("other@x.example",)))
    assert "--me" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "reason"), [("none.mbox", "is not there"), ("a.pst", "not a mailbox"), ("empty", "no mail")]
)
def test_a_path_that_is_no_mailbox_is_an_error(tmp_path: Path, name: str, reason: str):
    (tmp_path / "a.pst").write_bytes(b"!BDN")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=reason):
        read_mail(tmp_path / name, Options())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=60).map(b"".join))
def test_no_bytes_stop_an_import(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    directory = tmp_path_factory.getbasetemp()
    rows, report = imported(directory, b"From: bob@smith.example\n" + data, message("The boat is red."))
    assert report.used + sum(report.left_out.values()) == report.read
    write_rows(rows, directory / "any.jsonl")
    assert len(read_examples([directory / "any.jsonl"])) == len(rows)
