import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapters.cli import main
from adapters.console import run
from adapters.errors import ConfigError
from adapters.store.store import Store

Capture = pytest.CaptureFixture[str]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "vllm", "gradio", "huggingface_hub", "fastapi", "openai")


def test_list_marks_the_promoted_versions(store: Store, capsys: Capture):
    assert main(["list", "--store", str(store.directory)]) == 0
    head, names, *rows = capsys.readouterr().out.splitlines()
    assert head == f"store: {store.directory}"
    assert re.split(" {2,}", names.strip()) == [
        *["adapter", "created", "base model", "rank", "held-out loss", "status"],
    ]
    assert [row.split()[:2] for row in rows] == [
        ["*", "formal@1"],
        ["formal@2", rows[1].split()[1]],
        ["*", "friendly@1"],
    ]
    assert all(row.split()[-2:] == ["tiny-llama", "8"] for row in rows)


def test_list_as_json_has_every_version(store: Store, capsys: Capture):
    assert main(["list", "--json", "--store", str(store.directory)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["id"], row["promoted"]) for row in rows] == [
        ("formal@1", True),
        ("formal@2", False),
        ("friendly@1", True),
    ]
    assert all(Path(row["path"]).is_dir() for row in rows)


def test_list_of_an_empty_store_says_how_to_fill_it(tmp_path: Path, capsys: Capture):
    assert main(["list", "--store", str(tmp_path / "none")]) == 0
    assert "trainer sft --data FILE --name NAME" in capsys.readouterr().out
    assert main(["list", "--json", "--store", str(tmp_path / "none")]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_takes_the_store_from_the_environment(store: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAILWRIGHT_STORE", str(store.directory))
    main(["list"])
    assert "formal@1" in capsys.readouterr().out


def test_list_ignores_the_leftovers_of_a_crash(store: Store, capsys: Capture):
    (store.directory / "formal" / ".incoming-abc" / "version").mkdir(parents=True)
    assert main(["list", "--json", "--store", str(store.directory)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_show_prints_the_manifest_field_by_field(store: Store, capsys: Capture):
    assert main(["show", "formal", "--store", str(store.directory)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line)
    assert lines["path"] == str(store.resolve("formal").path)
    assert lines["version"] == "1"
    assert lines["lora.target_modules"] == "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"


def test_show_as_json_is_the_manifest_with_its_path(store: Store, capsys: Capture):
    assert main(["show", "formal@2", "--json", "--store", str(store.directory)]) == 0
    shown = json.loads(capsys.readouterr().out)
    version = store.resolve("formal@2")
    assert shown.pop("path") == str(version.path)
    standing = {"promoted": False, "canary": None, "labels": [], "pinned": False, "retired": False}
    assert shown == standing | version.manifest().model_dump(mode="json")


def test_promote_says_what_the_name_means_now(store: Store, capsys: Capture):
    assert main(["promote", "formal@2", "--store", str(store.directory)]) == 0
    assert capsys.readouterr().out == "formal now means formal@2\n"
    assert store.resolve("formal").id == "formal@2"


def test_promote_as_json(store: Store, capsys: Capture):
    assert main(["promote", "formal@2", "--json", "--store", str(store.directory)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["promoted"], told["overridden"]) == ("formal", "formal@2", [])


@pytest.mark.parametrize(
    ("command", "error", "hint"),
    [
        (["show", "freindly"], "error: the model 'freindly' does not exist", "hint: did you mean friendly?"),
        (["show", "formal@9"], "error: the model 'formal@9' does not exist", "formal@1, formal@2"),
        (["show", "../formal"], "error: the model '../formal' does not exist", "hint: "),
        (["promote", "formal"], "error: 'formal' gives no version", "hint: give one, for example formal@1"),
        (["promote", "formal@9"], "error: the model 'formal@9' does not exist", "formal@1, formal@2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_a_sentence_a_hint_and_status_2(
    store: Store, capsys: Capture, command: list[str], error: str, hint: str
):
    assert main([*command, "--store", str(store.directory)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == error
    assert hint in second


def test_a_store_in_the_home_of_a_user_who_is_not_here_is_an_error(capsys: Capture):
    assert main(["list", "--store", "~nobody-here/x"]) == 2
    assert capsys.readouterr().err == (
        "error: the home directory in '~nobody-here/x' is not known\nhint: give the whole path, without ~\n"
    )


def test_a_hint_on_the_command_line_names_a_command_and_no_url(store: Store, capsys: Capture):
    main(["show", "zzz", "--store", str(store.directory)])
    assert "GET " not in capsys.readouterr().err


def test_debug_raises_the_error_itself(store: Store):
    with pytest.raises(LookupError):
        main(["show", "unknown", "--debug", "--store", str(store.directory)])


@pytest.mark.parametrize(
    ("arguments", "program", "error"),
    [
        (["publish"], "adapters", "invalid choice: 'publish'"),
        ([], "adapters", "required: COMMAND"),
        (["list", "--nonsense"], "adapters", "unrecognized arguments: --nonsense"),
        (["promote"], "adapters promote", "required: NAME@N"),
        (["promote", "formal@2", "--percent", "ten"], "adapters promote", "invalid int value: 'ten'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_an_error_with_a_hint(capsys: Capture, arguments: list[str], program: str, error: str):
    assert main(arguments) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert second == f"hint: {program} --help shows every flag"


def test_an_error_without_a_hint_prints_no_hint(capsys: Capture):
    def fail() -> None:
        raise ConfigError("it is broken")

    assert run(fail, debug=False) == 2
    assert capsys.readouterr().err == "error: it is broken\n"


def test_ctrl_c_is_status_130(capsys: Capture):
    def stop() -> None:
        raise KeyboardInterrupt

    assert run(stop, debug=False) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(lambda: print(1 / 0), debug=False)


@pytest.mark.parametrize(
    "command",
    [["adapters", "--help"], ["adapters", "list"], ["trainer", "--help"], ["trainer", "sft", "--help"]],
    ids=" ".join,
)
def test_help_and_list_answer_without_importing_anything_heavy(command: list[str], tmp_path: Path):
    module, *arguments = command
    probe = (
        f"import sys; from {module}.cli import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit as end: assert not end.code\n"
        f"print(*sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env=os.environ | {"MAILWRIGHT_STORE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.split() == []
    assert done.stdout
    assert time.monotonic() - started < 10
