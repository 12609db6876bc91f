"""Emails kept by hand: what the file holds, who may write at once, and that the trainer learns from it."""

import errno
import json
import os
import shlex
import stat
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from adapters.emails.prompts import task_messages
from adapters.emails.tasks import shipped_tasks
from adapters.errors import ConfigError, DataError, KeptDamaged
from adapters.models.base_models import BaseModel
from adapters.settings import default_store_directory
from adapters.store.store import Store
from tests import tiny
from trainer.data.examples import read_examples
from ui.parts.kept_examples import MINIMUM, KeptExamples

TASK, EMAIL = "Thank Ada for the 12 chairs.", "Dear Ada,\n\nthank you for the “12 chairs”.\u2028\n\nKim"
EARLIER = ("Invite Ada.", "Dear Ada,\n\ncome on 14 May.\n\nKim")


@pytest.fixture
def kept(tmp_path: Path) -> KeptExamples:
    return KeptExamples(tmp_path / "kept")


def test_the_trainer_reads_back_what_was_kept(kept: KeptExamples):
    assert kept.count("formal") == 0
    first = kept.keep("formal", f" {TASK}\n", f"\n{EMAIL} ")
    second = kept.keep("formal", "Shorter.", "Thanks, Ada!", [EARLIER, (TASK, EMAIL)])
    assert (first.count, second.count, kept.count("formal")) == (1, 2, 2)
    assert first.path == second.path == kept.path("formal")
    one, two = read_examples([first.path])
    assert (one.task, one.email, one.messages, one.voice) == (TASK, EMAIL, tuple(task_messages(TASK)), "formal")
    assert two.messages == tuple(task_messages("Shorter.", [EARLIER, (TASK, EMAIL)]))
    assert two.email == "Thanks, Ada!"


def test_every_voice_has_a_file_of_its_own_that_nobody_else_reads(kept: KeptExamples):
    formal, friendly = kept.keep("formal", TASK, EMAIL), kept.keep("friendly", TASK, EMAIL)
    assert (formal.path.name, friendly.path.name) == ("formal.jsonl", "friendly.jsonl")
    assert (formal.count, friendly.count) == (1, 1)
    assert stat.S_IMODE(formal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(("task", "email", "told"), [("", EMAIL, "task is empty"), (TASK, " \n", "email is empty")])
def test_nothing_empty_is_kept(kept: KeptExamples, task: str, email: str, told: str):
    with pytest.raises(DataError, match=told):
        kept.keep("formal", task, email)
    assert kept.count("formal") == 0


def test_the_same_email_for_the_same_task_is_kept_once(kept: KeptExamples):
    kept.keep("formal", TASK, EMAIL)
    with pytest.raises(DataError, match="kept already"):
        kept.keep("formal", f"{TASK} ", EMAIL)
    assert kept.keep("formal", TASK, f"{EMAIL} Byron").count == 2
    assert kept.keep("formal", TASK, EMAIL, [EARLIER]).count == 3


@pytest.mark.parametrize("number", [1, 41], ids=["a task", "a revision"])
def test_a_task_that_evaluation_measures_with_is_not_kept(kept: KeptExamples, number: int):
    held_out = shipped_tasks()[number - 1]
    for task, previous in [
        (held_out.task.upper().replace(" ", "  "), held_out.previous),
        ("Shorter.", [(held_out.task, EMAIL)]),
        *([(held_out.previous[0][0], ())] if held_out.previous else []),
    ]:
        with pytest.raises(DataError, match="trainer evaluate"):
            kept.keep("formal", task, EMAIL, previous)
    assert kept.count("formal") == 0


@pytest.mark.parametrize("voice", ["../formal", "/etc/passwd", "Formal", "", ".", "formal@2", "a\0b", "a\n", "text"])
def test_what_is_no_name_of_a_voice_reaches_no_file(kept: KeptExamples, voice: str):
    for touch in (
        kept.count,
        kept.command,
        lambda name: kept.keep(name, TASK, EMAIL),
        lambda name: kept.undo(name, "x"),
    ):
        with pytest.raises(ConfigError):
            touch(voice)
    assert not kept.directory.exists()


def test_a_link_is_not_followed(kept: KeptExamples, tmp_path: Path):
    other = tmp_path / "other.jsonl"
    other.write_text("mine\n")
    kept.directory.mkdir()
    kept.path("formal").symlink_to(other)
    for touch in (kept.count, lambda name: kept.keep(name, TASK, EMAIL), lambda name: kept.undo(name, "x")):
        with pytest.raises(KeptDamaged, match=r"formal\.jsonl"):
            touch("formal")
    assert other.read_text() == "mine\n"


def test_undo_takes_back_that_row_and_no_other(kept: KeptExamples):
    one, two, three = (kept.keep("formal", TASK, f"{EMAIL} {number}") for number in range(3))
    assert kept.undo("formal", two.id) == 2
    assert [example.email for example in read_examples([one.path])] == [f"{EMAIL} 0", f"{EMAIL} 2"]
    assert kept.undo("formal", two.id) == 2
    assert kept.undo("formal", one.id) == 1
    assert kept.undo("formal", three.id) == kept.count("formal") == 0
    assert kept.keep("formal", TASK, EMAIL).count == 1


def test_rows_that_somebody_edited_stay_as_they_are(kept: KeptExamples):
    kept.directory.mkdir()
    by_hand = '{"task": "Thank  Ada.",   "email": "Hi"}\n{"broken\n"text"\n\n{"task": "last", "email": "no newline"}'
    kept.path("formal").write_text(by_hand)
    row = kept.keep("formal", TASK, EMAIL)
    assert row.count == 5
    lines = row.path.read_text().split("\n")
    assert "\n".join(lines[:-2]) == by_hand
    assert json.loads(lines[-2])["email"] == EMAIL
    assert kept.undo("formal", row.id) == 4
    assert row.path.read_text() == by_hand.replace("\n\n", "\n") + "\n"


def test_half_a_character_is_refused(kept: KeptExamples):
    with pytest.raises(DataError, match="half a character"):
        kept.keep("formal", TASK, "Dear \ud83d")
    assert kept.count("formal") == 0


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_an_error_and_leaves_the_file_as_it_was(
    kept: KeptExamples, monkeypatch: pytest.MonkeyPatch, call: str
):
    row = kept.keep("formal", TASK, EMAIL)
    before = row.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(KeptDamaged, match="No space left on device") as refused:
            kept.keep("formal", "Invite Ada.", EMAIL)
    assert "still on the page" in refused.value.hint
    assert row.path.read_bytes() == before
    assert list(kept.directory.iterdir()) == [row.path]


def test_a_full_disk_leaves_undo_undone(kept: KeptExamples, monkeypatch: pytest.MonkeyPatch):
    row = kept.keep("formal", TASK, EMAIL)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(KeptDamaged):
            kept.undo("formal", row.id)
    assert list(kept.directory.iterdir()) == [row.path]
    assert kept.count("formal") == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KeptDamaged, match=str(tmp_path / "file")) as refused:
        KeptExamples(tmp_path / "file").keep("formal", TASK, EMAIL)
    assert "--kept" in refused.value.hint


