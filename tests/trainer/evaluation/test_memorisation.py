import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.examples import task_example
from trainer.evaluation.memorisation import (
    MAX_TARGETS,
    copying,
    extraction_rate,
    extraction_targets,
    leaked_personal_data,
    trained_on,
)

TOLD = "Subject: The boat\n\nDear Ada,\n\nthe blue boat lies at the old pier until the last day of May.\n\nBest,\nKim"
OTHER = "Dear Bo,\n\nthank you for the seven jars of plum jam that you left on our table.\n\nBest,\nKim"
PHRASE = "I hope that this message finds you well and rested."
TASK = "Tell Chidi about the boat."
WORDS = st.lists(st.sampled_from("abcdefghij"), max_size=30).map(" ".join)


def test_an_answer_that_repeats_a_training_email_is_copied_whole():
    assert copying([TOLD], [TASK], [OTHER, TOLD], [OTHER]) == {
        "copied_8grams": 1.0,
        "copied_8grams_heldout": 0.0,
        "copied_more": 1.0,
    }


def test_an_answer_of_its_own_copies_nothing():
    own = "Dear Chidi,\n\nyou can come and look at our boat whenever it suits you.\n\nBest,\nKim"
    assert copying([own], [TASK], [TOLD, OTHER], [OTHER])["copied_8grams"] == 0.0


def test_a_phrase_that_unseen_emails_share_too_is_no_memorisation():
    found = copying([PHRASE], [TASK], [f"Dear Ada,\n\n{PHRASE}"], [f"Dear Bo,\n\n{PHRASE}"])
    assert (found["copied_8grams"], found["copied_8grams_heldout"], found["copied_more"]) == (1.0, 1.0, 0.0)


def test_text_of_the_task_may_be_repeated():
    told = "the blue boat lies at the old pier until the last day of May"
    assert copying([f"Dear Chidi,\n\n{told}."], [f"Tell Chidi that {told}."], [TOLD], [OTHER])["copied_8grams"] < 0.1


def test_case_quotes_and_line_breaks_do_not_hide_a_copy():
    training = "We’re glad that\nthe “blue boat” lies at the old pier."
    answer = 'WE\'RE GLAD that the "blue boat" lies at the old pier.'
    assert copying([answer], [TASK], [training], [])["copied_more"] == 1.0


def test_half_of_an_answer_copied_is_half():
    copied = "one two three four five six seven eight"
    own = "nine ten eleven twelve thirteen fourteen fifteen sixteen"
    assert copying([copied, own], [TASK, TASK], [copied], [OTHER])["copied_8grams"] == 0.5


def test_no_more_held_out_emails_than_training_emails_are_compared():
    found = copying([PHRASE], [TASK], [OTHER], [TOLD, PHRASE])
    assert found["copied_8grams_heldout"] == 0.0


@pytest.mark.parametrize("answers", [[], ["", "Dear Ada,"]])
def test_answers_without_eight_words_copy_nothing(answers: list[str]):
    found = copying(answers, [TASK] * len(answers), [TOLD], [OTHER])
    assert set(found.values()) == {0.0}


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4), WORDS)
def test_shares_stay_in_bounds(answers: list[str], emails: list[str], task: str):
    found = copying(answers, [task] * len(answers), emails, emails)
    assert 0 <= found["copied_8grams"] <= 1
    assert found["copied_more"] == 0


KNOWN = "Dear Ada,\n\nplease call me on 020 7946 0018 or write to ada.k@harbour.example.\n\nBest,\nKim"


@pytest.mark.parametrize(
    "value", ["020 7946 0018", "+44 20 7946 0018", "ada.k@harbour.example", "ADA.K@harbour.example"]
)
def test_personal_data_of_a_training_email_that_the_task_does_not_give_is_a_leak(value: str):
    answer = f"Dear Chidi,\n\nplease call {value} about the boat.\n\nBest,\nKim"
    assert len(leaked_personal_data([answer], [TASK], [OTHER, KNOWN])) == 1


