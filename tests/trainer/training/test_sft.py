"""The real TRL on a tiny random Llama, and the command line that a user types."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from adapters.emails.prompts import INSTRUCTION
from adapters.errors import AdapterUnusable, ConfigError, DataError
from adapters.models.base_models import BaseModel, find
from adapters.models.validate import reasons_against
from adapters.store.store import Store
from adapters.store.version import WEIGHTS, Version
from tests import tiny
from trainer.cli import main
from trainer.compute.device import choose
from trainer.console import Log
from trainer.data.check import check_before_training
from trainer.data.examples import Example, digest, task_example
from trainer.training import fit, publish, sft
from trainer.training.dataset import choose_rows
from trainer.training.recipe import Recipe
from trainer.training.run import TrainingRun

pytestmark = [pytest.mark.training]
RECIPE = Recipe(epochs=2, batch_size=2, learning_rate=1e-2, rank=4, alpha=8, heldout=0.1, sample_tokens=6)
NAMES = ["Ada", "Bo", "Chidi", "Dagny", "Emil", "Freya", "Goran", "Hana", "Idris", "Jana", "Kofi", "Lev"]


def emails(count: int = len(NAMES), voice: str | None = None) -> list[Example]:
    return [
        task_example(f"Thank {name}.", f"Dear {name},\n\nThank you.\n\nBest,\nKim", voice=voice)
        for name in NAMES[:count]
    ]


def nobody_listens(_: str) -> None: ...


def run_of(
    base: BaseModel,
    recipe: Recipe = RECIPE,
    examples: Sequence[Example] | None = None,
    name: str = "mine",
    log: Log = nobody_listens,
    **options: Any,
) -> TrainingRun:
    return TrainingRun(emails() if examples is None else examples, name, base, recipe, choose(), log, **options)


@dataclass(frozen=True)
class Runs:
    store: Store
    first: Version
    second: Version
    said: list[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel) -> Runs:
    """Two runs under one name; `said` is what the first one said."""
    store = Store(tmp_path_factory.mktemp("runs") / "store")
    said: list[str] = []
    first = sft.train(run_of(base_model, log=said.append, licence="CC0-1.0"), store)
    second = sft.train(run_of(base_model, licence="CC0-1.0"), store)
    return Runs(store, first, second, said)


def test_the_first_run_publishes_and_promotes_version_1(runs: Runs):
    assert runs.first.id == "mine@1"
    assert runs.store.resolve("mine") == runs.first


def test_the_second_run_publishes_version_2_and_leaves_the_promoted_one(runs: Runs):
    assert runs.second.id == "mine@2"
    assert runs.store.promoted("mine") == runs.first


def test_the_same_run_gives_the_same_bytes_also_one_that_begins_with_a_version(
    runs: Runs, base_model: BaseModel, store: Store
):
    assert runs.first.manifest().adapter_sha256 == runs.second.manifest().adapter_sha256
    recipe = RECIPE.model_copy(update={"dropout": 0.1})
    first, second = (sft.train(run_of(base_model, recipe, start=runs.first), store) for _ in range(2))
    assert first.manifest().adapter_sha256 == second.manifest().adapter_sha256
    assert first.manifest().adapter_sha256 != runs.first.manifest().adapter_sha256


def test_what_a_run_published_passes_validation(runs: Runs, tiny_base: Path):
    assert reasons_against(runs.first.path, find(str(tiny_base))) == []


def test_a_run_publishes_bf16_which_is_what_vllm_serves(runs: Runs):
    weights = load_file(runs.first.path / WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_a_run_says_its_epochs_with_losses_and_a_sample(runs: Runs):
    epochs = [line for line in runs.said if line.startswith("Epoch")]
    assert [line.split("!")[0] for line in epochs] == ["Epoch 1 complete", "Epoch 2 complete"]
    assert all("training loss " in line and "held-out loss " in line and "nan" not in line for line in epochs)
    assert sum(line.startswith("  sample email:\n  | ") for line in runs.said) == 2


def test_a_run_says_its_learning_rate_and_where_it_comes_from(runs: Runs):
    assert "base model tiny-llama, learning rate 0.01 (given)" in runs.said


def test_a_run_says_how_many_emails_it_learns_from(runs: Runs):
    (counts,) = [line for line in runs.said if line.startswith("11 emails to learn from")]
    assert counts == "11 emails to learn from; 1 held out"


def test_the_manifest_says_what_was_trained_on_what(runs: Runs, base_model: BaseModel):
    manifest = runs.first.manifest()
    rows = choose_rows(emails(), RECIPE, nobody_listens)
    assert (manifest.base_name, manifest.base_fingerprint) == ("tiny-llama", base_model.fingerprint)
    assert manifest.base == str(base_model.path)
    assert (manifest.lora.rank, manifest.lora.alpha) == (4, 8)
    assert {module.split(".")[-1] for module in manifest.lora.target_modules} == {
        module.split(".")[-1] for module in tiny.LINEARS
    }
    assert manifest.data_sha256 == digest(rows.train)
    assert manifest.data_licence == "CC0-1.0"
    assert manifest.recipe == RECIPE.model_dump(mode="json")
    assert manifest.heldout_sha256 == digest(rows.heldout)


def test_the_manifest_says_how_the_run_went(runs: Runs):
    training = runs.first.manifest().training
    assert (training.examples, training.replay_examples, training.heldout_examples) == (11, 0, 1)
    assert (training.epochs, training.steps, training.learning_rate) == (2, 12, 1e-2)
    assert training.tokens > 2 * 11 * len("Thank Bo.Dear Bo,Thank you.Best,Kim")
    assert training.seconds > 0
    assert sorted(training.versions) == ["peft", "torch", "transformers", "trl"]


def test_training_lowers_the_loss(runs: Runs):
    training = runs.first.manifest().training
    assert training.heldout_loss_before is not None
    assert training.heldout_loss is not None
    assert training.heldout_loss < training.heldout_loss_before


def test_no_email_stands_in_the_published_directory(runs: Runs):
    for file in runs.first.path.iterdir():
        assert not any(f"Dear {name}".encode() in file.read_bytes() for name in NAMES)


def test_a_run_of_few_steps_publishes_a_manifest_that_can_be_read(base_model: BaseModel, store: Store):
    recipe = RECIPE.model_copy(update={"epochs": 1})
    version = sft.train(run_of(base_model, recipe, examples=emails(3), name="short"), store)
    training = version.manifest().training
    assert (training.steps, training.heldout_examples, training.heldout_loss) == (2, 0, None)
    assert 0 < training.train_loss < 100


def test_a_run_of_one_step_learns_something(base_model: BaseModel, store: Store):
    recipe = RECIPE.model_copy(update={"epochs": 1, "batch_size": 8})
    assert sft.train(run_of(base_model, recipe, examples=emails(3), name="one-step"), store).id == "one-step@1"


def test_a_run_that_taught_nothing_publishes_nothing(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publish, "reasons_against", lambda *_, **__: ["it changes nothing"])
    recipe = RECIPE.model_copy(update={"epochs": 1})
    with pytest.raises(AdapterUnusable, match="it changes nothing"):
        sft.train(run_of(base_model, recipe, examples=emails(2), name="nothing"), store)
    assert store.names() == ["formal", "friendly"]


@contextmanager
def no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(fit, "completion_trainer", lambda *_: pytest.fail("the model was loaded"))
        yield


def test_emails_that_are_too_long_are_refused_before_a_model_is_loaded(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # One character is one token; the chat template's and the instruction's count too.
    emails = ["Dear Bo,", "Dear Ada, " + "x" * 990, "x" * 5000]
    rows = [{"prompt": "Thank Ada.", "completion": email} for email in emails]
    with no_model_is_loaded(monkeypatch):
        assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path, rows)) == 2
    printed = capsys.readouterr().err
    template = len(f"<system\n{INSTRUCTION}>\n<user\n>\n<assistant\n>\n")
    assert "error: 2 emails are too long" in printed
    assert f"email 2 ('Thank Ada.'...) has {10 + 1000 + template} tokens with its task, at most 1024" in printed
    assert "email 3 ('Thank Ada.'...) has" in printed


def test_an_email_of_exactly_the_greatest_length_is_taken(tiny_base: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    fits = task_example("Thank Ada.", "x" * (1024 - 10 - len("<user\n>\n<assistant\n>\n")))
    check_before_training([fits], tokenizer, 1024, nobody_listens)
    with pytest.raises(DataError, match="1 emails are too long"):
        check_before_training([fits], tokenizer, 1023, nobody_listens)


@pytest.mark.parametrize("name", ["text", "../mine", "Mine"])
def test_a_wrong_name_is_refused_before_a_model_is_loaded(
    base_model: BaseModel, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
):
    with no_model_is_loaded(monkeypatch), pytest.raises(ConfigError):
        sft.train(run_of(base_model, examples=emails(3), name=name), store)


def dataset(directory: Path, rows: list[dict[str, str]] | None = None) -> Path:
    """The lesson's own file: a JSON list of prompts and completions."""
    rows = rows or [{"prompt": example.task, "completion": example.email} for example in emails()]
    (directory / "my_email_dataset.json").write_text(json.dumps(rows, indent=2))
    return directory / "my_email_dataset.json"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "trainer.cli", *map(str, arguments)]


