"""What the trainer says before any model is loaded. The runs: test_sft.py and test_evaluate_cli.py."""

import json
import re
from pathlib import Path
from typing import Literal

import pytest

from adapters.errors import ConfigError
from adapters.models import base_models, catalog
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from trainer.cli import main
from trainer.compute import device
from trainer.compute.device import Device

Capture = pytest.CaptureFixture[str]
ROW = {"task": "Thank Ada.", "email": "Dear Ada,\n\nThank you.\n\nBest,\nKim"}


def failed(capsys: Capture, *arguments: object) -> str:
    """What a command that the user can mend prints on stderr; its status is 2 and it prints nothing else."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "mine.jsonl").write_text(json.dumps(ROW))
    return tmp_path / "mine.jsonl"


def test_bad_rows_are_all_listed_before_a_model_is_looked_for(data: Path, capsys: Capture):
    data.write_text('{"task": "Thank Ada."}\n\n{')
    printed = failed(capsys, "sft", "--data", data, "--name", "mine", "--base", "/nowhere")
    assert printed.startswith("error: 2 rows cannot be used:\n")
    assert f"{data}:1: 'email' must be a text" in printed
    assert f"{data}:3: not JSON" in printed
    assert "hint: " in printed


def test_a_missing_file_is_an_error(tmp_path: Path, capsys: Capture):
    assert "nowhere.jsonl: cannot be read" in failed(capsys, "sft", "--data", tmp_path / "nowhere.jsonl", "--name", "a")


def test_an_unknown_recipe_is_an_error(data: Path, capsys: Capture):
    printed = failed(capsys, "sft", "--data", data, "--name", "mine", "--recipe", "slow")
    assert printed == (
        "error: there is no recipe 'slow'\nhint: use one of article, gpu, quick, shipped, or the path of a YAML file\n"
    )


@pytest.mark.parametrize(
    ("flag", "value", "field"),
    [("--epochs", 0, "epochs"), ("--batch-size", -1, "batch_size"), ("--learning-rate", 7.0, "learning_rate")],
)
def test_a_flag_out_of_bounds_is_an_error(data: Path, capsys: Capture, flag: str, value: float, field: str):
    assert f"{field} = {value}" in failed(capsys, "sft", "--data", data, "--name", "mine", flag, value)


def test_a_base_model_that_is_none_is_an_error(data: Path, tmp_path: Path, capsys: Capture):
    printed = failed(capsys, "sft", "--data", data, "--name", "mine", "--base", tmp_path, "--store", tmp_path / "store")
    assert f"{tmp_path} is not a base model" in printed
    assert not (tmp_path / "store").exists()


def test_a_name_that_is_none_is_refused_before_a_base_model_is_fetched(
    data: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(base_models, "find", lambda *_: pytest.fail("97 MB were fetched for nothing"))
    assert "'My Voice' is not a valid adapter name" in failed(capsys, "sft", "--data", data, "--name", "My Voice")


@pytest.mark.parametrize(
    ("kind", "free", "base", "why", "recipe"),
    [
        ("cuda", 0, "qwen3-4b-instruct-2507", "the default on a GPU", "gpu"),
        ("cpu", 9, "qwen2.5-coder-1.5b-instruct", "the default without a GPU (9.0 GB of memory free)", "quick"),
        (
            "cpu",
            3,
            "smollm2-135m-instruct",
            "the default without a GPU with less than 8 GB (3.0 GB of memory free)",
            "quick",
        ),
    ],
)
def test_the_device_chooses_base_model_and_recipe_and_says_so(
    data: Path,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Literal["cpu", "cuda"],
    free: int,
    base: str,
    why: str,
    recipe: str,
):
    monkeypatch.delenv("MAILWRIGHT_BASE")
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(catalog, "free_memory", lambda: free * 10**9)
    monkeypatch.setattr(device, "choose", lambda: Device(kind, "bfloat16", False, f"{kind}, a fast one"))
    printed = refused_at_the_base_model(monkeypatch, capsys, "--data", data)
    assert printed.splitlines()[0] == f"device {kind}, a fast one"
    assert f"base model {base}, {why}; --base gives another" in printed
    assert f"recipe {recipe}, the default for that base model" in printed
    assert f"error: {base} was looked for" in printed


def test_the_base_model_of_the_stores_voices_is_taken_again(
    data: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, store: Store, base_model: BaseModel
):
    monkeypatch.delenv("MAILWRIGHT_BASE")
    monkeypatch.setattr(device, "choose", lambda: Device("cuda", "bfloat16", False, "CUDA"))
    printed = refused_at_the_base_model(monkeypatch, capsys, "--data", data, "--store", store.directory)
    assert f"base model {base_model.path}, on which the voices in {store.directory} were trained" in printed


def test_a_base_model_and_a_recipe_that_are_given_are_no_defaults(
    data: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device, "choose", lambda: Device("cuda", "bfloat16", False, "CUDA"))
    printed = refused_at_the_base_model(monkeypatch, capsys, "--data", data, "--base", "mine", "--recipe", "shipped")
    assert "base model mine\nrecipe shipped\n" in printed


def refused_at_the_base_model(monkeypatch: pytest.MonkeyPatch, capsys: Capture, *arguments: object) -> str:
    """What `sft` prints until it looks for its base model."""

    def find(wanted: str, log: object) -> None:
        raise ConfigError(f"{wanted} was looked for")

    monkeypatch.setattr(base_models, "find", find)
    return failed(capsys, "sft", "--name", "mine", *arguments)


@pytest.mark.parametrize("missing", ["--data", "--name"])
def test_a_missing_flag_is_named(capsys: Capture, missing: str):
    given = {"--data": "mine.jsonl", "--name": "mine"}
    del given[missing]
    printed = failed(capsys, "sft", *[part for pair in given.items() for part in pair])
    assert printed == (
        f"error: the following arguments are required: {missing}\nhint: trainer sft --help shows every flag\n"
    )


@pytest.mark.parametrize("arguments", [[], ["teach"], ["sft", "--rank", "high"], ["check", "a.jsonl", "--nonsense"]])
def test_wrong_arguments_are_an_error_with_a_hint(capsys: Capture, arguments: list[str]):
    first, second = failed(capsys, *arguments).splitlines()
    assert first.startswith("error: ")
    assert second.startswith("hint: trainer ")


def test_the_help_shows_commands_to_copy(capsys: Capture):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "trainer sft --data my_email_dataset.json --name my_email_assistant" in capsys.readouterr().out


def test_the_help_names_every_command(capsys: Capture):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    commands = ("sft", "import", "check", "sweep", "compare-starts", "evaluate")
    assert [command for command in commands if not re.search(rf"\n    {command}\s", shown)] == []


def test_an_unknown_adapter_cannot_be_evaluated(store: Store, capsys: Capture):
    printed = failed(capsys, "evaluate", "formall", "--store", store.directory)
    assert printed == "error: the model 'formall' does not exist\nhint: did you mean formal?\n"


def test_tasks_without_facts_cannot_be_evaluated(store: Store, data: Path, tiny_base: Path, capsys: Capture):
    printed = failed(capsys, "evaluate", "formal", "--tasks", data, "--store", store.directory, "--base", tiny_base)
    assert printed.startswith(f"error: {data} has tasks without facts")
