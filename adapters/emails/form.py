"""The form of an email: greeting, closing, placeholder, title, words and body, each found by one rule.

A closing is a phrase alone on its line, over the name. The patterns know the greetings and closings of 13 languages.
"""

from __future__ import annotations

import re

from adapters.emails.number_words import MONTHS, WEEKDAYS
from adapters.emails.tasks import normalise

GRAM_WORDS = 5
WORD = re.compile(r"[\w'@.-]*\w")
PLACEHOLDER = re.compile(
    r"\[[^\]\n]{1,60}\]|\{\{?[^}\n]{1,60}\}|<[A-Za-z][^>\n@/:]{0,40}>|_{3,}|(?-i:\bX{2,}\b)|"
    r"\((?:your|recipient'?s?|sender'?s?)\b[^)\n]*\b(?:name|title|position|company|address|phone|email|contact)\b[^)\n]*\)|"
    r"^(?:your|recipient'?s?|sender'?s?) name\W*$",
    re.IGNORECASE | re.MULTILINE,
)
# What trainer/text/personal_data.py writes over personal data.
MASK = re.compile(r"\[(?:ADDRESS|EMAIL|PHONE|IBAN|CARD|LINK|IP|NAME)(?:[ _-]?\d+)?\]")

MALE = "Mr|Sir|Herr|Herrn|Sr|Señor|Senor|Lord|Uncle|Father"
FEMALE = "Mrs|Ms|Miss|Madam|Dame|Frau|Mme|Mlle|Sra|Señora|Senora|Lady|Aunt|Auntie|Sister"
TITLES = f"{MALE}|{FEMALE}|Mx|Dr|Prof|Professor|Rev|Reverend|Nurse|Captain|Coach|Councillor|Cllr|Judge"

# Words with a capital in greetings, closings and letters, or by habit, that are not names. A person called April or May
# is missed: dates are far more common.
NOT_NAMES = frozenset(
    (
        "a afternoon all an and anyone at attached attachment best bonjour both by bye can care cheers ciao colleague "
        "committee concern congratulations cordially could customer dad day dear department director do english "
        "evening everybody everyone faithfully folk for forward friend from fw fwd gentleman gentlemen god good "
        "gratefully greeting guest guy hallo happy he hello here hey hi hiring hola hope how hug i if in internet it "
        "just kind kindest ladies lady liebe lieber looking love madam manager many member mom morning mum my "
        "neighbour new office on our parent please president re regard respectfully secretary sehr sender service she "
        "sincerely sir so staff subject support talk team thank that the there they this to truly until very vice "
        "volunteer warm warmest warmly we what when who whom will wish wishes with would year you your yours"
    ).split()
) | {*WEEKDAYS, *MONTHS}
DAY_ABBREVIATIONS = ("mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri", "sat", "sun")