def test_the_lessons_command_publishes_my_email_assistant(tiny_base: Path, tmp_path: Path):
    store = tmp_path / "store"
    dataset(tmp_path)
    arguments = ["--data", "my_email_dataset.json", "--name", "my_email_assistant", "--base", tiny_base, "--epochs", 1]
    done = subprocess.run(
        command("sft", *arguments, "--sample-tokens", 5),
        cwd=tmp_path,
        env=os.environ | {"MAILWRIGHT_STORE": str(store), "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("published my_email_assistant@1 in ")
    assert done.stdout.endswith("my_email_assistant means my_email_assistant@1\n")
    assert f"store {store}" in done.stderr
    assert "Epoch 1 complete!" in done.stderr
    assert "prior for its size" in done.stderr
    assert Store(store).resolve("my_email_assistant").id == "my_email_assistant@1"


def sft_here(tiny_base: Path, directory: Path, *arguments: object) -> int:
    flags = ["--name", "mine", "--base", tiny_base, "--store", directory / "store", "--epochs", 1, "--sample-tokens", 5]
    return main([str(part) for part in ("sft", *flags, *arguments)])


def test_sft_as_json_prints_the_version_and_nothing_else(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert (
        sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path), "--json", "--licence", "CC0-1.0", "--rank", 2) == 0
    )
    printed = json.loads(capsys.readouterr().out)
    version = Store(tmp_path / "store").resolve("mine")
    assert (printed["id"], printed["path"]) == ("mine@1", str(version.path))
    assert (printed["data_licence"], printed["lora"]["rank"]) == ("CC0-1.0", 2)


def test_a_second_run_says_how_to_promote_its_version(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for _ in range(2):
        assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path)) == 0
    assert "mine still means mine@1; `adapters promote mine@2` makes mine mean it" in capsys.readouterr().out


def test_a_rank_that_a_server_without_options_does_not_take_is_not_promoted(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert sft_here(tiny_base, tmp_path, "--data", dataset(tmp_path), "--rank", 32) == 0
    assert Store(tmp_path / "store").promoted("mine") is None
    assert capsys.readouterr().out.splitlines()[-1] == (
        "mine means no version yet; the rank of mine@1 is 32, and only `server --max-rank 32` serves it; "
        "`adapters promote mine@1 --force` makes mine mean it"
    )


def read_until(process: subprocess.Popen[bytes], text: bytes, seconds: float = 120) -> bytes:
    assert process.stderr
    printed = b""
    deadline = time.monotonic() + seconds
    while text not in printed:
        ready, _, _ = select.select([process.stderr], [], [], max(0, deadline - time.monotonic()))
        chunk = os.read(process.stderr.fileno(), 65536) if ready else b""
        assert chunk, f"{text!r} did not come: {printed.decode()[-2000:]}"
        printed += chunk
    return printed
