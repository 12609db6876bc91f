"""`make bench-many`: 1, 10, 100 and 1,000 published adapters on one server, asked for by Zipf's law.

    python -m tests.server.bench_many [--base MODEL] [--adapters 1,10,100,1000] [--requests N] [--rounds N]

One server of the base model with every adapter in its store; eight clients at once. The n-th adapter is asked
for in proportion to 1/n. Then requests one after the other, each to an adapter that is not in memory (cold) and right
after that to the same one (warm). Prints tokens a second, the share of ten adapters' speed, failed requests, how many
had to wait for a load, the time to the first token warm and cold, how long another reader's stream waits for a token
meanwhile, the memory of server and engine, and what adapters may take of it. Adapters are random, rank 16, bf16, and
take 10 MB of disk each, 37 for a base model of 1.5 billion parameters. Exit status 1 if the most adapters give less
than 0.8 of ten.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx
import openai
import psutil

from adapters.models import base_models
from adapters.store.store import Store
from tests.machine import cpu
from tests.server.bench import RANK, publish_random, running
from tests.server.bench_llama import held_mb
from trainer.console import bar

CLIENTS, TOKENS, PAIRS = 8, 32, 15
TASK = "Write to Ada about the {number} chairs that came on Monday, and ask for the invoice."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="MODEL", help="a name, a directory or a hub id (default: the packaged model)")
    parser.add_argument("--adapters", metavar="N,...", default="1,10,100,1000")
    parser.add_argument("--requests", metavar="N", type=int, default=96)
    parser.add_argument("--rounds", metavar="N", type=int, default=3)
    parser.add_argument("--max-loras", metavar="N", help="of the server (default: its own)")
    args = parser.parse_args()
    counts = sorted(int(number) for number in args.adapters.split(","))
    base = base_models.find(args.base, print)
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as scratch:
        store = Store(Path(scratch) / "store")
        with bar("publishing", counts[-1]) as advance:
            for number in range(counts[-1]):
                publish_random(store, base, f"voice-{number}", number)
                advance(1)
        ours = [sys.executable, "-m", "server.launch", "--base", str(base.path), "--store", str(store.directory)]
        ours += ["--allow-fields", "ignore_eos", *(["--max-loras", args.max_loras] if args.max_loras else [])]
        speeds: dict[int, list[float]] = {count: [] for count in counts}
        loads: dict[int, float] = dict.fromkeys(counts, 0)
        memory: dict[int, float] = {}
        with running(ours, {}, Path(scratch) / "server.log") as url:
            with bar("measuring", len(counts) * args.rounds) as advance:
                for round_ in range(args.rounds):
                    for count in counts:
                        before = loads_of(url)
                        speeds[count].append(asyncio.run(zipf(url, count, args.requests, round_)))
                        loads[count] += loads_of(url) - before
                        memory[count] = sum(map(held_mb, psutil.Process().children()))
                        advance(1)
            warm, cold = asyncio.run(first_tokens(url, counts[-1])) if counts[-1] >= 100 else ([0.0], [0.0])
            rarest = [f"voice-{counts[-1] - 1 - PAIRS - number}" for number in range(PAIRS)]
            budget = next(
                line for line in (Path(scratch) / "server.log").read_text().splitlines() if "in a batch" in line
            )
            # The second time they are in memory.
            stalls = [asyncio.run(gaps(url, rarest)) for _ in ("cold", "warm")] if counts[-1] >= 100 else [[0.0]] * 2
    ten = median(speeds.get(10, speeds[counts[0]]))
    print("| adapters | tokens/s | of ten | loads in all rounds | memory MB |\n| --- | --- | --- | --- | --- |")
    for count in counts:
        speed = median(speeds[count])
        print(f"| {count} | {speed:.0f} | {speed / ten:.2f} | {loads[count]:.0f} | {memory[count]:.0f} |")
    print(
        f"\nfirst token: warm {1000 * median(warm):.0f} ms, cold {1000 * median(cold):.0f} ms "
        f"({1000 * (median(cold) - median(warm)):+.0f}); no request failed"
    )
    print(budget)
    told = [f"{1000 * median(times):.0f} ms at the median, {1000 * max(times):.0f} at most" for times in stalls]
    print(f"between two tokens of another stream: {told[0]} while {PAIRS} come cold, {told[1]} while they come warm")
    print(
        f"{args.rounds} rounds of {args.requests} requests by {CLIENTS} clients, {TOKENS} tokens an answer, "
        f"rank {RANK}, {base.name}, {os.cpu_count()} cores, {cpu()}"
    )
    return int(median(speeds[counts[-1]]) < 0.8 * ten)


def loads_of(url: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith("mailwright_adapter_loads_total") and 'result="loaded"' in line
    )


async def zipf(url: str, adapters: int, requests: int, seed: int) -> float:
    """Tokens a second over all requests; one that fails raises."""
    draw = random.Random(seed)
    names = draw.choices(range(adapters), [1 / (place + 1) for place in range(adapters)], k=requests)
    waiting = list(enumerate(names))

    async def client(asking: openai.AsyncOpenAI) -> None:
        while waiting:
            number, name = waiting.pop()
            await asking.completions.create(
                model=f"voice-{name}",
                prompt=TASK.format(number=1000 * seed + number),
                max_tokens=TOKENS,
                extra_body={"ignore_eos": True},
            )

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as asking:
        started = time.perf_counter()
        await asyncio.gather(*[client(asking) for _ in range(CLIENTS)])
        return requests * TOKENS / (time.perf_counter() - started)


async def gaps(url: str, others: list[str]) -> list[float]:
    """Seconds between the tokens of one stream, while `others` are asked one after the other for a short answer."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as asking:
        stream = await asking.completions.create(
            model="voice-0",
            prompt=TASK.format(number=time.time_ns()),
            max_tokens=1500,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        times: list[float] = []

        async def read() -> None:
            async for _ in stream:
                times.append(time.perf_counter())

        reading = asyncio.create_task(read())
        for name in others:
            await asking.completions.create(model=name, prompt=TASK.format(number=time.time_ns()), max_tokens=4)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return [after - before for before, after in itertools.pairwise(times)]


async def first_tokens(url: str, adapters: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token of adapters in memory, and of such as are not: the rarest, which nobody asked for."""
    warm, cold = [], []
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as asking:
        for number in range(PAIRS):
            for times in (cold, warm):
                started = time.perf_counter()
                stream = await asking.completions.create(
                    model=f"voice-{adapters - 1 - number}",
                    prompt=TASK.format(number=time.time_ns()),
                    max_tokens=4,
                    stream=True,
                )
                times.append(await _first(stream, started))
    return warm, cold


async def _first(stream: openai.AsyncStream[openai.types.Completion], started: float) -> float:
    seconds = 0.0
    async for _ in stream:
        seconds = seconds or time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    sys.exit(main())
