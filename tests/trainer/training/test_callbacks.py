import math
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback, TrainerControl

from trainer.training import callbacks
from trainer.training.callbacks import (
    EpochReport,
    Interruption,
    LearningRate,
    Progress,
    Saving,
    curve,
)
from trainer.training.diagnose import Curve

pytestmark = [pytest.mark.training]


class Trained:
    """What the Trainer calls in a run with two steps an epoch, and its history of logs."""

    def __init__(self, *callbacks: TrainerCallback, heldout: bool = True) -> None:
        self.callbacks = callbacks
        self.args = SimpleNamespace(eval_strategy="epoch" if heldout else "no", learning_rate=1e-3)
        self.state = SimpleNamespace(global_step=0, epoch=0.0, max_steps=6, log_history=[])
        self.control = TrainerControl()
        self.model = torch.nn.Linear(1, 1)

    def tell(self, event: str, **what: object) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self.args, self.state, self.control, model=self.model, **what)

    def evaluate(self, loss: float) -> None:
        self.state.log_history.append({"eval_loss": loss, "epoch": self.state.global_step / 2})
        self.tell("on_evaluate", metrics={"eval_loss": loss})

    def step(self, loss: float) -> None:
        self.state.global_step += 1
        self.state.epoch = self.state.global_step / 2
        self.tell("on_step_end")
        self.state.log_history.append({"loss": loss, "epoch": self.state.global_step / 2})
        figures = ["learning_rate", "num_input_tokens_seen", "train_tokens_per_second", "train_runtime"]
        self.tell("on_log", logs={"loss": loss, "epoch": self.state.epoch} | dict.fromkeys(figures, 1.0))

    def epoch(self, losses: list[float], heldout: float | None) -> None:
        for loss in losses:
            self.step(loss)
        self.tell("on_epoch_end")
        if heldout is not None:
            self.evaluate(heldout)


def test_an_epoch_is_reported_with_both_losses_and_an_email():
    said: list[str] = []
    run = Trained(EpochReport(said.append, lambda: "Dear Ada,\nThank you."))
    run.evaluate(5.0)
    run.epoch([2.0, 1.0], 1.25)
    assert said == [
        "Epoch 1 complete! training loss 1.500, held-out loss 1.250",
        "  sample email:\n  | Dear Ada,\n  | Thank you.",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(40.0, ["4 more steps take about 3 minutes on this machine"]), (1.0, [])]
)
def test_after_two_steps_a_long_run_says_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, seconds: float, said: list[str]
):
    ends = iter([100.0, 100 + seconds, 100 + 2 * seconds])
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(ends)))
    found: list[str] = []
    run = Trained(EpochReport(found.append, lambda: "x"))
    for _ in range(3):
        run.step(2.0)
    assert found == said


def test_without_held_out_emails_only_the_training_loss_is_reported():
    said: list[str] = []
    Trained(EpochReport(said.append, lambda: "x"), heldout=False).epoch([2.0, 2.0], None)
    assert said[0] == "Epoch 1 complete! training loss 2.000"


def test_each_epoch_has_its_own_mean_and_the_curve_is_that_of_the_whole_run():
    said: list[str] = []
    run = Trained(EpochReport(said.append, lambda: "x"))
    run.evaluate(5.0)
    run.epoch([4.0, 3.0], 4.0)
    run.epoch([2.0, 1.0], 3.0)
    assert said[2] == "Epoch 2 complete! training loss 1.500, held-out loss 3.000"
    assert curve(run.state.log_history, 1e-3) == Curve([4.0, 3.0, 2.0, 1.0], [3.5, 1.5], [4.0, 3.0], 5.0, 1e-3)


def test_a_history_that_ends_amid_an_epoch_counts_the_steps_of_that_one():
    run = Trained(heldout=False)
    run.epoch([4.0, 3.0], None)
    run.step(1.0)
    assert curve(run.state.log_history, 1e-3).train == [3.5, 1.0]


def saves(run: Trained) -> bool:
    """What the Trainer does where it is asked to."""
    asked, run.control.should_save = run.control.should_save, False
    if asked:
        run.tell("on_save")
    return asked


