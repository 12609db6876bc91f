import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.mail.reply_text import MAX_CHARACTERS, message, read, signed_name

OWN = "Hi Anna,\n\nYes, Thursday works.\n\nBest,\nBob"


def own(text: str, writer: str = "Bob Smith") -> str:
    return read(text, writer).text


@pytest.mark.parametrize(
    "header",
    [
        "On Mon, 3 Mar 2025 at 10:12, Anna Berg <anna@berg.example> wrote:",
        "On Mon, 3 Mar 2025 at 10:12, Anna Berg <anna@berg.example>\nwrote:",
        "Am 03.03.2025 um 10:12 schrieb Anna Berg:",
        "Le lun. 3 mars 2025 à 10:12, Anna Berg <anna@berg.example> a écrit :",
        "El lun, 3 mar 2025 a las 10:12, Anna (<anna@berg.example>) escribió:",
        "Il giorno lun 3 mar 2025 alle ore 10:12 Anna <anna@berg.example> ha scritto:",
        "Op ma 3 mrt 2025 om 10:12 schreef Anna <anna@berg.example>:",
        "Em seg., 3 de mar. de 2025 às 10:12, Anna <anna@berg.example> escreveu:",
        "2025年3月3日(月) 10:12 Anna <anna@berg.example>:",
        "-----Original Message-----",
        "________________________________",
    ],
)
def test_a_quote_under_the_header_of_a_mail_program_is_no_own_word(header: str):
    words = read(f"{OWN}\n\n{header}\n> Is Thursday fine?\n> Anna", "Bob Smith")
    assert (words.text, words.quoted) == (OWN, "Is Thursday fine?\nAnna")
    assert not words.forward


@pytest.mark.parametrize(
    "names",
    [("From", "Sent", "To", "Subject"), ("Von", "Gesendet", "An", "Betreff"), ("Van", "Verzonden", "Aan", "Cc")],
)
def test_below_outlooks_headers_all_is_quoted(names: tuple[str, ...]):
    header = "\n".join(f"{name}: something" for name in names)
    words = read(f"{OWN}\n\n{header}\n\nIs Thursday fine?", "Bob Smith")
    assert (words.text, words.quoted) == (OWN, "Is Thursday fine?")


def test_two_lines_that_look_like_headers_are_the_writers_own():
    assert "From: London\nTo: Paris" in own("Hi,\n\nFrom: London\nTo: Paris\n\nSee you there.")


def test_answers_between_and_below_the_quotes_are_own_words():
    text = "On 3 March 2025, Anna wrote:\n> Is it red?\n\nYes.\n\n> Is it round?\n\nNo.\n\nThanks, Bob"
    words = read(text, "Bob Smith")
    assert words.text == "Yes.\n\nNo.\n\nThanks, Bob"
    assert words.quoted == "Is it red?\nIs it round?"


@pytest.mark.parametrize(
    "mark",
    [
        "---------- Forwarded message ---------",
        "Begin forwarded message:",
        "-------- Weitergeleitete Nachricht --------",
    ],
)
def test_a_forwarded_message_is_not_own_and_not_answered(mark: str):
    words = read(f"{OWN}\n\n{mark}\nFrom: Club\nSubject: Fees\n\nPay now.\n> older", "Bob Smith")
    assert words.forward
    assert words.text == OWN
    assert words.quoted.startswith("Pay now.")


@pytest.mark.parametrize(
    "rest",
    [
        "\n\n-- \nBob Smith\nHead of Boats\n+44 20 7946 0011",
        "\nHead of Boats | Harbour Ltd\nTel: +44 20 7946 0011\nwww.harbour.example",
        "\n\nSent from my iPhone",
        "\n\nVon meinem iPhone gesendet",
        "\n\nThis e-mail and its attachments are confidential and intended solely for the addressee, who may read it.",
        "\n\n________________________________\nCONFIDENTIALITY NOTICE",
        "\nbob@smith.example\n",
    ],
)
def test_closing_and_name_stay_and_the_rest_of_a_signature_goes(rest: str):
    assert own(OWN + rest) == OWN


