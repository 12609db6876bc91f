import io
import mailbox as standard
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.mailbox import mbox, message
from trainer.mail.mailboxes import MailItem, mail_files, mbox_messages, read
from trainer.mail.message import MAX_BYTES, Mail, UnreadableMail

FROM = b"From bob@smith.example Mon Mar  3 10:12:33 2025\n"


def found(path: Path) -> list[MailItem]:
    return list(read(path, lambda _: None))


def subjects(path: Path) -> list[str]:
    return [one.item.subject for one in found(path) if isinstance(one.item, Mail)]


def test_the_messages_of_an_mbox_are_read_in_order(tmp_path: Path):
    file = mbox(tmp_path, [message("x", Subject=f"{n}") for n in range(3)])
    assert subjects(file) == ["0", "1", "2"]
    assert [one.where for one in found(file)] == [f"{file}, message {n}" for n in (1, 2, 3)]


def test_from_in_a_text_starts_no_message(tmp_path: Path):
    body = (
        "From here on it is easy.\n\nFrom London to Paris at 10:30 in 2025\n\nFrom bob@x Mon Mar  3 10:12:33 2025\n>F"
    )
    (one,) = found(mbox(tmp_path, [message(body)]))
    assert isinstance(one.item, Mail)
    assert one.item.text.split("\n\n")[:2] == ["From here on it is easy.", "From London to Paris at 10:30 in 2025"]
    assert "\n\nFrom bob@x Mon" in one.item.text


def test_an_mbox_of_the_standard_library_is_read(tmp_path: Path):
    box = standard.mbox(tmp_path / "box")
    for number in range(3):
        box.add(message("one\n\nFrom two\nthree", Subject=f"{number}"))
    box.close()
    assert subjects(tmp_path / "box") == ["0", "1", "2"]


def test_a_message_is_cut_but_all_its_bytes_are_told():
    stream = io.BytesIO(FROM + b"Subject: x\n\n" + b"y" * (MAX_BYTES + 500_000) + b"\n\n" + FROM + b"Subject: z\n\nw")
    first, second = mbox_messages(stream)
    assert len(first[0]) < MAX_BYTES + 100_000
    assert first[1] > MAX_BYTES + 500_000
    assert second[0] == b"Subject: z\n\nw"


def test_a_folder_is_read_with_everything_below_it(tmp_path: Path):
    for folder in ("cur", "new", "tmp", ".Sent/cur", "saved/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cur" / "1:2,S").write_bytes(message("x", Subject="maildir"))
    (tmp_path / "tmp" / "2").write_bytes(message("x", Subject="unfinished"))
    (tmp_path / ".Sent" / "cur" / "3").write_bytes(message("x", Subject="sent"))
    (tmp_path / "saved" / "deep" / "4.EML").write_bytes(message("x", Subject="eml"))
    (tmp_path / "saved" / "notes.txt").write_text("no mail")
    mbox(tmp_path / "saved", [message("x", Subject="mbox")])
    assert sorted(subjects(tmp_path)) == ["eml", "maildir", "mbox", "sent"]
    assert [one.where for one in found(tmp_path) if one.sent] == [str(tmp_path / ".Sent" / "cur" / "3")]


def test_links_and_pipes_in_a_folder_are_left_alone(tmp_path: Path):
    outside = tmp_path / "outside.eml"
    outside.write_bytes(message("x"))
    inside = tmp_path / "box"
    inside.mkdir()
    (inside / "link.eml").symlink_to(outside)
    os.mkfifo(inside / "pipe.eml")
    assert mail_files(inside) == []


@pytest.mark.parametrize("name", ["Sent.mbox", "Gesendete Objekte.mbox", "[Gmail]_Sent Mail.mbox", "Envoyés.mbox"])
def test_a_sent_folder_is_known_by_its_name(tmp_path: Path, name: str):
    assert all(one.sent for one in found(mbox(tmp_path, [message("x")], name)))


def test_a_sent_message_is_known_by_its_label(tmp_path: Path):
    labelled, other = found(mbox(tmp_path, [message("x", X_Gmail_Labels="Important,Sent"), message("x")]))
    assert (labelled.sent, other.sent) == (True, False)


def test_a_message_that_cannot_be_read_stands_between_others(tmp_path: Path):
    kinds = [type(one.item) for one in found(mbox(tmp_path, [message("x"), b"\0\0\n\nno mail", message("y")]))]
    assert kinds == [Mail, UnreadableMail, Mail]


@given(
    st.lists(st.one_of(st.sampled_from([FROM, b"\n", b"From ", b"Subject: x\n", b">From "]), st.binary(max_size=20)))
)
def test_whatever_a_file_holds_its_bytes_are_counted(parts: list[bytes]):
    data = b"".join(parts)
    messages = list(mbox_messages(io.BytesIO(data)))
    assert sum(size for _, size in messages) <= len(data)
    assert b"".join(raw for raw, _ in messages).replace(b">", b"").count(b"\0") == data.count(b"\0") or b"From " in data
