import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.emails.facts import find_facts, invented
from adapters.emails.number_words import MONTHS
from adapters.emails.tasks import HELDOUT
from trainer.data.examples import SHIPPED_EMAILS

PIECES = st.sampled_from(
    [
        *(
            "Dear Ada,",
            "Kind regards,",
            "Ada Byron",
            "Mr Okonkwo",
            "St Osyth's",
            "I",
            "May I",
            "£68",
            "$1,200.50",
            "300 euros",
        ),
        *(
            "10:15",
            "3 pm",
            "noon",
            "half past three",
            "14 May",
            "Thursday 9 October",
            "2024-06-03",
            "3/6/2024",
            "in June",
        ),
        *(
            "INV-2041",
            "ada@harbour.example",
            "https://harbour.example/a",
            "0555 0142",
            "15 %",
            "forty",
            "2½",
            "1 500",
            "06/2024",
            "1630",
            "16h",
            "ten grand",
            "90 minutes",
            "12",
            "\n",
            ". ",
        ),
        *("[Name]", "the van", "and", "of", "1. Come", "Subject: Fete"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=15).map(" ".join)


def found(text: str) -> list[tuple[str, str]]:
    return [(fact.kind, fact.text) for fact in find_facts(text)]


def made_up(answer: str, asked: str) -> list[str]:
    return [fact.text for fact in invented(answer, asked)]


@pytest.mark.parametrize(
    ("text", "kind", "fact"),
    [
        ("it costs $1,200.50 in all", "amount", "$1,200.50"),
        ("it costs 300 euros in all", "amount", "300 euros"),
        ("it costs £68.", "amount", "£68"),
        ("it costs two pounds", "amount", "two pounds"),
        ("come at 10:15.", "time", "10:15"),
        ("come at 3 pm.", "time", "3 pm"),
        ("come at 3.40 pm.", "time", "3.40 pm"),
        ("come at 10.15.", "time", "10.15"),
        ("come at noon.", "time", "noon"),
        ("come at half past three.", "time", "half past three"),
        ("come at five o'clock.", "time", "five o'clock"),
        ("come on 14 May.", "date", "14 May"),
        ("come on May 14th.", "date", "May 14th"),
        ("come on Thursday 9 October, please", "date", "Thursday 9 October"),
        ("come on Tuesday, March 3rd, 2026, please", "date", "Tuesday, March 3rd, 2026"),
        ("come on 2024-06-03.", "date", "2024-06-03"),
        ("come on 3/6/2024.", "date", "3/6/2024"),
        ("come on Thursday.", "date", "Thursday"),
        ("come in June.", "date", "June"),
        ("come tomorrow.", "date", "tomorrow"),
        ("we are 15 % late", "number", "15 %"),
        ("it is 1.5 m deep", "number", "1.5"),
        ("for 1,200 people", "number", "1,200"),
        ("after forty minutes", "number", "forty"),
        ("two hundred and fifty chairs", "number", "two hundred and fifty"),
        ("your invoice INV-2041 is due", "code", "INV-2041"),
        ("room B1234 is free", "code", "B1234"),
        ("write to ada.byron@harbour.example.", "address", "ada.byron@harbour.example"),
        ("see https://harbour.example/fete?a=1.", "link", "https://harbour.example/fete?a=1"),
        ("see www.harbour.example.", "link", "www.harbour.example"),
        ("ring +44 20 7946 0958.", "phone", "+44 20 7946 0958"),
        ("ring 0555 0142.", "phone", "0555 0142"),
        ("ring (020) 7946 0958.", "phone", "(020) 7946 0958"),
        ("ring 555-0142.", "phone", "555-0142"),
        ("we met Ada Byron there", "name", "Ada Byron"),
        ("we met Dr. Tomasz van der Berg there", "name", "Dr. Tomasz van der Berg"),
        ("we met Beata's son there", "name", "Beata"),
        ("Hi Ada! We sat well.", "name", "Ada"),
        ("Dear Mr Okonkwo,\n\nWe sat well.", "name", "Mr Okonkwo"),
        ("Ada,\n\nWe sat well.", "name", "Ada"),
        ("Mr Okonkwo came.", "name", "Mr Okonkwo"),
        ("We sat well.\n\nBest,\nKim Ødegård", "name", "Kim Ødegård"),
    ],
)
def test_a_fact_is_found_whole(text: str, kind: str, fact: str):
    assert found(text) == [(kind, fact)]


@pytest.mark.parametrize(
    "text",
    [
        "Dear Sir or Madam,",
        "Dear All,\n\nThank you.\n\nKind Regards,",
        "Hi there,\n\nMay I thank you? I'm glad.\n\nYours Sincerely,",
        "Hello, Thank you for coming.",
        "Subject: Request for a Meeting About the Dredging Plan\n\nThank you.",
        "Request for a Meeting\n\nthank you for the chairs we\nborrowed.\nThey were good.\nReally.\nYes.",
        "Chairs are good. Chairs are! Chairs? They are: Chairs.",
        "One of them, two of us, which of the two?",
        "1. Attend the meeting\n2) Bring chairs\n\nsee you.",
        "Dear [Name],\n\nwe have [number] chairs, {{count}} or <Your Name 5>.",
        "go to gate c. Forget the other.",
        "THANK YOU, and RSVP.",
        "Thanks a million, we are open 24/7 and I may first call.",
    ],
)
def test_a_phrase_is_no_fact(text: str):
    assert found(text) == []


def test_a_count_before_a_verb_is_no_date():
    assert found("all 25 may come") == []
    assert made_up("All 25 people can come.", "all 25 may come") == []


def test_facts_come_in_order_and_once_however_they_are_spelled():
    text = "Subject: 14 May at 3 pm\n\nDear Ada,\n\nCome on May 14th at 15:00 with 12 chairs, Ada.\n\nBest,\nKim"
    assert found(text) == [("date", "14 May"), ("time", "3 pm"), ("name", "Ada"), ("number", "12"), ("name", "Kim")]


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ("at 15:40", "at 3:40 pm"),
        ("at 3.40 pm", "at 15:40"),
        ("at 5:40", "at 5:40 pm"),
        ("at 5:40 pm", "at 5.40"),
        ("at 3 pm", "come at 3"),
        ("from 2 pm to 4 pm", "2-4pm"),
        ("at 12:00", "at noon"),
        ("at half past three", "15:30"),
        ("at 16:45", "quarter to five"),
        ("on 14 May", "on May 14th"),
        ("on the 14th", "on 14 May"),
        ("on 3 June 2024", "2024-06-03"),
        ("on Monday 3 June", "on 2024-06-03"),
        ("on 3 June", "3/6/2024"),
        ("on 9 October", "thursday 9 oct"),
        ("on Thursday", "Thu 9 Oct"),
        ("on 11 July and 12 July", "nights of 11 and 12 July"),
        ("in April", "from October to mid april"),
        ("at noon", "12 noon"),
        ("at 12 noon", "at noon"),
        ("at noon", "noon sharp"),
        ("at 12:00", "12 sharp"),
        ("at 12 a.m.", "midnight"),
        ("at midnight", "at 0:00"),
        ("at 00:00", "at 12 midnight"),
        ("at 4 pm", "between 3 and 4"),
        ("between 3 pm and 4 pm", "between three and four"),
        ("between 3 and 4 pm", "15:00-16:00"),
        ("from 3:00 to 4:00 pm", "3-4 pm"),
        ("3-4 pm", "from 3 to 4 in the afternoon"),
        ("at 9 am", "nine in the morning"),
        ("at four pm", "16:00"),
        ("at 16:30", "half past four"),
        ("at half past four", "4.30"),
        ("at 4:30 pm", "half four"),
        ("at four thirty", "4:30"),
        ("at 4:30", "at four thirty"),
        ("at 16:10", "ten past four"),
        ("at a quarter past four", "16:15"),
        ("at 4:30 pm", "16h30"),
        ("on 12 May 2024", "12/05/24"),
        ("on 12/05/24", "12 May 2024"),
        ("on 05/12/24", "May 12, 2024"),
        ("on Sunday 12 May 2024", "12.5.24"),
        ("on 12 May 2024", "12 May '24"),
        ("on 2024-05-12", "12th of May 2024"),
        ("on May 12, 2024", "2024/5/12"),
        ("on 5/6", "on 5 June"),
        ("on 6/5", "on 5 June"),
        ("on 5 June", "5/6"),
        ("Friday 5/6 is fine", "Friday 5 June"),
        ("on 5 June", "the fifth of June"),
        ("on the twenty-first of June", "June 21st"),
        ("in June", "5/6"),
        ("for 2,000 units", "2 thousand units"),
        ("for 2 thousand units", "2,000 units"),
        ("for two thousand units", "2000 units"),
        ("for 2,500 units", "two thousand five hundred units"),
        ("for 2.5k units", "2,500 units"),
        ("for 1,500 units", "1.5k units"),
        ("for 2 million units", "2m units"),
        ("a 2m fence", "a fence of 2 metres"),
        ("for 500,000 units", "half a million units"),
        ("for 120 units", "one hundred and twenty units"),
        ("for three dozen eggs", "36 eggs"),
        ("for 6 eggs", "half a dozen eggs"),
        ("for 2.5 hours", "two and a half hours"),
        ("for $1,500,000", "$1.5 million"),
        ("for $1.5 million", "$1,500,000"),
        ("for $1.5m", "1.5 million dollars"),
        ("for 1,500 dollars", "$1.5k"),
        ("for €2,000,000", "EUR 2 million"),
        ("for EUR 2 million", "2m euros"),
        ("for two million euros", "€2m"),
        ("for £2bn", "2 billion pounds"),
        ("for 40 minutes", "forty minutes"),
        ("for forty minutes", "40 mins"),
        ("for 30 minutes", "half an hour"),
        ("for 24 eggs", "two dozen eggs"),
        ("on the 2nd floor", "second floor"),
        ("for 1 hour", "an hour"),
        ("for 1200 people", "1,200 people"),
        ("for £68.00", "68 pounds"),
        ("for $5", "5 dollars"),
        ("for 38 euros", "38"),
        ("your order GB4471", "order gb-4471"),
        ("your order 2041", "INV-2041"),
        ("to Ada@Harbour.example", "ada@harbour.example"),
        ("at harbour.example", "https://www.harbour.example/"),
        ("on +44 555 0142 99", "0555 0142 99"),
        ("Dear Ms Ozola,", "tell Ieva Ozola"),
        ("with Judge Takacs", "judge evangeline takács"),
        ("about Fergus's bus", "fergus"),
        ("with the Lunds", "Halvard Lund"),
        ("Dear Hilltop Parents,", "email the parents of hilltop"),
        ("at 16:30", "come at 1630"),
        ("at 4:30 pm", "meeting 1630 hrs"),
        ("at 1630", "at 4:30 pm"),
        ("at 4 pm", "16h"),
        ("at 16h", "at 4 pm"),
        ("a 2h meeting", "a meeting of two hours"),
        ("at 7:30 pm", "dinner seven thirty, my place"),
        ("Dinner is seven thirty as always.", "dinner 7:30"),
        ("seven thirty-minute talks", "7 talks of 30 minutes"),
        ("for 0.5 litres", "½ litre"),
        ("for ½ litre", "half a litre"),
        ("for 2½ hours", "2.5 hours"),
        ("for two and a half hours", "2 ½ hours"),
        ("for 1,500 units", "1 500 units"),
        ("for 1 500 units", "1500 units"),
        ("for € 1 500", "1500 euros"),
        ("for 12 bags of 500 g", "12 500 g bags"),
        ("in June 2024", "06/2024"),
        ("in June 2024", "2024-06"),
        ("until 06/2024", "until June 2024"),
        ("until 2024-06", "until June 2024"),
        ("for $10,000", "ten grand"),
        ("for ten grand", "$10,000"),
        ("for two grand pianos", "2 pianos"),
        ("for 90 minutes", "1.5 hours"),
        ("for 90 minutes", "an hour and a half"),
        ("for an hour and a half, 90 minutes", "1½ hours"),
        ("for 1.5 hours", "90 mins"),
        ("for 30 minutes", "a half-hour"),
        ("for 7 days", "a week"),
        ("for 14 days", "a fortnight"),
        ("for 2 weeks", "a fortnight"),
        ("for 18 months", "a year and a half"),
    ],
)
def test_what_was_told_in_another_spelling_is_not_invented(answer: str, asked: str):
    assert find_facts(answer)
    assert made_up(answer, asked) == []


