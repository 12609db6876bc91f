from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from adapters.models.base_models import BaseModel
from adapters.models.validate import reasons_against
from adapters.store.manifest import Comparison, Manifest, Row
from adapters.store.store import Store
from adapters.store.version import CARD
from tests import tiny
from tests.trainer.evaluation.test_criteria import result
from trainer.evaluation.card import fenced, inline, render
from trainer.evaluation.criteria import manifest_evaluation
from trainer.evaluation.results import Pair

MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
LIMITS = ["facts_kept >= base + 0.10", "forgetting <= 0.03"]
COMPARISON = Comparison(against="base", figure="sendable", difference=0.3, low=0.1, high=0.5, verdict="better")


def manifest(**changed: Any) -> Manifest:
    facts = tiny.facts("smollm2-135m-instruct", f"sha256:{'a' * 64}", base_source="smollm2-135m-instruct")
    facts |= {"name": "formal", "version": 2, "created": datetime(2026, 11, 26, tzinfo=UTC), "adapter_sha256": "b" * 64}
    facts |= {"heldout_sha256": "d" * 64, "recipe": {"recipe": "/home/kim/mine.yaml", "epochs": 2, "limits": LIMITS}}
    facts["training"] |= {"versions": {"torch": "2.13.0", "peft": "0.21.2"}}
    return Manifest(**facts | changed)


def head(card: str) -> dict[str, Any]:
    loaded = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def code_blocks(card: str) -> list[str]:
    body = card.split("---\n", 2)[2]
    return [token.content.removesuffix("\n") for token in MARKDOWN.parse(body) if token.type == "fence"]


def test_the_head_is_what_the_hub_reads():
    found = head(render(manifest()))
    assert (found["license"], found["base_model"]) == ("cc0-1.0", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert "lora" in found["tags"]


@pytest.mark.parametrize(
    ("source", "base"), [("Qwen/Qwen3-4B-Instruct", "Qwen/Qwen3-4B-Instruct"), ("/home/kim/models/tiny", "tiny")]
)
def test_another_base_model_is_named_without_where_it_lies(source: str, base: str):
    card = render(manifest(base_name="tiny", base_source=source))
    assert head(card)["base_model"] == base
    assert "/home" not in card
    assert "--base BASE_MODEL" in card


def test_a_licence_that_the_hub_does_not_know_keeps_its_name():
    licence = 'ours: "all rights"\nbase_model: evil'
    found = head(render(manifest(data_licence=licence)))
    assert (found["license"], found["license_name"]) == ("other", licence)
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_card_names_the_version_its_base_model_and_its_training_data():
    card = render(manifest())
    for said in ("# formal@2", f"sha256:{'a' * 64}", "CC0-1.0", "0" * 64, "d" * 64, "torch 2.13.0", "epochs: 2"):
        assert said in card
    assert "It was not evaluated." in card


def test_an_imported_adapter_has_a_card_too():
    card = render(manifest(training=None, data_sha256=None, heldout_sha256=None, recipe={}, data_licence="unstated"))
    assert "the adapter was imported" in card
    assert head(card)["license"] == "other"


def test_the_privacy_mode_of_the_recipe_is_on_the_card():
    assert "| personal data | not recorded |" in render(manifest())
    assert "| personal data | privacy: mask |" in render(manifest(recipe={"privacy": "mask"}))


def test_the_table_has_every_row_with_intervals_and_the_version_first():
    rows = [
        Row(model="base", figures={"sendable": 0.1, "words": 140.0}, low={"sendable": 0.02}, high={"sendable": 0.2})
    ]
    rows.append(Row(model="formal@2", figures={"sendable": 0.4, "heldout_loss": None}))
    card = render(manifest(recipe={}), result(rows=rows, comparisons=[COMPARISON]))
    assert "|  | formal@2 | base |" in card
    assert "| sendable emails | 40 % | 10 % (2.0 to 20 %) |" in card
    assert "| words | – | 140 |" in card
    assert "formal@2 is better than the base model." in card
    assert "40 % against 10 %: +30.0 points, 95 % interval +10.0 to +50.0 | better |" in card


def test_each_criterion_is_met_or_missed():
    card = render(manifest(), result())
    assert "| facts_kept >= base + 0.10 | 0.6 | met |" in card
    assert "| forgetting <= 0.03 | 0.04 | missed |".replace("<", "&lt;") in card
    assert "- forgetting is 0.04 and must be at most 0.03" in card
    assert "It was not good enough to be promoted automatically." in card


def test_memorisation_and_forgetting_are_in_it():
    card = render(manifest(), result())
    assert "| 8-grams copied, beyond those from held-out emails | 2.0 % |" in card
    assert "| forgetting, relative rise of the loss on general text | 4.0 % |" in card


def test_without_a_result_the_figures_are_the_manifest_s_and_there_are_no_emails():
    kept = manifest_evaluation(result(), LIMITS)
    card = render(manifest(evaluation=kept))
    assert "| facts kept | 60 % | 45 % | 50 % | 58 % |" in card
    assert "missed" in card
    assert "Before and after" not in card


def test_ten_pairs_at_most_and_none_where_the_texts_are_to_stay_out():
    pairs = [Pair(task=f"Task number {n}.", before="Thanks.", after=f"Dear Ada {n}") for n in range(12)]
    card = render(manifest(), result(pairs=pairs))
    assert "Task number 9." in card
    assert "Task number 10." not in card
    assert "Dear Ada" not in render(manifest(), result(pairs=pairs), with_texts=False)


HOSTILE = [
    "<script>alert(1)</script>",
    "```\n# Not a heading\n<img src=x onerror=alert(1)>",
    "````text\n~~~\n````",
    "a | b | c",
    "\n\n---\n\n",
    "`" * 40,
    "{{ 7 * 7 }}{% raw %}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_email_stays_in_its_code_block(text: str):
    card = render(manifest(), result(pairs=[Pair(task=text, before=text, after=text)]))
    assert code_blocks(card).count(text) == 3
    html = MARKDOWN.render(card.split("---\n", 2)[2])
    assert "<script" not in html
    assert "<img" not in html


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=60))
def test_any_email_is_one_code_block_of_its_own_text(text: str):
    blocks = [token for token in MARKDOWN.parse(fenced(text)) if token.type == "fence"]
    assert [block.content for block in blocks] == [f"{text}\n"]


