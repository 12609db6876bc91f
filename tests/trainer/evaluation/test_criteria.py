from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import ConfigError
from adapters.store.manifest import Row
from trainer.evaluation.criteria import check_criteria, manifest_evaluation, parse_criteria
from trainer.evaluation.figures import FIGURES
from trainer.evaluation.results import Pair, Result

BASE = {"facts_kept": 0.45, "sendable": 0.1, "heldout_loss": 2.5, "words": 140.0}
VOICE = {"facts_kept": 0.6, "sendable": 0.4, "heldout_loss": 1.5, "words": 60.0, "mask": 0.0}


def result(promoted: dict[str, float | None] | None = None, **changed: Any) -> Result:
    """Of formal@2, better than the base model in everything."""
    rows = [Row(model="base", figures=BASE), Row(model="base, 1 example", figures={"facts_kept": 0.5})]
    rows.append(Row(model="base, 3 examples", figures={"facts_kept": 0.58}))
    if promoted is not None:
        rows.append(Row(model="promoted: formal@1", figures=promoted))
    rows.append(Row(model="formal@2", figures=VOICE))
    fields = {
        "version": "formal@2",
        "base": "smollm2-135m-instruct",
        "tasks": 48,
        "tasks_sha256": "c" * 64,
        "decoding": "greedy",
        "through": "in process",
        "machine": "2 cores",
        "seconds": 1.0,
        "rows": rows,
        "comparisons": [],
        "memorisation": {"copied_more": 0.02, "personal_data_leaked": 0.0},
        "forgetting": {"forgetting": 0.04, "answers_like_emails": 0.1, "answers_like_emails_base": 0.0},
        "pairs": [Pair(task="Thank Ada.", before="Thanks.", after="Dear Ada")],
    }
    return Result(**fields | changed)


def misses(result: Result, criteria: list[str]) -> list[str]:
    return [reason for _, reason in check_criteria(result, criteria) if reason]


@pytest.mark.parametrize(
    "limit",
    [
        "facts_kept >= base + 0.10",
        "facts_kept>=base+0.10",
        "  facts_kept  >=  0.6 ",
        "facts_kept > 0.59",
        "heldout_loss < base",
        "heldout_loss <= base - 1",
        "mask <= 0",
        "copied_more <= 0.05",
        "personal_data_leaked <= 0",
        "facts_kept >= base with 1 example + 0.1",
        "facts_kept >= base with 3 examples + 0.02",
        "answers_like_emails <= base + 0.1",
        "sendable >= promoted",
    ],
)
def test_a_criterion_that_is_met_has_no_reason(limit: str):
    assert misses(result(), [limit]) == []


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ("facts_kept >= base + 0.20", "facts_kept is 0.6 and must be at least base + 0.20 = 0.65"),
        ("forgetting <= 0.03", "forgetting is 0.04 and must be at most 0.03"),
        ("words < 60", "words is 60 and must be below 60"),
        ("heldout_loss > base", "heldout_loss is 1.5 and must be above base = 2.5"),
        ("facts_kept >= base with 3 examples + 0.05",
         "facts_kept is 0.6 and must be at least base with 3 examples + 0.05 = 0.63"),
        ("answers_like_emails <= base", "answers_like_emails is 0.1 and must be at most base = 0"),
    ],
)  # fmt: skip
def test_a_missed_criterion_gives_what_was_measured_and_what_is_wanted(limit: str, sentence: str):
    assert misses(result(), [limit]) == [sentence]


def test_a_figure_that_was_not_measured_misses():
    assert misses(result(), ["style_distance <= 0.5"]) == ["style_distance was not measured (style_distance <= 0.5)"]
    assert misses(result(memorisation={}), ["copied_more <= 0.05"]) == [
        "copied_more was not measured (copied_more <= 0.05)"
    ]


@pytest.mark.parametrize(
    "limit", ["mask <= base", "sendable >= base with 1 example", "facts_kept >= base with 2 examples"]
)
def test_a_row_whose_figure_was_not_measured_misses_too(limit: str):
    (sentence,) = misses(result(), [limit])
    assert "of base" in sentence
    assert "was not measured" in sentence


def test_against_the_promoted_version():
    assert misses(result(promoted={"sendable": 0.4}), ["sendable >= promoted"]) == []
    assert misses(result(promoted={"sendable": 0.5}), ["sendable >= promoted"]) == [
        "sendable is 0.4 and must be at least promoted = 0.5"
    ]
    assert len(misses(result(promoted={"sendable": None}), ["sendable >= promoted"])) == 1


