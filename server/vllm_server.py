"""vLLM's own server: its arguments from our settings, and how it runs until it ends."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import NoReturn

from adapters.errors import ConfigError
from adapters.models import tensors
from adapters.models.base_models import BaseModel, chat_template, shaping_config
from server.cpu import engine_process, int8
from server.plugin import GENERAL, ROUTES, Service
from server.settings import Settings
from server.vllm_version import is_cpu_build

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# What adapters/models/validate.py lets through. Without this list vLLM wraps the embedding and the logits too: work in
# every step, and max_loras x rank x vocabulary of memory, for weights that no adapter of ours has.
LORA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# vLLM looks for the last two to four tokens in task and email, and guesses that the same words follow again.
NGRAM = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}

# A chat template with this, as Qwen3's, writes tool calls in the form that vLLM's parser `hermes` reads.
HERMES = "<tool_call>"

# Refused after `--`, where they would get past the checks of server/settings.py.
OURS = """model served_model_name host port uds api_key middleware api_server_count enable_lora lora_modules
    lora_target_modules worker_extension_cls enable_request_id_headers disable_fastapi_docs""".split()
# These write people's mail into the log.
OURS += ["enable_log_requests", "enable_log_outputs", "log_error_stack"]


def vllm_arguments(settings: Settings, base: BaseModel, names: Sequence[str]) -> list[str]:
    """vLLM's command line, without what the user gave after `--`."""
    flags: dict[str, object] = {
        "model": int8.directory(base) if settings.int8 else base.path,
        "host": settings.host,
        "port": 0 if settings.prepare else settings.port,
        "dtype": settings.dtype,
        "max-model-len": settings.max_model_len,
        "max-loras": settings.max_loras,
        # One more than are ever loaded, so that one may come while another goes: vLLM never evicts by itself.
        "max-cpu-loras": settings.max_resident + 1,
        "max-lora-rank": next(rank for rank in VLLM_RANKS if rank >= settings.max_rank),
        "worker-extension-cls": "server.cpu.lora.WorkerProbe",
        # vLLM's own default aborts running requests.
        "shutdown-timeout": settings.shutdown_seconds,
        "max-num-queued-reqs": settings.max_queued,
        # vLLM's own default lets every web site that is open in a browser here read answers.
        "allowed-origins": "[]",
    }
    if settings.kv_cache_bytes:
        flags["kv-cache-memory-bytes"] = settings.kv_cache_bytes
        # With a size, vLLM uses its default of 0.92 only to refuse a start where so much of a GPU is not free.
        flags["gpu-memory-utilization"] = 0.01
    if settings.speculate:
        flags["speculative-config"] = json.dumps(NGRAM | {"num_speculative_tokens": settings.speculate})
    switches = ["enable-lora", "enable-force-include-usage", "disable-fastapi-docs", "disable-uvicorn-access-log"]
    if HERMES in chat_template(base.path):
        flags["tool-call-parser"] = "hermes"
        switches.append("enable-auto-tool-choice")
    arguments = [f"--{name}={value}" for name, value in flags.items()] + [f"--{name}" for name in switches]
    return [*arguments, "--served-model-name", *names, "--lora-target-modules", *LORA_MODULES]


def serve(service: Service) -> bool:
    """Serve until the server is stopped. Returns whether the engine lived to the end.

    Raises:
        ConfigError: an argument after `--`, the address or a plugin of ours cannot be used.
    """
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server_worker
    from vllm.entrypoints.launchers.launcher import setup_server
    from vllm.logger import configure_logging_from_args

    from server.api.connection import Connection

    arguments = parsed(service)
    configure_logging_from_args(arguments)
    _refuse_failed_plugins()
    if is_cpu_build():
        engine_process.install()
    arguments.mailwright = service
    service.startup.ended("arguments")
    try:
        address, socket = setup_server(arguments, reuse_port=False)
    except OSError as exc:
        where = f"{arguments.host}:{arguments.port}"
        raise ConfigError(f"cannot listen on {where}: {exc.strerror}", "give another --port") from exc
    # vLLM's own `run_server` is these two steps, with a handler that loses a signal while the engine starts.
    uvloop.run(run_server_worker(address, socket, arguments, http=Connection))
    return not service.shutdown.engine_died


def parsed(service: Service) -> Namespace:
    """vLLM's arguments: ours, then the user's.

    Raises:
        ConfigError: vLLM refuses them, or the user's change one of `OURS`.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM's class is untyped for us
        def error(self, message: str) -> NoReturn:
            raise ConfigError(f"vLLM: {message}", "after -- give only flags of vLLM's own server")

    parser = make_arg_parser(Parser())
    ours = vllm_arguments(service.settings, service.base, service.base_names)
    before = vars(parser.parse_args(ours))
    arguments: Namespace = parser.parse_args([*ours, *service.settings.vllm_arguments])
    for name in OURS:
        if vars(arguments)[name] != before[name]:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} is not allowed after --", "server --help lists what this server sets itself")
    validate_parsed_serve_args(arguments)
    return arguments


def _refuse_failed_plugins() -> None:
    """vLLM only logs a plugin that is missing or fails to load, and then serves without it: without keys, for one."""
    from vllm.plugins import load_plugins_by_group

    for group, name in {"vllm.general_plugins": GENERAL, "vllm.endpoint_plugins": ROUTES}.items():
        if name not in load_plugins_by_group(group):
            raise ConfigError(
                f"vLLM did not load our plugin {name}",
                "the log above has the cause; if not, install Mailwright itself: pip install --no-deps -e .",
            )


def adapter_memory(settings: Settings, base: BaseModel) -> str:
    """How much memory adapters take at most: in bf16, at the largest rank, and those of a batch a second time."""
    each = 2 * tensors.weights(settings.max_rank, shaping_config(base.path))
    kept = settings.max_resident + settings.max_loras
    return (
        f"{settings.max_resident} in memory, {settings.max_loras} in a batch: {kept * each / 1e6:.0f} MB at most, "
        f"{each / 1e6:.3g} each at rank {settings.max_rank}"
    )