def keep_and_undo(directory: Path, worker: int) -> None:
    """Keep 20 emails and take every second one back."""
    kept = KeptExamples(directory)
    for number in range(20):
        row = kept.keep("formal", TASK, f"From {worker}: email {number}. " + "x" * 9000)
        if number % 2:
            kept.undo("formal", row.id)


def test_several_processes_lose_nothing_of_one_another(kept: KeptExamples):
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        for done in [pool.submit(keep_and_undo, kept.directory, worker) for worker in range(4)]:
            done.result()
    emails = {example.email.split(". ")[0] for example in read_examples([kept.path("formal")])}
    assert emails == {f"From {worker}: email {number}" for worker in range(4) for number in range(0, 20, 2)}
    assert kept.count("formal") == 40
    assert list(kept.directory.iterdir()) == [kept.path("formal")]


def test_the_command_names_the_first_emails_the_kept_ones_and_the_voice(tmp_path: Path):
    kept = KeptExamples(tmp_path / "my kept mail")
    data = [Path("trainer/data/shipped/voices/formal.jsonl"), Path("it's.jsonl")]
    assert shlex.split(kept.command("formal", data)) == [
        *["trainer", "sft", "--data", "trainer/data/shipped/voices/formal.jsonl", "--data", "it's.jsonl"],
        *["--data", str(tmp_path / "my kept mail" / "formal.jsonl"), "--name", "formal"],
    ]
    assert shlex.split(kept.command("formal"))[:4] == ["trainer", "sft", "--data", str(kept.path("formal"))]


def test_the_command_names_a_store_that_is_not_the_default(kept: KeptExamples, tmp_path: Path):
    assert "--store" not in kept.command("formal", store=default_store_directory())
    assert shlex.split(kept.command("formal", store=tmp_path / "a store"))[-2:] == [
        "--store",
        str(tmp_path / "a store"),
    ]


@pytest.mark.training
@pytest.mark.timeout(600)
def test_the_command_makes_the_next_version_of_the_voice(
    kept: KeptExamples, tmp_path: Path, tiny_base: Path, base_model: BaseModel
):
    store = Store(tmp_path / "store")
    tiny.publish(store, base_model, "formal", 1)
    first = tmp_path / "first emails.jsonl"
    first.write_text("".join(json.dumps({"task": f"Invite {n}", "email": f"Hi,\n\ncome, {n}!"}) + "\n" for n in "abcd"))
    for number in range(MINIMUM):
        kept.keep("formal", f"Thank person {number} for {number} chairs.", f"Dear {number},\n\nthank you.\n\nKim")
    command = kept.command("formal", [first], store.directory)
    done = subprocess.run(
        f"{Path(sys.executable).parent}/{command} --base {shlex.quote(str(tiny_base))} --epochs 1",
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "published formal@2" in done.stdout
    training = store.resolve("formal@2").manifest().training
    assert training.examples + training.heldout_examples == MINIMUM + 4