@pytest.mark.parametrize(
    ("closing", "name"),
    [
        ("Mit freundlichen Grüßen", "Bob Smith"),
        ("Cordialement,", "Bob"),
        ("Un saludo,", "Bob"),
        ("Yours sincerely,", "Mr B. Smith"),
        ("Many thanks and best wishes,", "Your Secretary"),
        ("xx", "bob"),
    ],
)
def test_a_closing_of_many_kinds_is_kept_with_its_name(closing: str, name: str):
    text = f"Hi Anna,\n\nYes, Thursday works.\n\n{closing}\n{name}"
    assert own(f"{text}\nTreasurer\nHarbour Ltd, 1 Quay") == text


@pytest.mark.parametrize("line", ["--", "-- ", "—", "____________________", "--------------------"])
def test_a_line_in_the_middle_of_an_email_cuts_nothing(line: str):
    text = f"Hi Anna,\n\nThe boat is ready.\n\n{line}\n\nThe second boat needs paint.\n\nBest,\nBob"
    words = read(text, "Bob Smith")
    assert words.text.split() == text.split()
    assert words.quoted == ""
    unsigned = f"The boat is ready.\n{line}\nThe second boat needs a new coat of paint before we can take it out"
    assert own(unsigned).split() == unsigned.split()
    assert own(f'{text}\n-- \nBob Smith\nHead of Boats\n"A boat is better than a car."').split() == text.split()


def test_below_a_row_of_underscores_and_headers_in_another_language_all_is_quoted():
    header = "________________________________\nDe: Anna\nEnviado: hoje\nPara: Bob\nAssunto: barco"
    words = read(f"{OWN}\n\n{header}\n\nA quinta serve?", "Bob Smith")
    assert (words.text, words.quoted) == (OWN, "A quinta serve?")


def test_a_name_that_stands_only_in_the_signature_block_is_kept():
    assert own("Hi Anna,\n\nYes.\n\nBest wishes,\n\n-- \nBob Smith\nHead of Boats").endswith("Best wishes,\nBob Smith")


def test_thanks_in_the_middle_ends_nothing():
    text = "Hi Anna,\n\nThanks,\n\nI will bring the seven boxes that you asked me for last week.\n\nBob"
    assert own(text) == text


def test_a_postscript_stays():
    text = f"{OWN}\n\nPS: bring the oars"
    assert own(text) == text
    assert own(f"{OWN}\nHead of Boats\n\nPS: bring the oars") == text


def test_lines_broken_at_72_characters_become_one_and_lists_stay():
    first = "The regatta starts at nine and everybody should be at the boathouse"
    assert own(f"{first}\nby eight.\n\n- one\n- two") == f"{first} by eight.\n\n- one\n- two"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (OWN, "Bob"),
        ("Hi,\n\nYes.\n\nThanks, Bob", "Bob"),
        ("Hi,\n\nYes.\n\nKind regards,\nMr B. Smith\n\nPS: no", "Mr B. Smith"),
        ("Hi,\n\nYes, see you.", ""),
        ("Hi,\n\nYes.\n\nBest wishes,", ""),
    ],
)
def test_the_name_that_an_email_is_signed_with(text: str, name: str):
    assert signed_name(text, "Bob Smith") == name


def test_greeting_closing_and_name_are_no_message():
    assert message("Hi Anna,\n\nBest,\nBob", "Bob Smith") == ""
    assert message(OWN, "Bob Smith") == "Yes, Thursday works."


@given(
    st.lists(st.sampled_from(["> ", "On ", "wrote:", "\n", "-- \n", "From: a\n", "Best,\n", "Bob", "x y. ", "----- "]))
)
def test_every_own_word_stands_in_the_text(parts: list[str]):
    text = "".join(parts)
    assert set(own(text).split()) <= set(text.split())


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["\n", "Den 1 skrev skrev skrev:\n", "> ", "Best\n", "On a ", "From: a\n", "-", "regards "]
)
def test_text_made_to_be_slow_is_read(piece: str):
    read(piece * (MAX_CHARACTERS // len(piece) + 1), "Bob")