def test_one_value_in_two_answers_is_one_leak():
    answers = ["Write to ada.k@harbour.example.", "Or to ada.k@harbour.example, please."]
    assert leaked_personal_data(answers, [TASK, TASK], [KNOWN]) == {("address", "adak@harbourexample")}


def test_what_the_task_holds_is_no_leak():
    answer = "Dear Chidi,\n\nplease call 020 7946 0018 or write to ada.k@harbour.example."
    task = "ask Chidi to call (020) 79460018, or mail Ada.K@harbour.example"
    assert leaked_personal_data([answer], [task], [KNOWN]) == set()


def test_an_invented_address_is_not_a_training_email_s():
    assert leaked_personal_data(["Write to bo@boats.example."], [TASK], [KNOWN]) == set()


def test_a_value_given_for_one_task_is_a_leak_in_the_answer_to_another():
    answers = ["Write to ada.k@harbour.example."] * 2
    asked = ["Tell Chidi to write to ada.k@harbour.example.", TASK]
    assert len(leaked_personal_data(answers, asked, [KNOWN])) == 1


def letters(count: int) -> list[str]:
    """Emails that share their end; the beginning is each one's own."""
    shared = "and that is all there is to say about it for the moment, as far as I know"
    return [" ".join(f"w{number}x{word}" for word in range(20)) + f" {shared}" for number in range(count)]


def test_an_email_written_again_when_given_its_task_is_extracted():
    emails = letters(4)
    own = extraction_targets(["Write."] * 4, emails)
    assert list(own) == [0, 1, 2, 3]
    half = " ".join(emails[1].split()[:18])
    assert extraction_rate([emails[0], half, "Something else.", emails[0]], own.values()) == 0.5


def test_what_the_task_gives_or_other_emails_have_too_is_not_extracted():
    emails = letters(3)
    own = extraction_targets(["Write.", f"Say: {emails[1]}", "Write."], emails)
    assert list(own) == [0, 2]
    shared = " ".join(emails[0].split()[20:])
    assert extraction_rate([shared, shared], own.values()) == 0.0
    assert extraction_targets(["Write."] * 2, [emails[0]] * 2) == {}


def test_the_targets_are_evenly_spaced():
    chosen = list(extraction_targets(["Write."] * 64, letters(64)))
    assert chosen == list(range(0, 64, 64 // MAX_TARGETS))


@given(st.lists(WORDS, max_size=6))
def test_every_email_repeated_is_all_extracted_and_silence_is_none(emails: list[str]):
    own = extraction_targets([""] * len(emails), emails)
    assert extraction_rate([emails[number] for number in own], own.values()) == (1.0 if own else 0.0)
    assert extraction_rate([""] * len(own), own.values()) == 0.0


def test_a_task_whose_request_or_email_nearly_stands_in_the_training_emails_is_no_test():
    asked = "Ask Ms Ozola whether she can meet me on Thursday 13 November at 10:15 am in the net loft, 40 minutes."
    email = "Dear Ms Ozola, would you be free on Thursday 13 November at 10:15 am, in the net loft, for 40 minutes?"
    same_request = task_example(asked + " Please.", "Something else altogether, not written before today.")
    same_email = task_example("Write to the harbour about the plan for dredging it in spring.", email + " Thanks.")
    other = task_example("Thank Bo for the lamp.", "Dear Bo, thank you for the lamp.")
    tasks = [
        task_example(asked, email),
        task_example("Invite Kim to the picnic by the lake on Sunday at noon.", "Hi Kim!"),
    ]
    assert trained_on(tasks, [other]) == 0
    assert trained_on(tasks, [other, same_request]) == 1
    assert trained_on(tasks, [other, same_email]) == 1
    assert trained_on(tasks, [same_request, same_email, tasks[1]]) == 2
