import re
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn

from adapters.emails.form import PLACEHOLDER
from trainer.text.personal_data import KINDS, TAGS, PersonalValue, Privacy, find

VALUES = {
    "link": ["https://kite.example/plan?id=7", "http://kite.example", "www.kite.example/x"],
    "address": ["ada@kite.example", "Ada.Byron+post@mail.kite.example", "bo_2@kite.example"],
    "iban": ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "NL91 ABNA 0417 1643 00"],
    "card": ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005"],
    "ip": ["192.168.1.20", "fe80::1", "2001:db8:85a3::8a2e:370:7334"],
    "phone": ["212-555-0123", "(020) 7946 0123", "+44 20 7946 0123", "0171 2345678", "+33 1 23 45 67 89"],
    "name": ["Ada Byron", "Mei-Ling Chua", "Conor O'Brien", "Zoë Ångström"],
}
EMAIL = "Dear {name},\n\nPlease use {value} for it.\n\nKind regards,\nPavel Horák"
PERSONAL = [value for kind, values in VALUES.items() if kind != "name" for value in values]

# The first number of a country loads its metadata, and a busy machine takes its time.
unhurried = settings(deadline=None, max_examples=50)


def kinds(text: str, names: bool = False) -> list[str]:
    return [found.kind for found in find(text, names)]


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, vs in VALUES.items() if k != "name" for v in vs])
def test_what_is_personal_by_its_form_is_found_where_it_stands(kind: str, value: str):
    text = f"Please use {value}, for the kites."
    (found,) = find(text)
    assert (found.kind, found.text) == (kind, value)
    assert text[found.start : found.end] == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "We sat on 12 chairs at 10:15:30 on 14 May.",
        "The IBAN GB82 WEST 1234 5698 7654 33 has a wrong checksum, and so has the card 4111 1111 1111 1112.",
        "Order 2079460123, invoice no. 212-555-0123, ref: 0171 2345678.",
        "It costs $1,234,567.00 or 3 000 000 euros.",
        "1 800 000 4321 87 of them, 2079460123",
        "Version 1.2.3.4 calls std::cout, see section 4.1.2.3.",
        "ada@home, @ada, a.b.c",
    ],
)
def test_what_only_looks_personal_is_not_found(text: str):
    assert find(text) == []


@given(st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)), st.sampled_from(["%Y-%m-%d %H:%M", "%d.%m.%Y", "%c"]))
@unhurried
def test_a_date_is_no_phone_number(when: datetime, form: str):
    assert find(f"We meet on {when.strftime(form)}.") == []


@given(st.integers(10**12, 10**18))
@unhurried
def test_a_long_number_is_a_card_only_if_its_check_digit_holds(number: int):
    assert all(luhn.is_valid(found.text) for found in find(f"It is {number}.") if found.kind == "card")


def test_digits_in_a_row_are_a_phone_number_after_a_word_that_says_so():
    assert kinds("Call me on 2079460123") == ["phone"]
    assert kinds("my mobile: 07911123456") == ["phone"]
    assert kinds("They are 2079460123") == []


def test_two_spellings_of_one_number_have_one_key():
    first, second = find("Ring (020) 7946 0123 or +44 20 7946 0123")
    assert first.key == second.key


def test_kinds_never_overlap_and_come_in_order():
    found = find("https://kite.example/ada@kite.example?ip=192.168.1.20, then ada@kite.example, 192.168.1.20")
    assert [f.kind for f in found] == ["link", "address", "ip"]


