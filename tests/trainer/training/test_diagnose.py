"""What a verdict rests on: each rule by itself, on losses as a run would leave them."""

import math
from dataclasses import replace

import pytest

from trainer.training.diagnose import Curve, diagnose
from trainer.training.recipe import Recipe

RECIPE = Recipe(epochs=3, batch_size=4)
HEALTHY = Curve([2.0, 1.6, 1.2, 0.9], [1.8, 1.05], [1.5, 1.3], 2.1, 1e-3)


def test_a_healthy_run_has_no_remedy():
    verdict = diagnose(HEALTHY, RECIPE)
    assert (verdict.name, verdict.because) == ("healthy", "the held-out loss fell from 2.100 to 1.300")
    assert verdict.hint == ""


def test_a_run_with_nothing_held_out_says_so():
    verdict = diagnose(Curve([2.0, 1.0], [1.5], [], None, 1e-3), RECIPE)
    assert verdict.because == "the training loss went from 2.000 to 1.000; nothing was held out"


def test_overfitting_names_both_epochs_and_both_losses():
    verdict = diagnose(replace(HEALTHY, train=[1.8, 1.2, 0.6], heldout=[1.5, 1.4, 1.6]), RECIPE)
    assert verdict.name == "overfitting"
    assert verdict.because == (
        "the held-out loss was lowest after epoch 2 (1.400) and is 1.600 after epoch 3, 14 % higher, while the "
        "training loss fell from 1.200 to 0.600"
    )
    assert verdict.hint == "trainer sft ... --dropout 0.1 --early-stop 2"


def test_an_early_stop_has_kept_the_best_epoch():
    curve = replace(HEALTHY, train=[1.8, 1.2, 0.6], heldout=[1.5, 1.4, 1.6])
    verdict = diagnose(curve, RECIPE.model_copy(update={"early_stop": 1}))
    assert verdict.name == "healthy"
    assert verdict.because == "the held-out loss fell from 2.100 to 1.400 after epoch 2, which was kept"


def test_a_training_loss_that_rises_is_no_overfitting():
    verdict = diagnose(replace(HEALTHY, train=[1.2, 1.3], heldout=[1.4, 1.6]), RECIPE)
    assert verdict.because == "the training loss rose from 1.200 to 1.300 in epoch 2"


def test_a_dropout_that_was_chosen_is_kept():
    curve = replace(HEALTHY, train=[1.8, 0.6], heldout=[1.5, 1.6])
    assert diagnose(curve, RECIPE.model_copy(update={"dropout": 0.3})).remedy["dropout"] == 0.3


def test_a_loss_that_is_no_number():
    verdict = diagnose(replace(HEALTHY, steps=[2.0, math.nan, 1.0], train=[math.nan], heldout=[math.nan]), RECIPE)
    assert verdict.because == "the loss of step 2 is NaN or infinite"
    assert verdict.hint == "trainer sft ... --learning-rate 0.00033"


def test_a_loss_that_climbs_for_ten_steps():
    verdict = diagnose(replace(HEALTHY, steps=[2.0, 1.5] + [2.5] * 10 + [1.0]), RECIPE)
    assert verdict.because == "the loss was 2.000 at first and 2.400 on the average of 10 steps up to 11"


def test_what_is_known_by_heart_may_rise_by_a_share_of_nearly_nothing():
    curve = replace(HEALTHY, train=[1.8, 0.001, 0.002], heldout=[1.5, 1.4, 1.6])
    assert diagnose(curve, RECIPE).name != "learning rate too high"


def test_a_run_that_ends_worse_than_it_began():
    verdict = diagnose(replace(HEALTHY, heldout=[2.2, 2.15], heldout_before=2.1), RECIPE)
    assert verdict.name == "learning rate too high"
    assert verdict.because == "the held-out loss was 2.100 before the run, and at best 2.150 after it"


def test_a_run_in_which_no_epoch_moved_much():
    verdict = diagnose(replace(HEALTHY, heldout=[2.09, 2.07], heldout_before=2.1), RECIPE)
    assert verdict.name == "learning rate too low"
    assert verdict.because == ("the epoch that moved most took the held-out loss from 2.090 to 2.070, less than 2 %")
    assert verdict.hint == "trainer sft ... --learning-rate 0.003"


