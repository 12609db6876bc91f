"""The demo: teach two voices, serve them, show three held-out tasks before and after, open the comparison page.

`make demo` calls it:

    .venv/bin/python deploy/demo.py                                 stays until Ctrl-C
    .venv/bin/python deploy/demo.py --check                         ends when the page answers: status 0 if all worked
    .venv/bin/python deploy/demo.py --base smollm2-135m-instruct    a smaller base model: faster, and it cannot write

Its store is .demo/store in the clone; a second run reuses the voices and the base model that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.emails.tasks import Task

ROOT = Path(__file__).parent.parent
DEMO = ROOT / ".demo"
STORE = DEMO / "store"
SCRIPTS = Path(sys.executable).parent
VOICES = ("formal", "friendly")
# Of the shipped emails of a voice: one pass over them takes under five minutes on two cores with bf16.
EMAILS = 96
# A new date, a resignation and an apology, chosen before a voice had written them.
TASKS = ("heldout-02", "heldout-18", "heldout-25")
MAX_TOKENS = 256
START_DEADLINE_SECONDS = 1800
"""Generous: on a GPU the first start reads 8 GB and compiles."""
EXPECTED_SECONDS = {"server": 45.0, "ui": 8.0}
"""How long a first start takes; after that the last one's time is the estimate."""


class StepFailed(Exception):
    """A step of the demo that failed: which, why and what to do."""


@dataclass(frozen=True)
class Answer:
    model: str
    text: str
    tokens: int
    first_token_seconds: float
    tokens_per_second: float
    # What the email keeps of its task, misses and invents, in words.
    findings: tuple[str, ...] = ()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="end after the comparison")
    arguments.add_argument("--base", help="a base model of `adapters base list` (default: what this machine can run)")
    asked = arguments.parse_args()
    check = asked.check
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started: list[subprocess.Popen[bytes]] = []
    try:
        DEMO.mkdir(exist_ok=True)
        base = asked.base or default_base()
        for voice in VOICES:
            teach(voice, base)
        port, page = free_port(8000), free_port(7860)
        server_flags = ["--base", base, "--store", STORE, "--port", str(port)]
        started.append(start("server", server_flags, f"http://127.0.0.1:{port}/health"))
        for task in compared_tasks():
            show(task.task, compare(task, port))
        show_curl(port)
        address = f"http://127.0.0.1:{page}/"
        ui_flags = ["--server", f"http://127.0.0.1:{port}/v1", "--store", STORE, "--kept", DEMO / "kept"]
        started.append(start("ui", [*ui_flags, "--port", str(page)], address))
        print(f"\nCompare the voices in your browser: {address}\n", flush=True)
        return wait(started, check)
    except StepFailed as exc:
        print(f"\nerror: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping", file=sys.stderr)
        return 130 if check else 0
    finally:
        for process in reversed(started):
            stop(process)


def default_base() -> str:
    """The base model that trainer and server take by themselves on this machine."""
    import torch

    from adapters.models import base_models

    return base_models.default(torch.cuda.is_available()).base


