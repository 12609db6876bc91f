"""Training without the base model's weights: the real TRL on the tiny model's shape, and the command that is typed."""

import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters.errors import ConfigError, TrainingDiverged
from adapters.models.base_models import BaseModel, chat_template, find, shaping_config
from tests.trainer.test_cli import failed
from tests.trainer.training.test_sft import RECIPE, dataset, run_of
from trainer.cli import main
from trainer.commands import run_options
from trainer.training import from_scratch, sft_trainer
from trainer.training.diagnose import Verdict
from trainer.training.sft_trainer import random_model

Capture = pytest.CaptureFixture[str]
VOCABULARY = 99
"""Tokens of the tiny model."""


@dataclass(frozen=True)
class Run:
    model: from_scratch.WrittenModel
    said: list[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel) -> Run:
    output = tmp_path_factory.mktemp("runs") / "mine"
    said: list[str] = []
    return Run(from_scratch.train(run_of(base_model, log=said.append), output), said)


@pytest.mark.training
def test_it_begins_at_blind_chance_and_learns(run: Run):
    curve = run.model.trained.curve
    assert curve.heldout_before == pytest.approx(math.log(VOCABULARY), abs=0.15)
    assert curve.heldout[-1] < 0.9 * curve.heldout_before
    assert len(curve.train) == 2


@pytest.mark.training
def test_the_next_run_of_the_process_computes_as_it_chooses(run: Run):
    assert run.model.trained.curve.train
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.training
def test_it_says_what_it_trains_and_at_what_rate(run: Run):
    weights = random_model(run.model.run.base, 0, None).num_parameters()
    assert f"a model of the shape of tiny-llama begins with random weights, and all {weights:,} are trained" in run.said
    assert "learning rate 0.01 (given)" in run.said
    assert [line[:16] for line in run.said if line.startswith("Epoch")] == ["Epoch 1 complete", "Epoch 2 complete"]
    assert any(line.startswith("verdict: ") for line in run.said)


@pytest.mark.training
def test_every_weight_changes(run: Run, base_model: BaseModel):
    made = load_file(run.model.path / "model.safetensors")
    start = random_model(base_model, RECIPE.seed, None).state_dict()
    of_the_base = load_file(base_model.path / "model.safetensors")
    assert made.keys() == start.keys() == of_the_base.keys()
    for name, weight in made.items():
        assert not torch.equal(weight, start[name]), name
        assert not torch.equal(weight, of_the_base[name]), name


@pytest.mark.training
def test_what_it_wrote_is_a_base_model_of_the_same_shape(run: Run, base_model: BaseModel):
    path = run.model.path
    found = find(str(path))
    assert (found.name, shaping_config(path)) == ("mine", shaping_config(base_model.path))
    assert chat_template(path) == chat_template(base_model.path)
    assert found.fingerprint != base_model.fingerprint
    assert [file.name for file in path.parent.iterdir()] == ["mine"]