def test_every_miss_is_listed_in_the_order_of_the_criteria():
    assert [s.split()[0] for s in misses(result(), ["words < 1", "mask <= 0", "forgetting <= 0"])] == [
        "words", "forgetting",
    ]  # fmt: skip


def test_binary_fractions_miss_nothing():
    rows = [Row(model="base", figures={"facts_kept": 0.1}), Row(model="formal@2", figures={"facts_kept": 0.3})]
    exactly = result(rows=rows)
    assert 0.1 + 0.2 > 0.3
    assert misses(exactly, ["facts_kept >= base + 0.2"]) == []
    assert misses(exactly, ["facts_kept > base + 0.2"]) != []


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "facts_kept",
        "facts_kept >= ",
        "facts_kept = 0.5",
        "facts_kept => 0.5",
        "facts_kept >= best",
        "facts_kept >= base + ",
        "facts_kept >= base 0.1",
        "facts_kept >= base * 2",
        "facts_kept >= nan",
        "facts_kept >= 1e3",
        "facts_kept >= 0.5 and mask <= 0",
        "0.5 <= facts_kept",
        "__import__('os') >= 0",
    ],
)
def test_a_text_that_is_not_a_criterion_is_refused(wrong: str):
    with pytest.raises(ConfigError, match="is not a criterion"):
        parse_criteria([wrong])


def test_every_wrong_criterion_is_listed_with_the_known_figures():
    with pytest.raises(ConfigError) as caught:
        parse_criteria(["mask <= 0", "beauty >= 0.5", "facts_kept => 1"])
    assert "'beauty >= 0.5' is of an unknown figure, beauty" in str(caught.value)
    assert "'facts_kept => 1' is not a criterion" in str(caught.value)
    assert "mask <= 0" not in str(caught.value)
    assert "facts_kept, " in caught.value.hint
    assert "base with 1 example" in caught.value.hint


@given(st.text())
def test_any_text_is_a_criterion_or_refused(text: str):
    try:
        (limit,) = parse_criteria([text])
    except ConfigError:
        return
    assert limit.figure in FIGURES


@given(
    figure=st.sampled_from(sorted(FIGURES)),
    order=st.sampled_from(["<=", ">=", "<", ">"]),
    row=st.sampled_from(["base", "promoted", "base with 1 example", "base with 3 examples"]),
    number=st.integers(0, 1000).map(lambda thousandths: thousandths / 1000),
    sign=st.sampled_from("+-"),
)
def test_what_is_written_is_what_is_read(figure: str, order: str, row: str, number: float, sign: str):
    (limit,) = parse_criteria([f"{figure} {order} {row} {sign} {number}"])
    assert (limit.figure, limit.order) == (figure, order)
    assert limit.number == (number if sign == "+" else -number)
    assert limit.row == row.replace(" with", ",")


def test_an_evaluation_for_the_manifest_has_the_figures_and_what_was_missed():
    limits = ["facts_kept >= base + 0.10", "forgetting <= 0.03"]
    kept = manifest_evaluation(result(), limits)
    assert not kept.passed
    assert kept.reasons == misses(result(), limits)
    assert [(limit.limit, limit.held) for limit in kept.limits] == [(limits[0], True), (limits[1], False)]
    assert (kept.limits[1].value, kept.limits[1].bound) == (0.04, 0.03)
    assert (kept.primary, kept.tasks, kept.version) == ("sendable", 48, "formal@2")
    assert [row.model for row in kept.rows] == ["base", "base, 1 example", "base, 3 examples", "formal@2"]


def test_an_evaluation_for_the_manifest_holds_no_text_of_an_email():
    assert "Ada" not in manifest_evaluation(result(), []).model_dump_json()


def test_without_criteria_it_passes():
    assert manifest_evaluation(result(), []).passed


def test_an_outcome_has_value_and_bound():
    ((limit, _),) = check_criteria(result(), ["facts_kept >= base + 0.10"])
    assert (limit.held, limit.value, limit.bound) == (True, 0.6, pytest.approx(0.55))


def test_the_former_names_of_figures_are_still_read():
    assert [criterion.figure for criterion in parse_criteria(["passes >= promoted", "recited <= 0.10"])] == [
        "sendable", "extraction_rate",
    ]  # fmt: skip
