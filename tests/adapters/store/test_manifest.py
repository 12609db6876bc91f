import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.errors import ConfigError
from adapters.store.manifest import RESERVED_NAMES, Manifest, Row, check_name
from tests import tiny

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True).filter(lambda name: name not in RESERVED_NAMES)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


def fields(**changed: Any) -> dict[str, Any]:
    facts = tiny.facts("tiny-llama", f"sha256:{'a' * 64}")
    return facts | {"name": "formal", "version": 1, "created": datetime(2025, 1, 2, tzinfo=UTC)} | changed


def manifest(**changed: Any) -> Manifest:
    return Manifest(**{"adapter_sha256": "b" * 64} | fields(**changed))


@pytest.mark.parametrize("name", ["formal", "my_email_assistant", "7", "a-b_c", "a" * 63])
def test_a_name_that_keeps_the_rule_is_taken_as_it_is(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Formal", "-a", "_a", "a" * 64, "a@1", "a/b", "..", "a b", "é", "a\n", "a."])
def test_a_name_that_breaks_the_rule_is_refused_with_the_name(name: str):
    with pytest.raises(ConfigError) as caught:
        check_name(name)
    assert repr(name) in str(caught.value)
    assert "lower-case" in caught.value.hint


@pytest.mark.parametrize("name", ["text", "image", "audio", "video", "file", "input", "refusal", "base"])
def test_a_name_that_openai_gives_a_meaning_is_reserved(name: str):
    with pytest.raises(ConfigError, match="reserved"):
        check_name(name)


@given(st.text())
def test_a_name_that_passes_is_a_plain_file_name(name: str):
    try:
        check_name(name)
    except ConfigError:
        return
    assert name.isascii()
    assert name[0].isalnum()
    assert not set(name) & set("/\\.@ \n\0")


@given(
    name=NAMES,
    version=st.integers(1, 10**6),
    digest=HEX,
    licence=st.text(),
    recipe=st.dictionaries(
        st.text(), st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    ),
    created=st.datetimes(timezones=st.just(UTC)),
)
def test_a_manifest_reads_back_what_was_written(name, version, digest, licence, recipe, created):
    written = manifest(
        name=name, version=version, adapter_sha256=digest, data_licence=licence, recipe=recipe, created=created
    )
    assert Manifest.model_validate_json(written.model_dump_json(indent=2)) == written


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "text"},
        {"name": "../formal"},
        {"version": 0},
        {"base_fingerprint": "a" * 64},
        {"adapter_sha256": "B" * 64},
        {"data_sha256": "0" * 63},
        {"lora": {"rank": 0, "alpha": 1, "target_modules": []}},
        {"mood": "sunny"},
    ],
    ids=repr,
)
def test_a_manifest_with_a_wrong_field_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError) as caught:
        manifest(**wrong)
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


def test_a_manifest_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        manifest().version = 2


def test_the_base_model_is_found_by_its_source_and_in_the_first_manifests_by_its_name():
    assert manifest().base == fields()["base_name"]
    assert manifest(base_source="HuggingFaceTB/SmolLM2-360M-Instruct").base == "HuggingFaceTB/SmolLM2-360M-Instruct"


EVALUATION = {
    "passed": False,
    "reasons": ["facts_kept is 0.41 and must be at least base + 0.10 = 0.55"],
    "date": datetime(2026, 11, 26, tzinfo=UTC),
    "version": "formal@1",
    "base": "tiny-llama",
    "tasks": 48,
    "tasks_sha256": "c" * 64,
    "decoding": "greedy",
    "machine": "2 cores",
    "primary": "sendable",
    "rows": [{"model": "base", "figures": {"sendable": 0.1, "heldout_loss": None}, "low": {"sendable": 0.0}}],
    "comparisons": [
        {"against": "base", "figure": "sendable", "difference": 0.3, "low": 0.1, "high": 0.5, "verdict": "better"}
    ],
    "memorisation": {"copied_more": 0.01},
    "forgetting": {"forgetting": 0.02},
    "limits": [{"limit": "facts_kept >= base + 0.10", "held": False, "value": 0.41, "bound": 0.55}],
}


def test_a_manifest_keeps_an_evaluation_and_the_digest_of_what_was_held_out():
    written = manifest(evaluation=EVALUATION, heldout_sha256="d" * 64)
    read = Manifest.model_validate_json(written.model_dump_json(indent=2))
    assert read == written
    assert read.evaluation is not None
    assert read.evaluation.rows[0].figures == {"sendable": 0.1, "heldout_loss": None}
    assert read.evaluation.limits[0].bound == 0.55


def test_the_first_manifests_which_say_less_of_an_evaluation_can_still_be_read():
    old = json.loads(manifest(evaluation={"passed": False, "reasons": ["too short"]}).model_dump_json())
    old["evaluation"] = {"passed": False, "reasons": ["too short"]}
    del old["heldout_sha256"]
    read = Manifest.model_validate(old)
    assert read.evaluation is not None
    assert (read.evaluation.reasons, read.evaluation.tasks, read.evaluation.rows) == (["too short"], None, [])
    assert read.heldout_sha256 is None


def test_figures_of_older_manifests_have_their_new_names():
    old = {
        "primary": "passes",
        "rows": [{"model": "base", "figures": {"passes": 0.1}, "low": {"passes": 0.0}, "high": {"passes": 0.2}}],
        "comparisons": [EVALUATION["comparisons"][0] | {"figure": "passes"}],  # type: ignore[index]
        "memorisation": {"recited": 0.5},
    }
    evaluation = manifest(evaluation=EVALUATION | old).evaluation
    assert evaluation is not None
    assert evaluation.rows[0] == Row(
        model="base", figures={"sendable": 0.1}, low={"sendable": 0.0}, high={"sendable": 0.2}
    )
    assert (evaluation.primary, evaluation.comparisons[0].figure) == ("sendable", "sendable")
    assert evaluation.memorisation == {"extraction_rate": 0.5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tasks_sha256": "c" * 63},
        {"memorisation": {"copied_more": float("nan")}},
        {"forgetting": {"forgetting": float("inf")}},
        {"rows": [{"model": "base", "figures": {"sendable": float("-inf")}}]},
        {"comparisons": [EVALUATION["comparisons"][0] | {"verdict": "splendid"}]},  # type: ignore[index]
        {"pairs": [{"task": "Thank Ada.", "before": "", "after": ""}]},
    ],
    ids=str,
)
def test_an_evaluation_with_a_wrong_field_or_the_texts_of_emails_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError) as caught:
        manifest(evaluation=EVALUATION | wrong)
    assert caught.value.errors()[0]["loc"][:2] == ("evaluation", next(iter(wrong)))