@pytest.mark.parametrize(
    ("answer", "asked", "fact"),
    [
        ("at 3 pm", "at 3 am", "3 pm"),
        ("at 15:00", "at 3 am with 15 chairs", "15:00"),
        ("at 10:30", "at 10:15", "10:30"),
        ("on 15 May", "on 14 May, with 15 chairs", "15 May"),
        ("on 14 June", "on 14 May", "14 June"),
        ("on Friday 14 May", "on 14 May", "Friday 14 May"),
        ("on Tuesday 3 June", "on 2024-06-03", "Tuesday 3 June"),
        ("on Friday", "on 14 May", "Friday"),
        ("on 14 May 2025", "on 14 May", "14 May 2025"),
        ("in June", "in May", "June"),
        ("see you tomorrow", "see you soon", "tomorrow"),
        ("for 41 people", "forty people", "41"),
        ("for three people", "forty people", "three"),
        ("for €300", "for $300", "€300"),
        ("for $1.5 million", "for $1.5 thousand", "$1.5 million"),
        ("for $2 million", "for EUR 2 million", "$2 million"),
        ("for 3 thousand units", "for 2,000 units", "3 thousand"),
        ("for 2 thousand units", "for 2 units", "2 thousand"),
        ("for three dozen eggs", "for 3 eggs", "three dozen"),
        ("at 12 noon", "at midnight", "12 noon"),
        ("at midnight", "at noon", "midnight"),
        ("at half past four", "at half past five", "half past four"),
        ("at 5 pm", "between 3 and 4", "5 pm"),
        ("on 5/7", "on 5 June", "5/7"),
        ("on 12/05/25", "12 May 2024", "12/05/25"),
        ("on 2024-05-13", "12/05/24", "2024-05-13"),
        ("on the sixth of June", "the fifth of June", "sixth of June"),
        ("for £68.50", "for £68", "£68.50"),
        ("your order GB-4472", "order GB-4471", "GB-4472"),
        ("to bo@harbour.example", "ada@harbour.example", "bo@harbour.example"),
        ("at https://harbour.example/a", "https://harbour.example", "https://harbour.example/a"),
        ("on 0555 0143", "0555 0142", "0555 0143"),
        ("Dear Ms Ozola,", "tell Ieva", "Ms Ozola"),
        ("with Ada Lovelace", "Ada Byron", "Ada Lovelace"),
        ("thank you.\n\nBest,\nSarah", "thank Ada. I'm Kim", "Sarah"),
        ("at 1640", "at 4:30 pm", "1640"),
        ("at 17h", "at 4 pm", "17h"),
        ("Dinner is seven thirty.", "dinner 7:15", "seven thirty"),
        ("for 2½ hours", "2 hours", "2½"),
        ("for 1 600 units", "1500 units", "1 600"),
        ("until 07/2024", "until June 2024", "07/2024"),
        ("until 2025-06", "until June 2024", "2025-06"),
        ("for twelve grand", "$10,000", "twelve grand"),
        ("for 80 minutes", "1.5 hours", "80"),
        ("for 8 days", "a week", "8"),
    ],
)
def test_what_was_not_told_is_invented(answer: str, asked: str, fact: str):
    assert made_up(answer, asked) == [fact]