@given(st.lists(st.sampled_from([*PERSONAL, "Dear Ada,\n", "\nBest,\nKim", "call", " ", "\n", ","])).map(" ".join))
@unhurried
def test_found_values_are_in_order_apart_and_quoted_exactly(text: str):
    found = find(text, names=True)
    assert all(text[f.start : f.end] == f.text and f.kind in KINDS for f in found)
    assert all(before.end <= after.start for before, after in pairwise(found))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Dear Ada Byron,\n\nThank you.", ["Ada Byron"]),
        ("Hi Ada and Bo,\n\nThank you.", ["Ada", "Bo"]),
        ("Hello Ada, Bo and Chidi!\nThank you.", ["Ada", "Bo", "Chidi"]),
        ("Hi Ada, Could you come?", ["Ada"]),
        ("Dear Mr. O'Brien,\n\nThank you.", ["O'Brien"]),
        ("Subject: Kites\n\nAda,\n\nThank you.", ["Ada"]),
        ("Thank you.\n\nKind regards,\nPavel Horák\nHead of Kites", ["Pavel Horák"]),
        ("Thank you for all of it.\n\nBest wishes, Kim van der Berg", ["Kim van der Berg"]),
        ("We sat well.\n\nKim", ["Kim"]),
        ("to: Dr Ilse Brandt\nfrom: Pavel", ["Ilse Brandt", "Pavel"]),
        ("Thank Ms Ieva Ozola. I'm Halvard Lunde", ["Ieva Ozola", "Halvard Lunde"]),
        ("Dear Ms Ozola,\n\nI wrote that Ieva Ozola came, and OZOLA stayed.", ["Ozola", "Ieva Ozola", "OZOLA"]),
        ("Thank you.\n\nLiebe Grüße\nAnna", ["Anna"]),
        ("Hi Ada,\n\nAda Byron's kite and Ada's chair.", ["Ada", "Ada Byron", "Ada"]),
    ],
)
def test_names_are_found_by_where_they_stand_and_then_wherever_they_recur(text: str, names: list[str]):
    assert [found.text for found in find(text, names=True)] == names
    assert find(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Dear Sir or Madam,\n\nThank you.",
        "Hi all,\n\nWe meet on Monday in May.\n\nBest,\nThe Team",
        "Dear Customer Support,\n\nIt broke.\n\nMany thanks,",
        "Fernhill Primary",
        "Hello there,\n\nPlease come.\n\nThank you!",
        "Please come. I will see you in\nParis\nat noon.",
        "In any case\nChairs\nare broken.",
    ],
)
def test_what_greets_nobody_names_nobody(text: str):
    assert find(text, names=True) == []


@given(st.lists(st.text()), st.text())
def test_keep_changes_nothing(texts: list[str], thread: str):
    privacy = Privacy("keep", names=True)
    assert privacy.apply(texts, thread) == texts
    assert privacy.counts == {}


def test_a_mask_says_what_stood_there():
    privacy = Privacy("mask", names=True)
    task, email = privacy.apply(["Call 212-555-0123", EMAIL.format(name="Ada", value="ada@kite.example")], "1")
    assert task == "Call [PHONE]"
    assert email == "Dear [NAME],\n\nPlease use [EMAIL] for it.\n\nKind regards,\n[NAME]"
    assert privacy.counts == {"phone": 1, "name": 2, "address": 1}


@pytest.mark.parametrize("tag", TAGS.values())
def test_a_mask_is_counted_as_a_placeholder_where_an_adapter_writes_it(tag: str):
    assert PLACEHOLDER.search(f"Please call {tag}.")


ROWS = st.lists(
    st.builds(
        lambda name, value, other: EMAIL.format(name=name, value=f"{value}, or {other},"),
        st.sampled_from(VALUES["name"]),
        st.sampled_from(PERSONAL),
        st.sampled_from(PERSONAL),
    ),
    min_size=1,
    max_size=3,
)