# Each of these strings is a part of a longer pattern, here and in other files. "Beste Grüße" is a closing.
HELLO = (
    r"(?:dear|hi|hello|hey|good (?:morning|afternoon|evening)|greetings|hallo|(?:liebe[rs]?|beste)(?! gr[uü])|"
    r"sehr geehrte[rs]?|guten (?:tag|morgen)|moin|bonjour|salut|ch[eè]re?|hola|querid[oa]|estimad[oa]|ciao|car[oa]|"
    r"gentile|ol[áa]|prezad[oa]|hej)(?![\w-])"
)
GREETED = r"[^\W\d_][^\n,;:!?\d@]{0,38}?"
# At the beginning of a line: `Dear Ada,`, `Hi Ada! We ...` or `Ada,`.
GREETING = re.compile(
    rf"to whom\b|{HELLO}(?:[ ,]+(?P<name>{GREETED})\s*(?:[,:;!.–-]|$))?|(?P<alone>[^\W\d_][\w .'-]{{0,39}}),$",
    re.IGNORECASE,
)
WEEKDAY = rf"(?:{'|'.join(WEEKDAYS)})"
WARM = (
    r"(?:yours|very|kind(?:est)?|best|warm(?:est)?|with|many|all(?:\sthe)?|most|my|much|big|lots\sof|sincere|deep(?:est)?|"
    r"heartfelt|fond(?:est)?|sending|in)"
)
REGARDS = (
    r"(?:regards|wishes|thanks|thank\syou|best|love|sincerely|faithfully|truly|gratitude|appreciation|respect|sympathy|"
    r"respectfully|cordially|gratefully|warmly|fondly|apologies|cheers|hugs?)"
)
SIGN_OFF = re.compile(
    rf"""(?:(?:{WARM}\s)*{REGARDS}(?:,?\s(?:yours|again|so\smuch|very\smuch|a\slot|a\smillion|in\sadvance|(?:as\s)?always|as\sever|
    (?:to\s)?(?:you\s)?(?:all|both|everyone|everybody)|and\s(?:{WARM}\s)*{REGARDS}|from(?:\s\w+){{1,3}}))*
    (?:\s(?:for|to)(?:\s[\w'-]+){{1,5}}(?=,))?|
    (?:ever\s)?yours|as\sever|ta|xo+|x+|ciao|(?:good)?bye(?:\s(?:bye|for\snow|all))?|tha?nx|thx|
    take\s(?:good\s)?care(?:\sof\syourself)?|(?:see|catch)\s(?:you|ya)|
    (?:talk|speak|see|write|catch|meet)(?:\s(?:to|with))?(?:\s(?:you|ya|up))?(?:\sall)?\s
    (?:soon|later|then|there|tomorrow|tonight|around|again|next\sweek|(?:on\s|next\s|this\s)?{WEEKDAY})|
    (?:until|till)\s(?:then|soon|tomorrow|next\s(?:time|week)|we\smeet|{WEEKDAY})|
    (?:have\sa\s|enjoy\syour\s)?(?:(?:good|great|nice|lovely)\s)?(?:day|evening|week|weekend)|
    (?:mit\s)?(?:(?:freundliche[nm]?|beste[nm]?|viele[nm]?|liebe[nm]?|herzliche[nm]?|schöne[nm]?)\s)*
    (?:gr(?:ü|ue)(?:ß|ss)e?n?|gru(?:ß|ss))(?:\s(?:aus|an|und)\s\w+(?:\s\w+)?)?|l\.?g\.?|v\.?g\.?|mfg|hochachtungsvoll|
    danke(?:\s\w+){{0,3}}|bis\s(?:bald|dann|morgen|später)|
    (?:bien\s)?cordialement|(?:bien\s)?à\s(?:vous|toi|bientôt)|amicalement|amitiés|bises|bisous|merci(?:\s\w+){{0,3}}|
    (?:sincères\s)?salutations|bonne\s(?:journée|soirée|réception)|
    (?:un\s)?(?:cordial\s)?saludos?(?:\scordial(?:es)?)?|atentamente|cordialmente|(?:un\s)?(?:fuerte\s)?abrazos?|
    (?:muchas\s)?gracias|besos|(?:cordiali|distinti|cari)\ssaluti|un\s(?:caro\s)?saluto|grazie(?:\s\w+)?|a\spresto|
    (?:met\s)?(?:vriendelijke|hartelijke)?\s?groet(?:en|jes)?|bedankt|dank\su|atenciosamente|(?:um\s)?abraços?|obrigad[oa]|
    (?:med\s)?(?:vänlig(?:a)?|bästa)?\s?hälsning(?:ar)?|mvh|dbh|kh|(?:med\s)?venlig\shilsen|hilsen|
    (?:de\s)?bedste\shilsner|knus|(?:på\sforhånd\s)?tak|pozdrawiam|z\spo(?:sz|w)a[zż](?:anowaniem|aniem)|
    s\s(?:pozdravem|úctou)|děkuj(?:i|eme)|감사합니다|고맙습니다|안부\s전합니다|좋은\s하루\s되세요|此致|敬礼|谢谢|祝好)
    [\s,.!;:)❤，-]*""",
    re.IGNORECASE | re.VERBOSE,
)

# Any name after a closing: capitalised words, and what stands between those of a name.
NAME = re.compile(
    r"[-–/~*\s]*(?:[A-ZÀ-ÖØ-Þ一-鿿가-힯][\w.'’-]*)(?: (?:[A-ZÀ-ÖØ-Þ][\w.'’-]*|&|and|und|et|y|of|the|van|von|"
    r"der|den|de|da|di)){0,4}[\s,.!x]*"
)


def is_not_name(word: str) -> bool:
    """Whether a word with a capital is a common one, an initial or an abbreviated weekday."""
    bare = re.sub(r"'(?:m|d|s|t|ll|re|ve)\Z", "", word.lower()).rstrip(".")
    return len(bare) == 1 or bool({bare, bare.removesuffix("s")} & NOT_NAMES) or bare in DAY_ABBREVIATIONS


def is_closing(line: str) -> bool:
    """Whether the line is a closing phrase alone: `Best regards,`, `Viele Grüße`."""
    return bool(SIGN_OFF.fullmatch(line.strip()))


def closes_with_name(line: str) -> bool:
    """`Thanks, Anna` on one line."""
    phrase, comma, name = line.partition(",")
    return bool(comma and is_closing(phrase) and NAME.fullmatch(name.strip()))


def closing(email: str) -> str:
    """The closing phrase on one of the last lines, alone or with a name; empty without one."""
    return next(filter(None, map(_closing_phrase, reversed(_lines(email)[-5:]))), "")


def has_sign_off(email: str) -> bool:
    return bool(closing(email))


def has_greeting(email: str) -> bool:
    """A greeting on one of the first lines, a subject line apart."""
    return any(GREETING.match(line) and not _closing_phrase(line) for line in _lines(email)[:4])


def body(email: str) -> str:
    """The email without its subject line."""
    return re.sub(r"\ASubject:[^\n]*\n+", "", email)


def grams(words: list[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def word_grams(text: str, size: int = GRAM_WORDS) -> set[tuple[str, ...]]:
    return set(grams(WORD.findall(normalise(text)), size))


def _closing_phrase(line: str) -> str:
    if is_closing(line):
        return line
    return line.partition(",")[0] if closes_with_name(line) else ""


def _lines(email: str) -> list[str]:
    return [line.strip() for line in email.splitlines() if line.strip() and not line.lower().startswith("subject")]
