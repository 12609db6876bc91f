"""Flags and environment -> one frozen Settings, read once: no other module of the server reads the environment.

Also refuses, with a sentence each, what would make the server unsafe or wrong. This file does not import vLLM, so that
`server --help` answers at once, and it does not know what the flags turn into; server/launch.py does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.console import Parser, port
from adapters.errors import ConfigError
from adapters.models import base_models
from adapters.models.validate import MAX_RANK
from adapters.settings import is_loopback, store_directory
from adapters.store.manifest import DEFAULT_MAX_RANK
from server.api.keys import Keys

EXAMPLES = """
examples:
  server                                        the default base model and the default store
  server --base ~/models/SmolLM2-360M-Instruct --store ./store --port 8080
  server --int8 --speculate 3                   a CPU and one reader: a quarter faster
  server --max-loras 32 --kv-cache 4            32 adapters in one batch, 4 GiB for the attention cache
  server --kv-cache 8                           on a GPU: the rest of its memory stays free, to train beside it
  server keys create --name phone --models 'formal*,base'
                                                an API key; from then on nobody is let in without one
  server --host 0.0.0.0                         reachable from other machines, which needs a key
  server -- --seed 7                            everything after -- goes to vLLM unchanged
"""


@dataclass(frozen=True)
class Settings:
    base: str | None
    """A directory, a hub id, a packaged name, or None for the default of the device."""
    store: Path
    host: str
    port: int
    max_loras: int
    """Adapters that one batch may mix."""
    max_resident: int
    """Versions kept in memory, those in a batch among them."""
    max_rank: int
    max_model_len: int
    """Prompt and answer together, in tokens."""
    kv_cache_bytes: int | None
    """None: the default of the device."""
    dtype: str
    int8: bool
    """Serve the base model with 8-bit weights (server/cpu/int8.py)."""
    speculate: int
    """Tokens guessed ahead, from what the text repeats, and checked in one step."""
    shutdown_seconds: int
    """How long running answers may take to finish after SIGTERM or Ctrl-C."""
    max_queued: int
    """Requests that are answered or wait; the next ones get 503."""
    allow_fields: frozenset[str]
    """Fields of vLLM's own that requests may have."""
    api_key: str | None
    """The operator's own, which may do everything; others lie in the store (server/api/keys.py)."""
    prepare: bool
    """End as soon as everything is fetched and compiled, and answer nothing."""
    debug: bool
    vllm_arguments: tuple[str, ...]


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings that the command line and the environment give together.

    Raises:
        ConfigError: a flag that cannot work, or a setting under which the server must not start.
        SystemExit: after --help.
    """
    split = list(arguments).index("--") if "--" in arguments else len(arguments)
    flags = _parser().parse_args(arguments[:split])
    settings = Settings(
        base=flags.base,
        store=store_directory(flags.store),
        host=flags.host,
        port=0 if flags.prepare else flags.port,
        max_loras=flags.max_loras,
        max_resident=max(flags.max_resident, flags.max_loras),
        max_rank=flags.max_rank,
        max_model_len=flags.max_model_len,
        kv_cache_bytes=flags.kv_cache and int(flags.kv_cache * 2**30),
        dtype=flags.dtype,
        int8=flags.int8,
        speculate=flags.speculate,
        shutdown_seconds=flags.shutdown_seconds,
        max_queued=flags.max_queued,
        allow_fields=frozenset(filter(None, flags.allow_fields.split(","))),
        api_key=environment.get("MAILWRIGHT_API_KEY") or None,
        prepare=flags.prepare,
        debug=flags.debug,
        vllm_arguments=tuple(arguments[split + 1 :]),
    )
    _refuse_open_door(settings)
    _refuse_environment(environment)
    return settings


def _refuse_open_door(settings: Settings) -> None:
    if settings.api_key is None and not is_loopback(settings.host) and not Keys(settings.store).all():
        raise ConfigError(
            f"--host {settings.host} would let other machines in without a key",
            "make one (server keys create), set MAILWRIGHT_API_KEY, or keep --host 127.0.0.1",
        )


def _refuse_environment(environment: Mapping[str, str]) -> None:
    for name, why in {
        "VLLM_USE_RUST_FRONTEND": "vLLM's Rust frontend ignores the gate and the routes",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "it opens routes that load any directory, two of them without a key",
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "it writes people's mail into the log",
        "VLLM_SERVER_DEV_MODE": "it opens routes that control the engine, and writes more of a request into the log",
        "VLLM_ENABLE_RESPONSES_API_STORE": "it keeps people's mail in memory, for whoever knows an answer's id",
    }.items():
        if environment.get(name, "").strip().lower() not in ("", "0", "false"):
            raise ConfigError(f"{name} is set: {why}", f"unset {name}")
    for name, why in {
        "PROMETHEUS_MULTIPROC_DIR": "our own metrics would vanish from /metrics",
        "VLLM_API_KEY": "vLLM's key guards some paths only, and would answer before our gate",
    }.items():
        if environment.get(name):
            instead = "; MAILWRIGHT_API_KEY guards every path" if name == "VLLM_API_KEY" else ""
            raise ConfigError(f"{name} is set: {why}", f"unset {name}{instead}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="server",
        usage="server [flags] [-- vLLM's own flags]\n       server keys create|list|revoke ...",
        description="Serve one base model and every adapter in the store over the OpenAI API.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--base",
        metavar="MODEL",
        help=f"a directory or a hub id (default: {base_models.DEFAULT_NAME}, on a GPU {base_models.GPU_DEFAULT})",
    )
    add(
        "--store", metavar="DIR", help="where the adapters are (default: MAILWRIGHT_STORE, else the user's data folder)"
    )
    add("--host", default="127.0.0.1", help="address to bind; any but loopback needs an API key (%(default)s)")
    add("--port", type=port, default=8000, help="port to bind (%(default)s)")
    add("--max-loras", type=_positive, default=16, metavar="N", help="adapters that one batch may mix (%(default)s)")
    add(
        "--max-resident",
        type=_positive,
        default=64,
        metavar="N",
        help="adapters kept in memory, at least --max-loras; on the default base model 10 MB each (%(default)s)",
    )
    add("--max-rank", type=_rank, default=DEFAULT_MAX_RANK, metavar="N", help="largest LoRA rank (%(default)s)")
    add("--max-model-len", type=_positive, default=2048, metavar="TOKENS", help="prompt and answer (%(default)s)")
    add(
        "--kv-cache",
        type=_gibibytes,
        metavar="GIB",
        help="memory for the attention cache (default: 1, on a GPU what is left of 92 %% of its memory)",
    )
    _add_speed_flags(add)
    add(
        "--shutdown-seconds",
        type=_positive,
        default=30,
        metavar="N",
        help="how long running answers may take to finish after SIGTERM or Ctrl-C (%(default)s)",
    )
    add(
        "--max-queued",
        type=_positive,
        default=256,
        metavar="N",
        help="requests being answered or waiting; more get status 503 (%(default)s)",
    )
    add(
        "--allow-fields",
        default="",
        metavar="FIELDS",
        help="vLLM's own request fields to let through, for example top_k,min_p (none)",
    )
    add("--prepare", action="store_true", help="fetch and compile what a start needs, and end (`make setup` does)")
    add("--debug", action="store_true", help="show tracebacks")
    return parser


def _add_speed_flags(add: Callable[..., object]) -> None:
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="(%(default)s)")
    add("--int8", action="store_true", help="on a CPU: 8-bit base weights, faster and a little less exact")
    add(
        "--speculate",
        type=_speculated,
        default=0,
        metavar="N",
        help="guess N tokens ahead from what an email repeats of its task, and check them in one step: faster for one"
        " reader, slower for many whose temperature is not 0; logit_bias is refused then (%(default)s)",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _speculated(text: str) -> int:
    if text not in map(str, range(17)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 16")
    return int(text)


def _rank(text: str) -> int:
    rank = _positive(text)
    if rank > MAX_RANK:
        raise argparse.ArgumentTypeError(f"{rank} is above {MAX_RANK}, the largest rank that vLLM serves")
    return rank


def _gibibytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0.01 <= size <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in GiB from 0.01 to 4096")
    return size
