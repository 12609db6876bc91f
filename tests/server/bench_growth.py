"""`make bench-growth`: tokens a second by clients, adapters in a batch, rank and length of the prompt.

    python -m tests.server.bench_growth [--rounds N] [--tokens N]

Servers of the default base model, one after the other for each `--max-rank`, by which a step costs also where the
adapters have less, and all the rest on the first; asked as in tests/server/bench.py: random prompts, streaming. Prints
the tables, medians over the rounds, and a plot for Mermaid.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests.machine import cpu
from tests.server.bench import PROMPT_TOKENS, RANK, load, publish_random, rounds_and_tokens, running
from trainer.console import bar

CLIENTS, ADAPTERS = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16)
PROMPTS, RANKS = (16, 64, 256, 1024, 1792), (RANK, 32, 64, 128)
"""Of 2,048 tokens that prompt and answer may have together; vLLM's own ranks."""
BATCH, FULL = 8, 16
"""Clients where prompts and ranks grow, and where adapters do."""
NAMES = [f"voice-{number}@1" for number in range(max(ADAPTERS))]


@dataclass(frozen=True)
class Case:
    """`value` of `what`: so many clients, the models that they ask in turn, and the tokens of a prompt."""

    what: str
    value: int
    clients: int
    models: tuple[str, ...]
    prompt: int = PROMPT_TOKENS


GROWING = [
    *(Case("clients, base model", clients, clients, ("base",)) for clients in CLIENTS),
    *(Case("clients, one adapter", clients, clients, (NAMES[0],)) for clients in CLIENTS),
    *(Case("adapters in a batch of 16", count, FULL, tuple(NAMES[:count])) for count in ADAPTERS),
    *(Case("tokens of the prompt, 8 clients", tokens, BATCH, (NAMES[0],), tokens) for tokens in PROMPTS),
]
Speeds = dict[Case, list[float]]


def main() -> int:
    args = rounds_and_tokens(__doc__, tokens=64).parse_args()
    base = base_models.find(base_models.DEFAULT_NAME, print)
    speeds: Speeds = {}
    with (
        tempfile.TemporaryDirectory(prefix="mailwright-bench-") as scratch,
        bar("measuring", args.rounds * (len(GROWING) + len(RANKS))) as advance,
    ):
        store = Store(Path(scratch) / "store")
        for number, name in enumerate(NAMES):
            publish_random(store, base, name.partition("@")[0], number)
        for rank in RANKS:
            cases = [*(GROWING if rank == RANK else ()), Case("rank, 8 clients", rank, BATCH, (NAMES[0],))]
            ours = [sys.executable, "-m", "server.launch", "--base", str(base.path), "--store", str(store.directory)]
            ours += ["--max-rank", str(rank), "--allow-fields", "ignore_eos,repetition_penalty"]
            with running(ours, {}, Path(scratch) / "server.log") as url:
                for round_ in range(-1, args.rounds):
                    for number, case in enumerate(cases):
                        speed = measured(url, base, case, args.tokens, 100 * (round_ + 1) + number)
                        # The round before the first warms the server and its adapters.
                        if round_ >= 0:
                            speeds.setdefault(case, []).append(speed)
                            advance(1)
    print(table(speeds))
    print(f"\n{args.rounds} rounds, {args.tokens} tokens an answer, {base.name}, {os.cpu_count()} cores, {cpu()}\n")
    print(plot(speeds))
    return 0


def measured(url: str, base: BaseModel, case: Case, tokens: int, seed: int) -> float:
    """Tokens a second of all its clients."""
    requests = max(2 * case.clients, 4)
    said = load(url, base, case.models, case.clients, requests, tokens, seed, "ttft", case.prompt)
    return float(said["output_throughput"])


def table(speeds: Speeds) -> str:
    lines = []
    for what in dict.fromkeys(case.what for case in speeds):
        row = [case for case in speeds if case.what == what]
        lines += [
            f"| {what} | {' | '.join(str(case.value) for case in row)} |",
            f"| {' | '.join(['---'] * (len(row) + 1))} |",
            f"| tokens a second | {' | '.join(f'{median(speeds[case]):.0f}' for case in row)} |",
            "",
        ]
    return "\n".join(lines)


def plot(speeds: Speeds) -> str:
    """Both lines of the clients, in Mermaid's words."""

    def line(what: str) -> Sequence[str]:
        return [f"{median(values):.0f}" for case, values in speeds.items() if case.what == what]

    return "\n".join(
        [
            "xychart-beta",
            '    title "Tokens a second of all clients: the base model (bars) and one adapter (line)"',
            f'    x-axis "clients at once" [{", ".join(map(str, CLIENTS))}]',
            '    y-axis "tokens a second"',
            f"    bar [{', '.join(line('clients, base model'))}]",
            f"    line [{', '.join(line('clients, one adapter'))}]",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
