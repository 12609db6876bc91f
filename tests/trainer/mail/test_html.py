import pytest

from trainer.mail.html import text
from trainer.mail.reply_text import read


def test_scripts_styles_and_pictures_leave_no_text():
    html = "<head><style>p{}</style><title>T</title></head><p>Hi<script>x()</script> Anna<img alt='y'></p><!-- c -->"
    assert text(html) == "Hi Anna"


@pytest.mark.parametrize(
    "html",
    [
        "<div>Yes.</div><div class='gmail_quote'><div class='gmail_attr'>On Mon, Anna wrote:</div>"
        "<blockquote>No?</blockquote></div>",
        "<p>Yes.</p><div class='moz-cite-prefix'>Am 3.3.2025 schrieb Anna:</div><blockquote>No?</blockquote>",
        "<p>Yes.</p><div id='appendonsend'></div><hr><div id='divRplyFwdMsg'><b>From:</b> A<br><b>Sent:</b> B<br>"
        "<b>To:</b> C<br><b>Subject:</b> D</div><div>No?</div>",
        "<div><p class='MsoNormal'>Yes.</p><div><div style='border:none;border-top:solid #E1E1E1 1.0pt'>"
        "<p class='MsoNormal'><b>From:</b> A<br><b>Sent:</b> B<br><b>To:</b> C<br><b>Subject:</b> D</p></div></div>"
        "<p>No?</p></div>",
        "<div>Yes.</div><div class='yahoo_quoted'>No?</div>",
    ],
)
def test_what_a_mail_program_wraps_as_a_quote_is_marked(html: str):
    words = read(text(html), "Bob")
    assert (words.text, words.quoted) == ("Yes.", "No?")


def test_the_text_after_a_quote_stays():
    assert text("<p>One<blockquote>quoted</blockquote>two</p>").startswith("One")
    assert "two" in text("<p>One</p><blockquote>quoted</blockquote>two").split("> ")[0]


def test_a_signature_is_set_off():
    html = "<div>Yes.</div><div>Best,<br>Bob</div><div class='gmail_signature'>Bob Smith<br>Head of Boats</div>"
    assert read(text(html), "Bob Smith").text == "Yes.\nBest,\nBob"


def test_outlooks_paragraphs_have_no_space_between_them_but_where_one_is_empty():
    html = "".join(f"<p class='MsoNormal'>{line}</p>" for line in ("One", "two", "&nbsp;", "three"))
    assert text(html) == "One\ntwo\n\nthree"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "html",
    [
        "",
        "<",
        "<?xml version='1.0' encoding='utf-8'?><p>x",
        "<div>" * 50_000,
        "<p>" * 100_000,
        "<table><tr><td>" * 9000,
    ],
)
def test_broken_and_endless_html_is_read(html: str):
    assert text(html) in ("", "<", "x")
