import math
from types import SimpleNamespace

import pytest
from transformers import TrainerControl

from trainer.callbacks import EpochReport, Progress

pytestmark = [pytest.mark.training]


def epoch(report: EpochReport, losses: list[float], heldout: float | None) -> None:
    """What the Trainer calls in one epoch."""
    args = SimpleNamespace(eval_strategy="no" if heldout is None else "epoch")
    control = TrainerControl()
    for loss in losses:
        report.on_log(args, None, control, logs={"loss": loss, "epoch": 0.5})
    report.on_epoch_end(args, None, control)
    if heldout is not None:
        report.on_log(args, None, control, logs={"eval_loss": heldout})
        report.on_evaluate(args, None, control, metrics={"eval_loss": heldout})


def test_an_epoch_is_reported_with_both_losses_and_an_email():
    said: list[str] = []
    epoch(EpochReport(said.append, lambda: "Dear Ada,\nThank you."), [2.0, 1.0], 1.25)
    assert said == [
        "Epoch 1 complete! training loss 1.500, held-out loss 1.250",
        "  sample email:\n  | Dear Ada,\n  | Thank you.",
    ]


def test_without_held_out_emails_only_the_training_loss_is_reported():
    said: list[str] = []
    epoch(EpochReport(said.append, lambda: "x"), [2.0], None)
    assert said[0] == "Epoch 1 complete! training loss 2.000"


def test_each_epoch_has_its_own_mean():
    said: list[str] = []
    report = EpochReport(said.append, lambda: "x")
    epoch(report, [4.0], 4.0)
    epoch(report, [2.0], 3.0)
    assert said[2] == "Epoch 2 complete! training loss 2.000, held-out loss 3.000"
    assert (report.steps, report.train, report.heldout) == ([4.0, 2.0], [4.0, 2.0], [4.0, 3.0])


def test_a_loss_that_is_no_number_ends_the_run():
    report, control = EpochReport(lambda _: None, lambda: "x"), TrainerControl()
    report.on_log(None, None, control, logs={"loss": 1.0})
    assert not control.should_training_stop
    report.on_log(None, None, control, logs={"loss": math.nan})
    assert control.should_training_stop


def test_an_evaluation_before_the_first_epoch_is_not_reported():
    said: list[str] = []
    EpochReport(said.append, lambda: "x").on_evaluate(None, None, None, metrics={"eval_loss": 5.0})
    assert said == []


def test_the_bar_counts_every_step_and_shows_the_loss(capsys: pytest.CaptureFixture[str]):
    progress = Progress()
    progress.on_train_begin(None, SimpleNamespace(max_steps=2), None)
    progress.on_step_end(None, None, None)
    progress.on_log(None, None, None, logs={"loss": 1.5})
    progress.on_step_end(None, None, None)
    progress.on_train_end(None, None, None)
    assert progress.bar.n == 2
    assert "loss=1.50" in capsys.readouterr().err