@pytest.mark.parametrize(("last", "name"), [(1.99, "learning rate too low"), (1.0, "healthy")])
def test_without_held_out_emails_the_first_and_last_steps_tell(last: float, name: str):
    assert diagnose(Curve([2.0] * 10 + [last] * 10, [last], [], None, 1e-3), RECIPE).name == name


def test_a_run_that_ended_too_early():
    verdict = diagnose(replace(HEALTHY, train=[1.9, 1.6, 1.45], heldout=[1.9, 1.7, 1.5]), RECIPE)
    assert verdict.name == "underfitting"
    assert verdict.because == (
        "epoch 3 still took the held-out loss from 1.700 to 1.500, and the training loss, 1.450, is not far below it"
    )
    assert verdict.hint == "trainer sft ... --epochs 6"


def test_the_best_epoch_is_the_first_of_the_lowest():
    assert replace(HEALTHY, heldout=[1.5, 1.2, 1.2]).best_epoch == 2


def test_forgetting_is_a_rise_of_the_loss_on_general_text_and_mended_by_general_examples():
    verdict = diagnose(replace(HEALTHY, general_before=3.0, general=3.3), RECIPE)
    assert (verdict.name, verdict.because) == (
        "forgetting",
        "the loss on general text rose from 3.000 to 3.300, by 10 %",
    )
    assert verdict.hint == "trainer sft ... --mix 0.2"
    assert diagnose(replace(HEALTHY, general_before=3.0, general=3.1), RECIPE).name == "healthy"


def test_where_general_examples_were_mixed_in_forgetting_is_mended_by_a_lower_rate():
    verdict = diagnose(replace(HEALTHY, general_before=3.0, general=3.3), RECIPE.model_copy(update={"mix": 0.2}))
    assert verdict.hint == "trainer sft ... --learning-rate 0.00033"


def test_a_first_step_of_general_examples_is_no_measure_of_what_comes_after():
    mixed = RECIPE.model_copy(update={"mix": 0.2})
    curve = replace(HEALTHY, steps=[0.4] + [1.5] * 10)
    assert diagnose(curve, RECIPE).name == "learning rate too high"
    assert diagnose(curve, mixed).name == "healthy"
    assert diagnose(replace(curve, heldout=[], heldout_before=None), mixed).name == "healthy"
    assert diagnose(replace(curve, steps=[0.4] + [2.6] * 10), mixed).name == "learning rate too high"


def test_a_leak_comes_before_all_that_finite_losses_say_and_no_field_of_the_recipe_mends_it():
    verdict = diagnose(replace(HEALTHY, leaked=3, heldout=[2.2, 2.15]), RECIPE)
    assert (verdict.name, verdict.remedy) == ("leak", {})
    assert verdict.hint == "leave --heldout-data out, or give it emails that are not in --data"


def test_a_loss_that_is_nan_comes_before_a_leak():
    verdict = diagnose(replace(HEALTHY, leaked=3, steps=[2.0, math.nan]), RECIPE)
    assert (verdict.name, verdict.because) == ("learning rate too high", "the loss of step 2 is NaN or infinite")
    assert verdict.hint == "trainer sft ... --learning-rate 0.00033"


@pytest.mark.parametrize(
    ("curve", "changed", "name"),
    [
        (replace(HEALTHY, train=[1.9, 1.6, 1.45], heldout=[1.9, 1.7, 1.5]), {"epochs": 600}, "underfitting"),
        (replace(HEALTHY, heldout=[2.09, 2.07], learning_rate=0.5), {}, "learning rate too low"),
    ],
)
def test_a_remedy_that_no_recipe_can_take_is_not_advised(curve: Curve, changed: dict[str, int], name: str):
    verdict = diagnose(curve, RECIPE.model_copy(update=changed))
    assert (verdict.name, verdict.remedy, verdict.hint) == (name, {}, "")