@given(ROWS, st.sampled_from(["mask", "fake"]), st.integers(0, 5))
@unhurried
def test_no_value_that_was_found_remains(texts: list[str], mode: str, seed: int):
    originals = {found.text for text in texts for found in find(text, names=True)}
    for written in Privacy(mode, names=True, seed=seed).apply(texts, "1"):
        assert not [value for value in originals if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", written)]


@given(ROWS)
@unhurried
def test_masking_twice_is_masking_once(texts: list[str]):
    once = Privacy("mask", names=True).apply(texts, "1")
    assert Privacy("mask", names=True).apply(once, "1") == once
    assert all(found == [] for found in (find(text, names=True) for text in once))


@given(
    st.lists(st.sampled_from(["Dear", "Ada", "Mr", "\n", ",", "Best", "Kim", "NAME", "[NAME]", "to:"])).map(" ".join)
)
@unhurried
def test_masking_ends_and_leaves_nothing_of_any_text(text: str):
    once = Privacy("mask", names=True).apply([text], "1")
    assert Privacy("mask", names=True).apply(once, "1") == once


@given(ROWS, st.integers(0, 5))
@unhurried
def test_what_is_invented_is_of_the_same_kind(texts: list[str], seed: int):
    invented = Privacy("fake", names=True, seed=seed).apply(texts, "1")
    assert [kinds(text, names=True) for text in invented] == [kinds(text, names=True) for text in texts]


@given(ROWS, st.text(max_size=5))
@unhurried
def test_a_thread_gets_the_same_stand_ins_in_every_row_and_every_run(texts: list[str], thread: str):
    privacy = Privacy("fake", names=True)
    first = privacy.apply(texts, thread)
    assert privacy.apply(texts, thread) == first
    assert Privacy("fake", names=True).apply(texts, thread) == first


def test_another_thread_or_seed_gets_other_stand_ins():
    invented = {
        Privacy("fake", seed=seed).apply(["ada@kite.example"], thread)[0] for seed in (1, 2) for thread in ("a", "b")
    }
    assert len(invented) == 4


def faked(text: str) -> str:
    (written,) = Privacy("fake", names=True).apply([text], "1")
    return written


def value(text: str) -> PersonalValue:
    (found,) = find(text)
    return found


@pytest.mark.parametrize("written", VALUES["iban"])
def test_an_invented_iban_is_valid_of_the_same_country_and_shape(written: str):
    invented = faked(written)
    assert iban.is_valid(invented, check_country=False)
    assert (invented[:2], re.sub(r"\w", "x", invented)) == (written[:2], re.sub(r"\w", "x", written))


@pytest.mark.parametrize("written", VALUES["card"])
def test_an_invented_card_is_valid_and_of_the_same_issuer_and_shape(written: str):
    invented = faked(written)
    assert luhn.is_valid(re.sub(r"\D", "", invented))
    assert (invented[:2], re.sub(r"\d", "0", invented)) == (written[:2], re.sub(r"\d", "0", written))


@pytest.mark.parametrize("written", [*VALUES["phone"], "713-555-0161 x123", "1-800-356-9377"])
def test_an_invented_phone_number_keeps_its_shape(written: str):
    assert re.sub(r"\d", "0", faked(written)) == re.sub(r"\d", "0", written)


def test_invented_addresses_and_links_lead_to_nobody():
    assert re.fullmatch(r"\S+@example\.(?:com|org|net)", faked("ada@kite.example"))
    assert faked("https://kite.example/plan").startswith("https://example.com/")
    assert faked("www.kite.example").startswith("www.example.com/")


def test_two_spellings_of_one_value_get_one_stand_in():
    written = faked(
        "Ring (020) 7946 0123 or +44 20 7946 0123, ask for GB82WEST12345698765432, GB82 WEST 1234 5698 7654 32"
    )
    phone, again, account, spaced = find(written)
    assert phone.key == again.key
    assert account.text == spaced.text.replace(" ", "")


def test_a_value_is_replaced_where_nothing_gives_it_away():
    privacy = Privacy("fake", names=True)
    _, email, fact, name = privacy.apply(
        ["to: Ilse Brandt", "Dear Ilse,\n\nCall me on 2125550123.\n\nBest,\nKim", "2125550123", "Brandt"], "1"
    )
    assert "2125550123" not in email
    assert fact in email
    assert name not in ("Brandt", "")


def test_a_number_is_replaced_where_it_is_spelled_otherwise_and_nothing_gives_it_away():
    email, fact = Privacy("fake").apply(["Call me on 212-555-0123.", "2125550123"], "1")
    assert fact != "2125550123"
    assert fact in email.replace("-", "")


def test_nobody_in_a_thread_shares_a_stand_in_or_gets_the_name_of_another():
    names = [
        "Mary",
        "James",
        *(f"{first}{rest}" for first in "BDFGHJKLMN" for rest in ("ala", "elo", "iri", "oma", "uz")),
    ]
    greetings = Privacy("fake", names=True).apply([f"Dear {name},\n\nThank you." for name in names], "1")
    invented = [greeting.split()[1] for greeting in greetings]
    assert len({*invented, *(f"{name}," for name in names)}) == 2 * len(names)


def test_a_first_name_stands_in_for_a_first_name_wherever_it_recurs():
    task, email, fact = Privacy("fake", names=True).apply(
        ["Thank Mrs Ada Byron, I'm Kim.", "Dear Ada,\n\nThank you, ADA.\n\nBest,\nKim", "Ada Byron"], "1"
    )
    first, last = fact.split()
    assert task.startswith(f"Thank Mrs {first} {last}, I'm ")
    assert email.startswith(f"Dear {first},\n\nThank you, {first.upper()}.")
    assert email.endswith(task.removesuffix(".").rpartition(" ")[2])


def test_a_later_row_of_the_thread_knows_the_names_of_an_earlier_one():
    privacy = Privacy("mask", names=True)
    privacy.apply(["Dear Ada,\n\nThank you.\n\nBest,\nKim"], "1")
    assert privacy.apply(["They say that Ada came."], "1") == ["They say that [NAME] came."]
    assert privacy.apply(["They say that Ada came."], "2") == ["They say that Ada came."]


def test_what_is_not_asked_for_stays():
    assert Privacy("mask").apply(["Dear Ada,\n\nCall 212-555-0123."], "1") == ["Dear Ada,\n\nCall [PHONE]."]