@pytest.mark.training
def test_what_it_wrote_has_the_loss_that_was_measured(run: Run):
    model = AutoModelForCausalLM.from_pretrained(run.model.path)
    tokenizer = AutoTokenizer.from_pretrained(run.model.path)
    (example,) = run.model.trained.rows.heldout
    asked = [*example.messages]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    answered = [*asked, {"role": "assistant", "content": example.email}]
    ids = torch.tensor([tokenizer.apply_chat_template(answered, return_dict=True)["input_ids"]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    assert model(ids, labels=labels).loss.item() == pytest.approx(run.model.trained.curve.heldout[-1], rel=1e-3)


@pytest.mark.training
def test_an_early_stop_keeps_the_best_epoch_and_no_remedy_is_an_adapters(
    base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = Verdict("overfitting", "it was said so", {"dropout": 0.1, "early_stop": 2})
    monkeypatch.setattr(from_scratch, "diagnose", lambda *_: found)
    said: list[str] = []
    recipe = RECIPE.model_copy(update={"early_stop": 1})
    model = from_scratch.train(run_of(base_model, recipe, log=said.append), tmp_path / "mine")
    assert model.verdict.remedy == {"early_stop": 2}
    assert "hint: trainer sft ... --early-stop 2" in said
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.training
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_leaves_nothing_behind(base_model: BaseModel, tmp_path: Path, number: signal.Signals):
    def log(sentence: str) -> None:
        if sentence.startswith("Epoch 1 "):
            signal.raise_signal(number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            from_scratch.train(run_of(base_model, log=log), tmp_path / "mine")
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
def test_a_loss_that_is_no_number_ends_the_run_and_writes_nothing(
    base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*arguments: Any) -> Any:
        model = random_model(*arguments)
        torch.nn.init.constant_(model.model.norm.weight, math.nan)
        return model

    monkeypatch.setattr(sft_trainer, "random_model", broken)
    with pytest.raises(TrainingDiverged, match="the loss of step 1 is NaN or infinite, and nothing is written"):
        from_scratch.train(run_of(base_model), tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
def test_the_command_writes_into_the_directory_of_the_name(
    tiny_base: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    data = dataset(tmp_path)
    flags = ["--epochs", "1", "--sample-tokens", "5", "--explain", "--events", "events.jsonl"]
    command = ["sft", "--from-scratch", "--data", str(data), "--base", str(tiny_base), *flags]
    assert main([*command, "--name", "mine"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"wrote the model to {tmp_path / 'mine'}, trained in ")
    assert printed.out.endswith(f"try it: server --base {tmp_path / 'mine'}, where its name is base\n")
    assert "learning rate 0.001 (the default from scratch)" in printed.err
    assert "5 adjust  at a learning rate of 1.0e-03 the model moved by " in printed.err
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[-1] == {"event": "written", "path": str(tmp_path / "mine")}
    assert {event["event"] for event in events} == {"step", "epoch", "verdict", "written"}
    assert find("mine").path == tmp_path / "mine"
    # The same again finds it there.
    assert failed(capsys, *command, "--name", "mine").startswith("error: the directory mine is there already")


@pytest.mark.training
def test_as_json_and_into_a_directory_of_ones_own(tiny_base: Path, tmp_path: Path, capsys: Capture):
    output = tmp_path / "other"
    output.mkdir()
    flags = ["--epochs", 1, "--sample-tokens", 5, "--heldout", 0.2, "--output", output, "--json"]
    command = ["sft", "--from-scratch", "--name", "mine", "--data", dataset(tmp_path), "--base", tiny_base, *flags]
    assert main([str(part) for part in command]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["path"], printed["shape_of"], printed["learning_rate"]) == (str(output), "tiny-llama", 1e-3)
    assert (printed["examples"], printed["heldout_examples"], printed["epochs"]) == (10, 2, 1)
    assert printed["heldout_losses"][-1] < printed["heldout_loss_before"]
    assert find(str(output)).name == "other"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--from", "mine@1"], "--from"),
        (["--auto"], "--auto"),
        (["--resume"], "--resume"),
        (["--save-every", "5"], "--save-every"),
        (["--sample-epochs", "1,2"], "--sample-epochs"),
        (["--rank", "4", "--alpha", "8"], "--rank and --alpha"),
        (["--dropout", "0.1"], "--dropout"),
        (["--licence", "CC0-1.0"], "--licence"),
        (["--store", "somewhere"], "--store"),
    ],
)
def test_what_only_an_adapter_has_is_refused_before_anything_is_read(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, flags: list[str], named: str
):
    monkeypatch.setattr(run_options, "chosen", lambda _: pytest.fail("the emails were read"))
    printed = failed(capsys, "sft", "--from-scratch", "--name", "mine", "--data", "mine.jsonl", *flags)
    assert printed.startswith(f"error: --from-scratch trains a whole model: {named} would need an adapter, ")
    assert printed.endswith(f"hint: leave out {named}\n")


def test_a_directory_with_something_in_it_is_refused_and_left_alone(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_options, "chosen", lambda _: pytest.fail("the emails were read"))
    command = ["sft", "--from-scratch", "--name", "mine", "--data", "mine.jsonl", "--output"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("a file")
    assert f"the directory {tmp_path / 'mine'} is there already and not empty" in failed(
        capsys, *command, tmp_path / "mine"
    )
    assert f"{tmp_path / 'file'} is there already and no directory" in failed(capsys, *command, tmp_path / "file")
    assert f"there is no directory {tmp_path / 'no'}" in failed(capsys, *command, tmp_path / "no" / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_output_without_from_scratch_is_refused(capsys: Capture):
    printed = failed(capsys, "sft", "--name", "mine", "--data", "mine.jsonl", "--output", "mine")
    assert printed.startswith("error: --output is where --from-scratch writes")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"limits": ("facts_kept >= 0.5",)}, "has limits"),
        ({"sample_epochs": (1,)}, "keeps the model of several epochs"),
    ],
)
def test_a_recipe_that_asks_for_what_only_versions_have_is_refused(
    base_model: BaseModel, tmp_path: Path, asked: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=said):
        from_scratch.train(run_of(base_model, RECIPE.model_copy(update=asked)), tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []
