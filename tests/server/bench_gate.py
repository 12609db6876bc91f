"""`make bench-gate`: what the gate costs. Ours beside vLLM's own server, both with LoRA on and no adapter, tiny model.

    python -m tests.server.bench_gate [--rounds N]

Both servers run at once, without the compiler, and take turns, each when the other has come to rest: one client, then
64, one token an answer, so that hardly anything but the way of a request through the server is measured. Ours has one
thread, which is what vLLM chooses for itself on two cores: a second one, asleep between two requests, is nothing of the
gate's. Exit status 1 if a request takes more than a millisecond longer at the median of one client, or fewer than 0.95
as many are answered a second.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil

from adapters.models.base_models import find
from tests import tiny
from tests.machine import cpu
from tests.server.bench import SLOTS, load, running
from tests.serving import ONE_THREAD, stock_command, stock_lora
from trainer.console import bar

CLIENTS = {1: 100, 64: 1280}
"""Requests of a round, by how many are at once."""
MAX_MILLISECONDS, MIN_SHARE = 1.0, 0.95
IDLE_PERCENT = 10
"""Of a core."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", metavar="N", type=int, default=7)
    rounds = parser.parse_args().rounds
    milliseconds: dict[tuple[str, int], list[float]] = {}
    rates: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        base = find(str(tiny.make_base(scratch / "tiny")))
        stock = stock_command(base, "--kv-cache-memory-bytes", str(2**28), *stock_lora(), "--max-loras", str(SLOTS))
        stock += ["--disable-uvicorn-access-log", "--enforce-eager"]
        ours = [sys.executable, "-m", "server.launch", "--base", str(base.path), "--store", str(scratch / "store")]
        ours += ["--kv-cache", "0.25", "--max-loras", str(SLOTS), "--allow-fields", "ignore_eos,repetition_penalty"]
        urls = {
            "stock": stack.enter_context(running(stock, {"VLLM_PLUGINS": ""}, scratch / "stock.log")),
            "ours": stack.enter_context(running(ours, ONE_THREAD, scratch / "ours.log", ["--enforce-eager"])),
        }
        advance = stack.enter_context(bar("measuring", rounds * len(CLIENTS) * len(urls)))
        for number in range(-1, rounds):
            for clients, requests in CLIENTS.items():
                for name, url in urls.items():
                    wait_until_idle()
                    said = load(url, base, ["base"], clients, requests, 1, (number + 1) * 64 + clients, "e2el", 8)
                    # The round before the first warms both.
                    if number >= 0:
                        milliseconds.setdefault((name, clients), []).append(said["p50_e2el_ms"])
                        rates.setdefault((name, clients), []).append(said["request_throughput"])
                        advance(1)
    print("| clients | server | median ms | requests/s | of stock |\n| --- | --- | --- | --- | --- |")
    for (name, clients), values in sorted(milliseconds.items(), key=lambda item: item[0][1]):
        share = median(rates[name, clients]) / median(rates["stock", clients])
        print(f"| {clients} | {name} | {median(values):.2f} | {median(rates[name, clients]):.0f} | {share:.2f} |")
    print(f"\n{rounds} rounds, 8 tokens of prompt, 1 of answer, tiny Llama, {os.cpu_count()} cores, {cpu()}")
    more = median(milliseconds["ours", 1]) - median(milliseconds["stock", 1])
    shares = [median(rates["ours", clients]) / median(rates["stock", clients]) for clients in CLIENTS]
    print(f"{more:+.2f} ms at the median of one client; {MAX_MILLISECONDS:g} is allowed")
    return int(more > MAX_MILLISECONDS or min(shares) < MIN_SHARE)


def wait_until_idle() -> None:
    """Until no server computes: vLLM's worker turns in circles for a second after an answer, which is the other's."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        child.cpu_percent()
    while True:
        # The time that it is measured over.
        psutil.cpu_percent(interval=0.3)
        if sum(child.cpu_percent() for child in children) < IDLE_PERCENT:
            return


if __name__ == "__main__":
    sys.exit(main())
