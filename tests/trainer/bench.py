"""`make bench-train`: the stock `trl sft` command line beside `trainer sft`, on the same emails.

    python -m tests.trainer.bench [--base NAME-or-directory] [--emails N] [--batch-size N] [--rounds N]

Both train a LoRA adapter of the same shape in the same number format, with the same seed and so the same order and the
same first weights, without dropout, one epoch. The stock one runs at one thread, which is what its launcher sets, and
at as many as there are cores; a large model only at those. Rounds are interleaved. Prints the commands and a table:
non-padding tokens per second of the training loop, medians over the rounds; the ratio to the better stock one; the peak
of resident memory; how far the losses of single steps are apart. Exit status 1 if the losses differ by more than 1e-3
(2 % in bf16).
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from adapters.models import base_models
from tests.machine import cpu
from trainer.compute.device import choose
from trainer.compute.memory import size_of
from trainer.console import bar
from trainer.data.examples import SHIPPED_EMAILS, Example, read_examples, split

EMAILS = SHIPPED_EMAILS / "formal.jsonl"
SCRIPTS = Path(sys.executable).parent
RANK, ALPHA, RATE, SEED = 16, 32, 1e-3, 0
LARGE_PARAMETERS = 500_000_000
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}
"""Of a step's loss, relative."""


@dataclass(frozen=True)
class Training:
    """What one process came to; the peak of its resident memory in MB."""

    losses: list[float]
    tokens_per_second: float
    peak: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="MODEL", default=base_models.DEFAULT_NAME)
    parser.add_argument("--emails", metavar="N", type=int, help="32; of a large model 16")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8)
    parser.add_argument("--rounds", metavar="N", type=int, help="3; of a large model 1")
    args = parser.parse_args()
    base = base_models.find(args.base, print)
    large = size_of(base.path, RANK).parameters >= LARGE_PARAMETERS
    emails_read, rounds = args.emails or (16 if large else 32), args.rounds or (1 if large else 3)
    dtype, cores = choose().dtype, os.cpu_count() or 1
    # In the order in which ours learns from them.
    emails, _ = split(read_examples([EMAILS])[:emails_read], 0, SEED)
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as scratch:
        directory = Path(scratch)
        stock = _stock(emails, str(base.path), args.batch_size, dtype, directory)
        ours = _ours(len(emails), str(base.path), args.batch_size, directory)
        print(f"stock: {shlex.join(stock)}\nours:  {shlex.join(ours)}\n", flush=True)
        threads_tried = {cores} if large else {1, cores}
        kinds = {f"stock, threads: {threads}": (stock, threads) for threads in sorted(threads_tried)}
        kinds["ours"] = (ours, cores)
        runs: dict[str, list[Training]] = {kind: [] for kind in kinds}
        with bar("training", rounds * len(kinds)) as advance:
            for _ in range(rounds):
                for kind, (command, threads) in kinds.items():
                    runs[kind].append(_trained(command, threads, directory))
                    advance(1)
    apart = max(_apart(ours, stock) for ours, stock in zip(runs["ours"], runs[f"stock, threads: {cores}"], strict=True))
    print(_table(runs))
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "trl", "peft"))
    print(f"\n{len(emails)} emails, {args.batch_size} a step, {dtype}, {base.name}, {cores} cores, {cpu()}, {packages}")
    print(f"losses of single steps differ by {apart:.1e} at most, relative; {TOLERANCE[dtype]:g} is allowed")
    return int(apart > TOLERANCE[dtype])


def _stock(emails: Sequence[Example], base: str, batch: int, dtype: str, directory: Path) -> list[str]:
    """`trl sft` as its documentation has it, with what makes the two comparable."""
    data = directory / "stock-data"
    data.mkdir()
    rows = [{"prompt": list(e.messages), "completion": [{"role": "assistant", "content": e.email}]} for e in emails]
    (data / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    options = f"""--use_cpu --bf16 {dtype == "bfloat16"} --use_peft --lora_r {RANK} --lora_alpha {ALPHA}
        --lora_dropout 0 --lora_target_modules all-linear --num_train_epochs 1 --per_device_train_batch_size {batch}
        --learning_rate {RATE} --lr_scheduler_type cosine --warmup_steps 0 --seed {SEED} --max_length 1024
        --logging_steps 1 --save_strategy no --report_to none"""
    paths = ["--model_name_or_path", base, "--dataset_name", str(data), "--output_dir", str(directory / "stock")]
    return [str(SCRIPTS / "trl"), "sft", *paths, *options.split()]


def _ours(emails: int, base: str, batch: int, directory: Path) -> list[str]:
    data, recipe = directory / "ours.jsonl", directory / "recipe.yaml"
    data.write_text("".join(EMAILS.read_text(encoding="utf-8").splitlines(keepends=True)[:emails]), encoding="utf-8")
    recipe.write_text(
        f"epochs: 1\nbatch_size: {batch}\nlearning_rate: {RATE}\nwarmup: 0\nrank: {RANK}\nalpha: {ALPHA}\n"
        f"dropout: 0\nheldout: 0\nseed: {SEED}\nsample_tokens: 1\n"
    )
    paths = ["--base", base, "--data", str(data), "--recipe", str(recipe), "--store", str(directory / "store")]
    return [str(SCRIPTS / "trainer"), "sft", "--name", "bench", *paths, "--events", str(directory / "events.jsonl")]


def _trained(command: Sequence[str], threads: int, directory: Path) -> Training:
    """Raises:
    RuntimeError: it failed; what it printed is in the message.
    """
    printed = directory / "printed.txt"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with printed.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    text = printed.read_text()
    if status:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{text[-3000:]}")
    stock = Path(command[0]).name == "trl"
    losses, speed = _read_stock(text) if stock else _read_ours(directory / "events.jsonl")
    return Training(losses, speed, usage.ru_maxrss / 1000)


def _read_stock(printed: str) -> tuple[list[float], float]:
    """The Trainer prints its logs as Python dictionaries, some with numbers in quotes."""
    logs = [ast.literal_eval(found) for found in re.findall(r"\{'(?:loss|train_runtime)'.*?\}", printed)]
    steps = [log for log in logs if "loss" in log]
    tokens = float(steps[-1]["num_tokens"])
    return [float(log["loss"]) for log in steps], tokens / float(logs[-1]["train_runtime"])


def _read_ours(events: Path) -> tuple[list[float], float]:
    steps = [event for line in events.read_text().splitlines() if (event := json.loads(line))["event"] == "step"]
    return [step["loss"] for step in steps], steps[-1]["tokens_per_second"]


def _apart(ours: Training, stock: Training) -> float:
    return max(abs(one / other - 1) for one, other in zip(ours.losses, stock.losses, strict=True))


def _table(runs: dict[str, list[Training]]) -> str:
    speeds = {kind: median(run.tokens_per_second for run in of_kind) for kind, of_kind in runs.items()}
    best = max(speed for kind, speed in speeds.items() if kind != "ours")
    lines = [
        "| | tokens per second | of the better stock one | peak memory | last loss |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, of_kind in runs.items():
        rounds = ", ".join(f"{run.tokens_per_second:.0f}" for run in of_kind)
        peak = median(run.peak for run in of_kind)
        lines.append(
            f"| {kind} | {speeds[kind]:.0f} ({rounds}) | {speeds[kind] / best:.2f} | {peak:.0f} MB "
            f"| {of_kind[-1].losses[-1]:.4f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
