"""The HTML part of an email -> text with its quotes marked by `>`, as plain mail marks them.

Mail programs wrap quotes (Gmail, Thunderbird, Outlook, Apple, Yahoo, Proton). trainer/mail/reply_text.py finds
signatures and unmarked quotes.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

DROPPED = "//script|//style|//head|//title|//noscript|//template|//comment()|//img"
SIGNATURES = (
    "//*[contains(concat(' ',@class,' '),' gmail_signature ') or contains(concat(' ',@class,' '),' moz-signature ') or "
    "@id='Signature' or @id='ms-outlook-mobile-signature']"
)
QUOTES = (
    "//blockquote|//*[contains(concat(' ',@class,' '),' gmail_quote ') or @class='gmail_attr' or "
    "@class='moz-cite-prefix' or @class='yahoo_quoted' or @class='protonmail_quote' or @class='OutlookMessageHeader']"
)
# Outlook puts the answered message after one of these, without a wrapper.
QUOTE_STARTS = (
    "//*[@id='divRplyFwdMsg' or @id='appendonsend' or contains(@id,'OLK_SRC_BODY_SECTION') or "
    "(self::div and contains(translate(@style,' ',''),'border-top:solid#'))]"
)
MAX_DEPTH = 200
# Of one part, with its tags: 60,000 empty paragraphs take five seconds.
MAX_CHARACTERS = 128 * 1024


def text(html: str) -> str:
    """The reply text first, then every quoted line with its mark, in order."""
    # Every import here takes tens of milliseconds, and most mailboxes have plain text parts.
    from lxml.etree import ParserError
    from lxml.html import document_fromstring

    try:
        tree = document_fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", html[:MAX_CHARACTERS]) or "<p></p>")
    except ParserError:
        return ""
    _drop_deeper(tree)
    for node in tree.xpath(DROPPED):
        _take_out(node)
    for node in tree.xpath("//p[contains(@class,'Mso')]"):
        _as_outlook_shows(node)
    quoted = [_plain(node) for node in _quotes(tree)]
    for node in tree.xpath(SIGNATURES):
        delimiter = node.makeelement("div")
        delimiter.text, delimiter.tail, node.text = "--", node.text, None
        node.insert(0, delimiter)
    lines = [line for part in quoted for line in part.strip().split("\n") if line.strip()]
    return _plain(tree) + ("\n\n" + "\n".join(f"> {line}" for line in lines) if lines else "")


def _as_outlook_shows(paragraph: Any) -> None:
    """Without space around it; an empty one is an empty line."""
    paragraph.tag = "div"
    if not paragraph.text_content().strip():
        paragraph.insert(0, paragraph.makeelement("br"))


def _quotes(tree: Any) -> list[Any]:
    """Every outermost quote, taken out of the tree."""
    taken = []
    for start in tree.xpath(QUOTE_STARTS)[:1]:
        taken += [start, *_all_after(start)]
    inside = {node for quote in taken for node in quote.iter()}
    for node in tree.xpath(QUOTES):
        if node not in inside:
            taken.append(node)
            inside.update(node.iter())
    for node in taken:
        _take_out(node)
    return taken


def _all_after(start: Any) -> list[Any]:
    """Everything after `start` in the document: the later siblings of it and of its ancestors."""
    inside = takewhile(lambda node: node.tag not in ("body", "html"), (start, *start.iterancestors()))
    return [sibling for node in inside for sibling in node.itersiblings()]


def _take_out(node: Any) -> None:
    """Remove a node and keep the text after it."""
    if node.getparent() is not None:
        node.drop_tree()
        # The text stays in the document, and lxml leaves a copy here.
        node.tail = None


def _drop_deeper(tree: Any) -> None:
    """Inscriptis recurses into every level."""
    level = list(tree)
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node]
    for node in level:
        node.getparent().remove(node)


def _plain(node: Any) -> str:
    from inscriptis.html_engine import Inscriptis

    rendered = Inscriptis(node).get_text()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(" ".join(line.split()) for line in rendered.split("\n"))).strip()
