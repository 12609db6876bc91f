"""What a publish after training says of itself, and whether the version is promoted, with the real tiny model."""

from pathlib import Path

import pytest

from adapters.errors import AdapterUnusable
from adapters.models.base_models import BaseModel
from adapters.models.promotion import promote
from adapters.store.store import Store
from adapters.store.version import CARD, Version
from tests import tiny
from trainer.data.examples import SHIPPED_EMAILS, Example, read_examples
from trainer.evaluation import writers
from trainer.evaluation.acceptance import MIN_TASKS, Acceptance

pytestmark = [pytest.mark.training]
HELD = ["words >= 0", "placeholder <= 1"]
MISSED = ["facts_kept >= base + 0.10", "words >= 0"]


def own(count: int) -> list[Example]:
    return read_examples([SHIPPED_EMAILS / "formal.jsonl"])[:count]


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "empty")


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "MAX_NEW_TOKENS", 8)


def published(
    store: Store,
    base: BaseModel,
    tmp_path: Path,
    limits: list[str],
    heldout: int = MIN_TASKS,
    said: list | None = None,
) -> Version:
    files = tiny.make_adapter(base.path, tmp_path / f"adapter-{len(list(tmp_path.iterdir()))}", 1)
    acceptance = Acceptance("mine", base, limits, own(4), own(heldout + 4)[4:])
    facts = tiny.facts(base.name, base.fingerprint, base_source=base.source) | {"recipe": {"limits": limits}}
    return acceptance.publish(store, files, facts, [].append if said is None else said.append)


def test_a_version_that_misses_a_limit_is_published_with_the_reasons_and_not_promoted(
    empty: Store, base_model: BaseModel, tmp_path: Path
):
    said: list[str] = []
    version = published(empty, base_model, tmp_path, MISSED, said=said)
    evaluation = version.manifest().evaluation
    assert evaluation is not None
    assert not evaluation.passed
    (reason,) = evaluation.reasons
    assert reason.startswith("facts_kept is 0")
    assert f"not good enough to be promoted: {reason}" in said
    assert [limit.held for limit in evaluation.limits] == [False, True]
    assert empty.promoted("mine") is None
    with pytest.raises(AdapterUnusable, match="facts_kept"):
        promote(empty, version.id, base_model)
    promote(empty, version.id, base_model, force=True)
    assert empty.promoted("mine") == version


def test_a_version_that_holds_its_limits_is_promoted_and_carries_its_figures_and_card(
    empty: Store, base_model: BaseModel, tmp_path: Path
):
    version = published(empty, base_model, tmp_path, HELD)
    assert empty.promoted("mine") == version
    evaluation = version.manifest().evaluation
    assert evaluation is not None
    assert [row.model for row in evaluation.rows] == ["base", "mine@1"]
    assert evaluation.memorisation["tasks_trained_on"] == 0
    assert evaluation.forgetting["general_loss"] > 0
    card = (version.path / CARD).read_text(encoding="utf-8")
    assert "mine@1" in card
    assert "placeholder" in card


def test_the_rows_that_a_limit_names_are_measured(empty: Store, base_model: BaseModel, tmp_path: Path):
    published(empty, base_model, tmp_path, HELD)
    version = published(empty, base_model, tmp_path, ["words >= promoted - 9", "words >= base with 3 examples - 99"])
    evaluation = version.manifest().evaluation
    assert evaluation is not None
    assert [row.model for row in evaluation.rows] == ["base", "base, 3 examples", "promoted: mine@1", "mine@2"]


def test_a_persons_own_held_out_mail_is_measured_with_and_never_shown(
    empty: Store, base_model: BaseModel, tmp_path: Path
):
    version = published(empty, base_model, tmp_path, HELD)
    evaluation = version.manifest().evaluation
    assert evaluation is not None
    assert evaluation.tasks == MIN_TASKS
    said = [line for example in own(MIN_TASKS + 4) for line in example.email.splitlines() if len(line) > 20]
    written = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in version.path.iterdir())
    assert said
    assert [line for line in said if line in written] == []


def test_with_too_few_of_them_the_shipped_tasks_are_taken_and_shown(
    empty: Store, base_model: BaseModel, tmp_path: Path
):
    version = published(empty, base_model, tmp_path, HELD, heldout=MIN_TASKS - 1)
    evaluation = version.manifest().evaluation
    assert evaluation is not None
    assert evaluation.tasks == 48
    assert "Ieva Ozola" in (version.path / CARD).read_text(encoding="utf-8")


def test_without_limits_nothing_is_measured_and_a_card_is_there_all_the_same(
    empty: Store, base_model: BaseModel, tmp_path: Path
):
    version = published(empty, base_model, tmp_path, [])
    assert version.manifest().evaluation is None
    assert empty.promoted("mine") == version
    assert "mine@1" in (version.path / CARD).read_text(encoding="utf-8")
