from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import mailbox
from tests.trainer.mailbox import message, raw
from trainer.mail.message import UnreadableMail, bare_subject, parse, unflowed

TEXT = "Hi Anna,\n\nIt costs 12 euros.\n\nBest,\nBob"


def test_a_message_is_read():
    mail = parse(message(TEXT, Subject="Re: Oars", Message_ID="<b@x>", References="<q@x> <a@x>", In_Reply_To="<a@x>"))
    assert (mail.sender, mail.sender_name) == ("bob@smith.example", "Bob Smith")
    assert mail.recipients == (("Anna Berg", "anna@berg.example"),)
    assert (mail.message_id, mail.references) == ("b@x", ("q@x", "a@x"))
    assert (mail.subject, bare_subject(mail.subject), mail.text) == ("Re: Oars", "Oars", TEXT)
    assert mail.is_reply
    assert mail.automatic is None


@pytest.mark.parametrize(
    ("subject", "bare"),
    [
        ("Re: AW: Fwd: Oars", "Oars"),
        ("re[2]: Oars", "Oars"),
        ("WG: Oars", "Oars"),
        ("Oars: new", "Oars: new"),
        ("", ""),
    ],
)
def test_a_subject_without_its_prefixes(subject: str, bare: str):
    assert bare_subject(subject) == bare


@pytest.mark.parametrize("charset", ["latin-1", "utf-8", "utf-16", "windows-1252", "iso-8859-15"])
@pytest.mark.parametrize("coding", ["base64", "quoted-printable"])
def test_a_text_is_decoded(charset: str, coding: str):
    import base64
    import quopri

    text = "Grüße, café"
    data = text.encode(charset)
    coded = base64.encodebytes(data) if coding == "base64" else quopri.encodestring(data)
    assert (
        parse(raw(coded, f"Content-Type: text/plain; charset={charset}", f"Content-Transfer-Encoding: {coding}")).text
        == text
    )


@pytest.mark.parametrize("charset", ["us-ascii", "utf-8", "no-such-charset", "latin1; x=y"])
def test_a_text_that_is_not_in_its_charset_is_guessed(charset: str):
    mail = parse(raw("The café costs".encode("cp1252") + b" more\0.", f"Content-Type: text/plain; charset={charset}"))
    assert mail.text == "The café costs more."


def test_encoded_headers_are_decoded_and_names_turned_round():
    mail = parse(b"From: =?utf-8?q?Sm=C3=AFth=2C_Bob?= <BOB@Smith.Example>\nSubject: =?iso-8859-1?q?Caf=E9?= now\n\nx")
    assert (mail.sender_name, mail.sender, mail.subject) == ("Bob Smïth", "bob@smith.example", "Café now")


def test_stray_bytes_in_headers_are_decoded():
    assert parse(b"Subject: Caf\xe9\nTo: Ren\xc3\xa9e <r@x.example>\n\nx").recipients == (("Renée", "r@x.example"),)


def test_a_flowed_text_is_one_line_a_paragraph():
    assert unflowed("One \ntwo\nthree\n> a \n> b\n-- \nBob") == "One two\nthree\n> a b\n-- \nBob"
    assert unflowed("On \ne", delete_space=True) == "One"
    mail = parse(raw("The ferry \ngoes.\n", 'Content-Type: text/plain; format="flowed"'))
    assert mail.text == "The ferry goes."


def test_plain_text_is_preferred_and_html_is_read_where_there_is_none():
    parts = "--b\nContent-Type: text/html\n\n<p>Hi <b>you</b></p>\n--b\nContent-Type: text/plain\n\nHi plain\n--b--\n"
    both = raw(parts, 'Content-Type: multipart/alternative; boundary="b"')
    assert parse(both).text == "Hi plain"
    assert parse(both.replace(b"text/plain", b"text/other")).text == "Hi you"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (["Auto-Submitted: auto-replied"], "automatic answer"),
        (["X-Auto-Response-Suppress: All"], "automatic answer"),
        (["Precedence: bulk"], "list or bulk mail"),
        (["List-Unsubscribe: <mailto:x@y.example>"], "list or bulk mail"),
        (["Subject: Out of office: holidays"], "automatic answer"),
        (["Subject: Abwesenheitsnotiz"], "automatic answer"),
        (["Content-Type: text/calendar; method=REPLY"], "calendar"),
        (['Content-Type: multipart/report; report-type=delivery-status; boundary="b"'], "delivery report"),
        (['Content-Type: multipart/report; report-type=disposition-notification; boundary="b"'], "read receipt"),
        (["Auto-Submitted: no", "Subject: Office"], None),
    ],
)
def test_what_no_person_wrote_is_automatic(headers: list[str], reason: str | None):
    assert parse(raw("x", *headers)).automatic == reason