@given(TEXTS)
def test_every_fact_stands_in_its_text_in_order(text: str):
    plain = " ".join(text.split())
    facts = [" ".join(fact.text.split()) for fact in find_facts(text)]
    assert [fact for fact in facts if fact.isascii() and fact not in plain] == []
    assert len(set(find_facts(text))) == len(facts)


@given(TEXTS)
def test_a_text_invents_nothing_against_itself(text: str):
    assert invented(text, text) == []


@given(TEXTS, TEXTS, TEXTS)
def test_telling_more_makes_nothing_more_invented(answer: str, asked: str, more: str):
    assert set(invented(answer, f"{asked}\n{more}")) <= set(invented(answer, asked)) <= set(find_facts(answer))


@given(st.integers(0, 23), st.integers(0, 59))
def test_a_time_is_the_same_in_both_clocks(hour: int, minute: int):
    half = f"{(hour - 1) % 12 + 1}.{minute:02d} {'pm' if hour >= 12 else 'am'}"
    assert made_up(f"at {hour}:{minute:02d}", f"at {half}") == []
    assert made_up(f"at {half}", f"at {hour:02d}:{minute:02d}") == []
    assert made_up(f"at {hour}:{(minute + 1) % 60:02d}", f"at {half}") != []


@given(st.integers(1, 28), st.sampled_from(MONTHS))
def test_a_date_is_the_same_in_every_order(day: int, month: str):
    spellings = [f"{day} {month.title()}", f"{month.title()} {day}", f"the {day}th of {month.title()}"]
    for one in spellings:
        assert [made_up(f"on {one}", f"on {other}") for other in spellings] == [[], [], []]
        assert made_up(f"on {one}", f"on {day % 28 + 1} {month}") != []


