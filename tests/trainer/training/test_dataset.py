"""Which rows a run trains on and holds out; no model here."""

import pytest

from tests.trainer.training.test_sft import RECIPE, emails, nobody_listens
from trainer.data.examples import Example
from trainer.training.dataset import choose_rows

PRACTISED = RECIPE.model_copy(update={"practice": 7})


@pytest.mark.parametrize("voice", ["formal", "friendly"])
def test_rows_of_a_known_voice_get_practice_in_it(voice: str):
    rows = choose_rows(emails(voice=voice), PRACTISED, nobody_listens)
    assert (len(rows.train), len(rows.heldout), rows.practice) == (11 + 7, 1, 7)
    assert {example.voice for example in rows.train} == {voice}


def test_held_out_rows_are_never_generated():
    rows = choose_rows(emails(voice="formal"), PRACTISED, nobody_listens)
    assert all(example in emails(voice="formal") for example in rows.heldout)


@pytest.mark.parametrize(
    "examples",
    [emails(), emails(voice="pirate"), [*emails(6, "formal"), *emails(6, "friendly")]],
    ids=["none", "unknown", "two"],
)
def test_rows_without_one_known_voice_use_no_practice(examples: list[Example]):
    said: list[str] = []
    rows = choose_rows(examples, PRACTISED, said.append)
    assert rows.practice == 0
    assert all(example in examples for example in rows.train)
    assert "no generated practice" in said[0]


def test_repeats_repeat_the_emails_and_not_the_practice():
    rows = choose_rows(emails(voice="formal"), PRACTISED.model_copy(update={"repeats": 3}), nobody_listens)
    assert len(rows.train) == 3 * 11 + 7
    assert all(email in [*rows.train, *rows.heldout] for email in emails(voice="formal"))