@pytest.mark.parametrize(
    "sender", ["mailer-daemon@x.example", "no-reply@x.example", "donotreply@x.example", "noreply-7@x.example"]
)
def test_a_sender_that_is_nobody_is_automatic(sender: str):
    assert parse(f"From: {sender}\n\nx".encode()).automatic == "no-reply sender"


@pytest.mark.parametrize(
    "encrypted",
    [
        raw("x", 'Content-Type: multipart/encrypted; boundary="b"'),
        raw("x", "Content-Type: application/pkcs7-mime; smime-type=enveloped-data"),
        raw("-----BEGIN PGP MESSAGE-----\nx"),
    ],
)
def test_encrypted_mail_has_no_text(encrypted: bytes):
    assert (parse(encrypted).encrypted, parse(encrypted).text) == (True, "")


@pytest.mark.parametrize("subject", ["Fwd: x", "FW: x", "WG: x"])
def test_a_forward_is_no_reply(subject: str):
    mail = parse(raw("Look.", f"Subject: {subject}", "References: <a@x>"))
    assert mail.forward
    assert not mail.is_reply


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (mailbox.long_line(), "text is longer than 256 KiB"),
        (mailbox.deep(), "nested too deep"),
        (mailbox.endless_headers(), "headers are longer than 256 KiB"),
        (b"", "none of the headers"),
        (b"PK\3\4\0\0", "none of the headers"),
    ],
)
def test_hostile_mail_is_refused_with_a_reason(data: bytes, reason: str):
    with pytest.raises(UnreadableMail, match=reason):
        parse(data)


def test_an_archive_is_not_opened_and_said_to_be_there():
    mail = parse(mailbox.bomb())
    assert mail.text == "Hi Anna,\n\nHere are the zeros of 12 May that you wanted.\n\nBest,\nBob"
    assert mail.notes == ("an archive is attached; it was not opened",)


def test_a_charset_that_is_none_is_said():
    mail = parse(mailbox.broken_charset())
    assert "the béret costs 12 euros" in mail.text
    assert "\0" not in mail.text
    assert mail.notes == ("its text is not in the charset that it names; read as the likeliest other",)


PIECES = st.sampled_from(
    [
        *(
            b"From: ",
            b"To: ",
            b"Subject: ",
            b"Date: ",
            b"Message-ID: <",
            b"References: <a@b> ",
            b"\n",
            b"\n\n",
            b"\r\n",
        ),
        *(b"Content-Type: ", b"multipart/mixed; boundary=b", b"text/html", b"text/plain; charset=", b"utf-7", b"--b\n"),
        *(
            b"Content-Transfer-Encoding: base64",
            b"=?utf-8?b?",
            b"?=",
            b"=?x?q?=FF?=",
            b"(((",
            b'"',
            b"<",
            b">",
            b"@",
            b",;:",
        ),
        *(
            b"format=flowed",
            b"\0",
            b"\xff\xfe",
            b"On 1 Jan, A wrote:\n",
            b"> ",
            b"-- \n",
            b"<p>",
            b"Best,\nBob",
            b"a" * 300,
        ),
    ]
)


@given(
    st.one_of(st.binary(max_size=2000), st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=60).map(b"".join))
)
def test_no_bytes_raise_anything_but_unreadable(data: bytes):
    with suppress(UnreadableMail):
        mail = parse(data)
        repr(mail).encode()
        " ".join([mail.text, mail.subject, mail.sender_name, mail.message_id, *mail.references]).encode()