@given(st.text(max_size=60))
def test_any_licence_is_one_cell_without_markup(text: str):
    table = MARKDOWN.parse(f"| | |\n| --- | --- |\n| licence | {inline(text)} |\n")
    assert [token.type for token in table].count("td_open") == 2
    cell = [token for token in table if token.type == "inline"][-1]
    assert {child.type for child in cell.children or []} <= {"text", "text_special"}


def test_a_published_version_may_have_a_card_and_can_be_served(store: Store, base_model: BaseModel, tmp_path: Path):
    files = tiny.make_adapter(base_model.path, tmp_path / "adapter", seed=9)
    facts = tiny.facts(base_model.name, base_model.fingerprint, base_source=base_model.source)
    version = store.publish("carded", files, facts, render)
    assert "# carded@1" in (version.path / CARD).read_text(encoding="utf-8")
    assert reasons_against(version.path, base_model) == []


def test_a_card_that_is_no_plain_file_speaks_against_a_version(store: Store, base_model: BaseModel):
    version = store.resolve("formal")
    (version.path / CARD).symlink_to("/etc/passwd")
    assert reasons_against(version.path, base_model) == [f"{CARD} is a symbolic link"]


def test_a_card_that_cannot_be_written_publishes_nothing(store: Store, base_model: BaseModel, tmp_path: Path):
    files = tiny.make_adapter(base_model.path, tmp_path / "adapter", seed=9)

    def broken(_: Manifest) -> str:
        raise ValueError("no card")

    with pytest.raises(ValueError, match="no card"):
        store.publish("carded", files, tiny.facts(base_model.name, base_model.fingerprint), broken)
    assert store.versions("carded") == []