def rows(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "file", [HELDOUT, SHIPPED_EMAILS / "formal.jsonl", SHIPPED_EMAILS / "friendly.jsonl"], ids=lambda file: file.stem
)
def test_the_shipped_emails_invent_next_to_nothing(file: Path):
    """One of 2,938 facts, "the four-legged one", is a figure of speech."""
    wrong = [
        fact.text for row in rows(file) for fact in invented(str(row["email"]), json.dumps(row["task"]) + told(row))
    ]
    assert wrong in ([], ["four"])


def told(row: dict[str, object]) -> str:
    turns = row.get("previous", [])
    assert isinstance(turns, list)
    return "\n".join([*(text for turn in turns for text in turn.values()), str(row["task"])])


def test_nearly_all_facts_of_an_email_are_invented_against_another_task():
    emails = rows(HELDOUT)
    pairs = list(zip(emails, [*emails[1:], emails[0]], strict=True))
    facts = sum(len(find_facts(str(row["email"]))) for row, _ in pairs)
    assert sum(len(invented(str(row["email"]), told(other))) for row, other in pairs) > 0.95 * facts


NUMBERS = st.sampled_from(["{:,}", "{}", "{}½", "£{:,}", "${}", "{:,} euros", "{} per cent"]).flatmap(
    lambda spelling: st.tuples(st.just(spelling), st.integers(3, 99_999))
)


