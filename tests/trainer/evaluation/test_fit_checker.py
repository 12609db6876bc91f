"""The emails that were read, and the rule that is fitted to them."""

import json
from pathlib import Path

import numpy as np
import pytest

from adapters.emails.checker import COUNTED, FITTED
from adapters.emails.tasks import normalise, shipped_tasks
from trainer.data.examples import SHIPPED_EMAILS
from trainer.evaluation.fit_checker import (
    READ,
    Read,
    area,
    cross_validated,
    fit,
    main,
    probabilities,
    read_emails,
    threshold,
)

ROWS = [json.loads(line) for line in READ.read_text(encoding="utf-8").splitlines()]


def test_300_emails_were_read_with_a_reason_for_each_that_could_not_be_sent():
    assert len(ROWS) >= 300
    assert len({row["model"] for row in ROWS}) >= 3
    assert len({row["temperature"] for row in ROWS}) >= 2
    assert [row["id"] for row in ROWS if not row["send"] and not row["why"]] == []


def test_60_were_read_twice():
    assert sum("again" in row for row in ROWS) == 60


def test_no_task_is_held_out_or_trained_on():
    trained = {
        normalise(json.loads(line)["task"])
        for voice in ("formal", "friendly")
        for line in (SHIPPED_EMAILS / f"{voice}.jsonl").read_text(encoding="utf-8").splitlines()
    }
    held = {normalise(task.task) for task in shipped_tasks(every=True)}
    assert {normalise(row["task"]) for row in ROWS} & (trained | held) == set()


def test_the_shipped_weights_are_those_of_the_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    shipped = json.loads(FITTED.read_text(encoding="utf-8"))
    weights = fit(read_emails())
    assert weights == pytest.approx(shipped["weights"], abs=0.02)
    send = np.array([email.send for email in read_emails()])
    least, share, held = threshold(cross_validated(read_emails()), send)
    assert least == pytest.approx(shipped["threshold"], abs=0.02)
    monkeypatch.setattr("sys.argv", ["fit_checker"])
    assert main() == 0
    assert f"of which {share:.2f} could be sent" in capsys.readouterr().out
    assert held >= 10


def test_emails_of_other_tasks_are_told_apart():
    send = np.array([email.send for email in read_emails()])
    assert area(cross_validated(read_emails()), send) > 0.78


def test_the_fit_finds_what_decides():
    rng = np.random.default_rng(0)
    emails = [
        Read(str(n), bool(likelihood > -1), None, {"constant": 1.0, "missing": float(n % 3), "likelihood": likelihood})
        for n, likelihood in enumerate(rng.uniform(-2, 0, 200).tolist())
    ]
    weights = fit(emails)
    assert weights["likelihood"] > 1
    assert abs(weights["missing"]) < 0.3
    assert area(probabilities(weights, emails), np.array([email.send for email in emails])) > 0.99


def test_no_weight_of_a_finding_is_positive():
    emails = [
        Read("a", True, None, {"constant": 1.0, "form": 1.0}),
        Read("b", False, None, {"constant": 1.0, "form": 0.0}),
    ]
    assert fit(emails)["form"] == 0
    assert "form" in COUNTED


def test_the_threshold_is_the_lowest_with_the_wanted_precision():
    found = np.linspace(0, 1, 101)
    least, share, held = threshold(found, found > 0.5)
    assert (round(least, 2), held) == (0.43, 58)
    assert share >= 0.85


def test_the_emails_on_held_out_tasks_were_read_too_and_the_page_has_their_counts():
    read = [json.loads(line) for line in READ.with_name("read_heldout.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["task_id"] for row in read} == {task.id for task in shipped_tasks()}
    assert [row["task_id"] for row in read if row["send"] == bool(row["why"])] == []
    checked, greedy = ([row for row in read if row["model"] == model] for model in ("formal:checked", "formal"))
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert f"`formal:checked`, 48 held-out tasks, could be sent | {sum(row['send'] for row in checked)} |" in page
    assert f"`formal`, greedy, on the same | {sum(row['send'] for row in greedy)} |" in page
    held = [row["send"] for row in checked if row["holds"]]
    assert f"of {len(held)} that it held on held-out tasks, could be sent | {sum(held)} |" in page