def test_the_state_is_saved_when_it_is_time_with_an_epoch_s_end_after_its_evaluation_and_with_the_last_step():
    noted: list[int] = []
    always, rarely = (Trained(Saving(every, lambda: noted.append(1)), heldout=False) for every in (0, 10_000))
    for run, wanted in ((always, [True, False, True] * 3), (rarely, [False] * 8 + [True])):
        asked = []
        for _ in range(3):
            for _ in range(2):
                run.step(1.0)
                asked.append(saves(run))
            run.tell("on_epoch_end")
            asked.append(saves(run))
        assert asked == wanted
    assert len(noted) == 7


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved():
    run = Trained(Saving(0, lambda: None), heldout=False)
    run.step(1.0)
    assert (run.control.should_save, run.control.should_training_stop) == (True, False)
    run.step(math.nan)
    assert (run.control.should_save, run.control.should_training_stop) == (False, True)
    run.control.should_save = True  # as the end of an epoch asks for
    run.tell("on_epoch_end")
    assert not run.control.should_save


def test_weights_that_are_no_numbers_are_not_saved():
    run = Trained(Saving(0, lambda: None), heldout=False)
    torch.nn.init.constant_(run.model.weight, math.inf)
    run.step(1.0)
    assert not run.control.should_save
    run.tell("on_epoch_end")
    assert not run.control.should_save


@pytest.fixture
def heard() -> Iterator[None]:
    """A test run in the background of a shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_and_saves_it(number: signal.Signals):
    interruption = Interruption()
    run, before = Trained(interruption, heldout=False), signal.getsignal(number)
    with interruption.listening():
        run.step(1.0)
        assert not run.control.should_training_stop
        signal.raise_signal(number)
        assert interruption.received == number
        assert signal.getsignal(number) == before  # a second one ends the process
        run.step(1.0)
    assert (run.control.should_save, run.control.should_training_stop) == (False, True)
    run.control.should_evaluate = True
    run.tell("on_epoch_end")
    assert (run.control.should_save, run.control.should_evaluate) == (True, True)
    assert signal.getsignal(number) == before


@pytest.mark.usefixtures("heard")
def test_an_epoch_that_a_signal_ends_is_saved_and_neither_evaluated_nor_reported():
    said: list[str] = []
    interruption = Interruption()
    run = Trained(interruption, EpochReport(said.append, lambda: "x"), heldout=False)
    with interruption.listening():
        signal.raise_signal(signal.SIGINT)
        run.step(1.0)
    assert saves(run)
    run.control.should_evaluate = run.control.should_save = True  # as the end of an epoch asks for
    run.tell("on_epoch_end")
    assert (run.control.should_save, run.control.should_evaluate) == (False, False)
    assert said == []


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption().listening():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_bar_counts_every_step_and_shows_the_loss(capsys: pytest.CaptureFixture[str]):
    progress = Progress()
    progress.on_train_begin(None, SimpleNamespace(max_steps=2, global_step=0), None)
    progress.on_step_end(None, None, None)
    progress.on_log(None, None, None, logs={"loss": 1.5, "learning_rate": 1e-3, "train_tokens_per_second": 123.4})
    progress.on_log(None, None, None, logs={"eval_loss": 1.75})
    with progress:
        progress.on_step_end(None, None, None)
    assert progress.bar
    assert (progress.bar.n, progress.bar.disable) == (2, True)
    assert "loss=1.50, rate=1.0e-03, tokens/s=123, held out=1.75" in capsys.readouterr().err


def test_a_run_that_goes_on_does_so_at_the_given_speed():
    optimizer = torch.optim.AdamW(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    LearningRate(0.02).on_train_begin(None, None, None, optimizer=optimizer, lr_scheduler=schedule)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_run_that_goes_on_keeps_how_much_faster_lora_plus_moves_b():
    a, b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW([{"params": a.parameters(), "lr": 0.1}, {"params": b.parameters(), "lr": 1.6}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    LearningRate(0.02).on_train_begin(None, None, None, optimizer=optimizer, lr_scheduler=schedule)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.16])