@given(NUMBERS, st.integers(1, 99_999))
def test_a_changed_number_is_invented(number: tuple[str, int], more: int):
    spelling, value = number
    asked = f"send {spelling.format(value)} by post"
    assert made_up(asked, asked) == []
    assert made_up(f"send {spelling.format(value + more)} by post", asked) == [spelling.format(value + more)]


@given(
    st.integers(3, 999), st.integers(1, 999), st.sampled_from(["thousand", "million", "dozen", "hundred", "k", "bn"])
)
def test_a_scale_counts(value: int, more: int, scale: str):
    space = " " if len(scale) > 2 else ""
    asked = f"send {value}{space}{scale} letters"
    assert made_up(asked, asked) == []
    assert made_up(f"send {value + more}{space}{scale} letters", asked) == [f"{value + more}{space}{scale}"]


@given(st.integers(1, 99), st.integers(1, 99), st.sampled_from([(60, "hour", "minute"), (7, "week", "day")]))
def test_a_duration_counts_in_either_unit(value: int, more: int, units: tuple[int, str, str]):
    times, long, short = units
    told_long, told_short = f"it took {value} {long}s", f"it took {value * times} {short}s"
    assert made_up(told_long, told_short) == made_up(told_short, told_long) == []
    assert made_up(f"it took {(value + more) * times} {short}s", told_long) == [str((value + more) * times)]


@given(st.dates(date(1950, 1, 1), date(2049, 12, 31)), st.dates(date(1950, 1, 1), date(2049, 12, 31)))
def test_a_changed_date_is_invented_in_every_spelling(day: date, other: date):
    def spellings(day: date) -> list[str]:
        numbers = [f"{day.isoformat()}", f"{day.day}/{day.month}/{day:%y}", f"{day.month}/{day.day}/{day.year}"]
        return [*numbers, f"{day.day}.{day.month}.{day.year}", f"{day.day} {MONTHS[day.month - 1].title()} {day.year}"]

    same = {day, date(day.year, day.day, day.month)} if day.day <= 12 else {day}
    for asked in spellings(day):
        assert [made_up(f"come on {one}", f"come on {asked}") for one in spellings(day)] == [[]] * 5
        if other not in same:
            assert all(made_up(f"come on {one}", f"come on {asked}") for one in spellings(other))