def teach(voice: str, base: str) -> None:
    """Run `trainer sft` for the voice, unless the store has what the same base, emails and code taught before."""
    shipped = ROOT / f"trainer/data/shipped/voices/{voice}.jsonl"
    data = DEMO / f"{voice}.jsonl"
    data.write_text("".join(shipped.read_text(encoding="utf-8").splitlines(keepends=True)[:EMAILS]), encoding="utf-8")
    made_from = hashlib.sha256(f"{base} {EMAILS}".encode())
    # All of both packages, because most of their files have a part in what a voice learns.
    for file in sorted([*ROOT.glob("trainer/**/*"), *ROOT.glob("adapters/**/*")]):
        if file.is_file() and file.parent.name != "__pycache__":
            made_from.update(file.read_bytes())
    stamp = DEMO / f"{voice}.taught"
    if stamp.is_file() and stamp.read_text() == made_from.hexdigest() and (STORE / voice / "pointers.json").is_file():
        say(f"voice {voice}: taught before, reused")
        return
    say(f"voice {voice}: teaching it")
    command = [SCRIPTS / "trainer", "sft", "--data", data, "--name", voice, "--base", base, "--store", STORE]
    done = subprocess.run(
        [*command, "--licence", "CC0-1.0", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise StepFailed(
            f"teaching the voice {voice} failed (exit status {done.returncode}), see above\n"
            "hint: mend that and run `make demo` again"
        )
    version = json.loads(done.stdout)
    say(f"voice {voice}: published {version['id']} after {version['training']['seconds']:.0f} s of training")
    promoted = subprocess.run(
        [SCRIPTS / "adapters", "promote", version["id"], "--store", STORE], capture_output=True, text=True, check=False
    )
    if promoted.returncode:
        raise StepFailed(f"promoting {version['id']} failed: {promoted.stderr.strip()}")
    stamp.write_text(made_from.hexdigest())


def start(name: str, flags: list[str | Path], address: str) -> subprocess.Popen[bytes]:
    """Start our console script `name` and wait until `address` answers, with a bar over the time of the last start."""
    from tqdm import tqdm

    last, log = DEMO / f"{name}-start-seconds", log_of(name)
    expected = float(last.read_text()) if last.is_file() else EXPECTED_SECONDS[name]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [SCRIPTS / name, *flags], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
    started = time.monotonic()
    layout = "{desc}: |{bar}| {n:.0f} s, {remaining} left"
    with tqdm(total=expected, desc=f"starting {name}", file=sys.stderr, bar_format=layout, dynamic_ncols=True) as bar:
        while not answers(address):
            seconds = time.monotonic() - started
            if process.poll() is not None or seconds > START_DEADLINE_SECONDS:
                stop(process)
                tail = "\n  ".join(log.read_text(errors="replace").strip().splitlines()[-8:])
                raise StepFailed(f"{name} did not start:\n  {tail}\nhint: its whole log is {log}")
            bar.n = min(seconds, expected)
            bar.refresh()
            time.sleep(0.5)
    last.write_text(f"{time.monotonic() - started:.1f}")
    return process


def log_of(name: str) -> Path:
    return DEMO / f"{name}.log"


def compared_tasks() -> list[Task]:
    from adapters.emails.tasks import shipped_tasks

    return [task for task in shipped_tasks() if task.id in TASKS]


def compare(task: Task, port: int) -> list[Answer]:
    say(f"\nwriting an email with the base model and both voices ({task.id})")
    return [write(port, model, task) for model in ("base", *VOICES)]


def findings(task: Task, text: str) -> tuple[str, ...]:
    """What the email keeps, misses and invents, by the rules of the evaluation; they do not see what it means."""
    from adapters.emails.facts import invented
    from adapters.emails.tasks import keeps

    missing = [fact[0] for fact in task.facts if not keeps(fact, text)]
    found = [f"keeps {len(task.facts) - len(missing)} of {len(task.facts)} facts"]
    found += [f"misses: {', '.join(missing)}"] if missing else []
    added = [fact.text for fact in invented(text, task.task)]
    return (*found, f"invents: {', '.join(added)}") if added else tuple(found)


def write(port: int, model: str, task: Task) -> Answer:
    """Stream one greedy answer through the OpenAI client; the first, cold request to a voice loads it first.

    The base model gets the instruction that the server gives to a voice.
    """
    import openai

    from adapters.emails.prompts import INSTRUCTION, instructed, task_messages

    key = os.environ.get("MAILWRIGHT_API_KEY") or "none"
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key)
    started = time.monotonic()
    first = None
    text, tokens, answered_by = "", 0, model
    try:
        stream = client.chat.completions.create(
            model=model,
            messages=instructed(task_messages(task.task), INSTRUCTION if model == "base" else ""),
            temperature=0,
            max_tokens=MAX_TOKENS,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            answered_by = chunk.model
            if chunk.usage:
                tokens = chunk.usage.completion_tokens
            if chunk.choices and chunk.choices[0].delta.content:
                first = first or time.monotonic()
                text += chunk.choices[0].delta.content
    except openai.OpenAIError as exc:
        raise StepFailed(f"{model} did not answer: {exc}\nhint: the server's log is {log_of('server')}") from exc
    if first is None:
        raise StepFailed(f"{model} answered with an empty text\nhint: the server's log is {log_of('server')}")
    writing = time.monotonic() - first
    speed = (tokens - 1) / writing if writing else 0.0
    return Answer(answered_by, text.strip(), tokens, first - started, speed, findings(task, text))


def show(task: str, answers: Sequence[Answer]) -> None:
    print(f"\nA task that no training saw:\n{textwrap.indent(task, '  ')}\n")
    width = max(34, (min(shutil.get_terminal_size((120, 40)).columns, 132) - 6) // 3)
    columns = [column(answer, width) for answer in answers]
    for line in range(max(map(len, columns))):
        print(" | ".join((cells[line] if line < len(cells) else "").ljust(width) for cells in columns).rstrip())
    print(flush=True)


def show_curl(port: int) -> None:
    body = json.dumps(
        {"model": "formal", "messages": [{"role": "user", "content": "Thank Ada for the 12 chairs. I'm Kim."}]}
    )
    body = body.replace("'", "'\\''")
    # The shell puts the key in, so that it is not shown.
    key = ' -H "Authorization: Bearer $MAILWRIGHT_API_KEY"' if os.environ.get("MAILWRIGHT_API_KEY") else ""
    address = f"http://127.0.0.1:{port}/v1/chat/completions"
    command = f"curl -s {address}{key} -H 'Content-Type: application/json' -d '{body}'"
    print(f"\nThe server answers at http://127.0.0.1:{port}/v1 (OpenAI's API). Try:\n\n{command}\n", flush=True)
    if shutil.which("curl"):
        tried = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        if tried.returncode or "choices" not in json.loads(tried.stdout or "{}"):
            raise StepFailed(
                f"that curl line failed (exit status {tried.returncode}): {tried.stdout[:300]}{tried.stderr[:300]}"
            )


def column(answer: Answer, width: int) -> list[str]:
    lines = [
        answer.model,
        f"first token {answer.first_token_seconds:.2f} s, {answer.tokens_per_second:.0f} tokens/s",
        "-" * width,
    ]
    for line in answer.text.splitlines():
        lines += textwrap.wrap(line, width) or [""]
    if answer.tokens >= MAX_TOKENS:
        lines.append(f"... (cut at {MAX_TOKENS} tokens)")
    return [*lines, "", *chain.from_iterable(textwrap.wrap(f"* {found}", width) for found in answer.findings)]


def wait(started: list[subprocess.Popen[bytes]], check: bool) -> int:
    if check:
        say("every step worked")
        return 0
    say("Ctrl-C stops everything")
    while all(process.poll() is None for process in started):
        time.sleep(0.5)
    ended = next(process for process in started if process.poll() is not None)
    name = Path(str(ended.args[0])).name
    raise StepFailed(f"{name} ended by itself (exit status {ended.returncode})\nhint: its log is {log_of(name)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for whatever of its process group is left after 20 s."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port(wanted: int) -> int:
    """`wanted`, or the next port above it that nothing listens on."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise StepFailed(f"no free port from {wanted} to {wanted + 99}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
