"""Settings -> vLLM's own OpenAI server with our plugins in it. Console script `server`.

    server --base MODEL --store DIR --port 8000

This file knows no request: server/plugin.py puts together what answers them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NoReturn

import psutil  # type: ignore[import-untyped]

from adapters.console import complain
from adapters.errors import ConfigError, MailwrightError
from adapters.models import tensors
from adapters.models.base_models import BaseModel, chat_template, default, find, shaping_config
from adapters.settings import silence_telemetry
from adapters.store.store import Store
from server.api import keys_cli
from server.cpu import build, engine_process, int8, threads
from server.engine.device import Device, choose
from server.engine.start_times import Startup
from server.plugin import GENERAL, ROUTES, Service
from server.settings import Settings, read
from server.vllm_version import installed_vllm, is_cpu_build, refuse_untested_vllm

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
INTERRUPTED = 130

# What adapters/models/validate.py lets through. Without this list vLLM wraps the embedding and the logits too: work in
# every step, and max_loras x rank x vocabulary of memory, for weights that no adapter of ours has.
LORA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

NGRAM = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
"""The last two to four tokens are looked for in task and email, and what followed them there is the guess."""

HERMES = "<tool_call>"
"""What a chat template writes around tool calls in the form that vLLM's parser `hermes` reads, as Qwen3's does."""

# Settings that are ours to make: a second value after `--` would get past the checks of server/settings.py.
OURS = (
    *("model", "served_model_name", "host", "port", "uds", "api_key", "middleware", "api_server_count"),
    *("enable_lora", "lora_modules", "worker_extension_cls", "enable_request_id_headers", "disable_fastapi_docs"),
    # These write people's mail into the log.
    *("enable_log_requests", "enable_log_outputs", "log_error_stack"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a clean stop, 2 for what the user can mend, 1 when vLLM fails, INTERRUPTED at start."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["keys"]:
        return keys_cli.main(arguments[1:])
    try:
        run(read(arguments, os.environ))
    except MailwrightError as exc:
        if "--debug" in arguments:
            raise
        complain(str(exc), exc.hint)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as exc:  # the top of the program: vLLM raises whatever it likes, and has logged most of it
        if "--debug" in arguments:
            raise
        complain(f"vLLM stopped: {exc}", "the log above says more, --debug shows where")
        return 1
    finally:
        engine_process.end()
    return 0


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    _take_signals()
    refuse_untested_vllm(installed_vllm())
    _refuse_missing_entry_points()
    silence_telemetry()
    # A core dump would hold the mail that was being written; vLLM's processes inherit this.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # One allow-list over all of vLLM's plugin groups: nothing that happens to be installed gets in.
    os.environ["VLLM_PLUGINS"] = f"{GENERAL},{ROUTES}"
    # Nothing of ours may be forked once threads have computed in it; see also server/cpu/engine_process.py.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    startup = Startup()
    if is_cpu_build():
        os.environ.setdefault("VLLM_CACHE_ROOT", str(build.directory() / "vllm"))
        threads.arrange(os.environ)
        engine_process.begin()
    device = _device(settings)
    if device.cuda and settings.int8:
        raise ConfigError("--int8 is for CPUs, and vLLM here computes with CUDA", "leave --int8 out")
    startup.ended("imports")
    print(f"device   {device}", flush=True)
    if not device.cuda:
        print(f"lora     {_prepare_for_cpu()}", flush=True)
        print(f"threads  {threads.arrange(os.environ)}", flush=True)
        startup.ended("LoRA's arithmetic")
    if not settings.base:
        where = "on a GPU" if device.cuda else "without a GPU"
        print(f"no --base given: {default(device.cuda)}, the default {where}", flush=True)
    base = find(settings.base or default(device.cuda), say=lambda sentence: print(sentence, flush=True))
    if settings.int8:
        int8.prepare(base, LORA_MODULES, say=lambda sentence: print(sentence, flush=True))
    startup.ended("base model")
    settings = replace(settings, kv_cache_bytes=settings.kv_cache_bytes or device.kv_cache_bytes)
    service = Service(settings, base, startup, ready=lambda: _ready(settings, startup))
    refuse_shadowed_names(service)
    print(f"base     {base.name}  {base.path}")
    print(f"adapters {adapter_memory(settings, base)}")
    print(f"store    {settings.store}")
    if not settings.prepare:
        print(f"address  http://{settings.host}:{settings.port}/v1", flush=True)
    _serve(service)


def _prepare_for_cpu() -> str:
    """Have the arithmetic for CPUs compiled before vLLM asks for it; returns what computes, for the user."""
    missing = build.build(lambda sentence: print(sentence, flush=True))
    if missing:
        return f"torch's own products, half as fast: {missing}; install g++ and start again"
    if not build.compiles_models():
        return "compiled, and the model is not, for lack of Python.h; install python3.11-dev and start again"
    if not Path(os.environ["VLLM_CACHE_ROOT"], "torch_compile_cache").is_dir():
        return "compiled; the model is compiled at the first start, about a minute"
    return "compiled"


def _device(settings: Settings) -> Device:
    from vllm.platforms import current_platform

    return choose(current_platform, settings.dtype)


def vllm_arguments(settings: Settings, base: BaseModel, names: Sequence[str]) -> list[str]:
    """vLLM's command line, without what the user gave after `--`."""
    flags: dict[str, object] = {
        "model": int8.directory(base) if settings.int8 else base.path,
        "host": settings.host,
        "port": settings.port,
        "dtype": settings.dtype,
        "max-model-len": settings.max_model_len,
        "max-loras": settings.max_loras,
        # One more than there ever are, so that one may come while another goes: vLLM never drops any by itself.
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
        # With a size, vLLM would only use its 0.92 to refuse to start where so much of a GPU is not free.
        flags["gpu-memory-utilization"] = 0.01
    if settings.speculate:
        flags["speculative-config"] = json.dumps(NGRAM | {"num_speculative_tokens": settings.speculate})
    switches = ["enable-lora", "enable-force-include-usage", "disable-fastapi-docs", "disable-uvicorn-access-log"]
    if HERMES in chat_template(base.path):
        flags["tool-call-parser"] = "hermes"
        switches.append("enable-auto-tool-choice")
    lists = {"served-model-name": names, "lora-target-modules": LORA_MODULES}
    arguments = [f"--{name}={value}" for name, value in flags.items()] + [f"--{name}" for name in switches]
    for name, values in lists.items():
        arguments += [f"--{name}", *values]
    return arguments


def adapter_memory(settings: Settings, base: BaseModel) -> str:
    """How many adapters are kept, in how much memory: bf16, the largest rank, once more for those of a batch."""
    each = 2 * tensors.weights(settings.max_rank, shaping_config(base.path))
    kept = settings.max_resident + settings.max_loras
    return (
        f"{settings.max_resident} in memory, {settings.max_loras} in a batch: {kept * each / 1e6:.0f} MB at most, "
        f"{each / 1e6:.3g} each at rank {settings.max_rank}"
    )


def _serve(service: Service) -> None:
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server_worker
    from vllm.entrypoints.launchers.launcher import setup_server
    from vllm.logger import configure_logging_from_args

    from server.api.connection import Connection

    arguments = _parsed(service)
    configure_logging_from_args(arguments)
    _refuse_failed_plugins()
    if is_cpu_build():
        engine_process.install()
    arguments.mailwright = service
    service.startup.ended("arguments")
    try:
        address, socket = setup_server(arguments, reuse_port=False)
    except OSError as exc:
        where = f"{service.settings.host}:{service.settings.port}"
        raise ConfigError(f"cannot listen on {where}: {exc.strerror}", "give another --port") from exc
    # vLLM's own `run_server` is these two steps, with a handler that loses a signal while the engine starts.
    uvloop.run(run_server_worker(address, socket, arguments, http=Connection))
    if service.shutdown.engine_died:
        raise RuntimeError("its engine died")


def _take_signals() -> None:
    """From here on Ctrl-C is a SIGTERM to this process alone, and ends the start; vLLM changes that when it serves.

    A terminal sends Ctrl-C to the whole process group: vLLM's engine would die under the requests that it should
    finish. The blocked signal is inherited by the processes that vLLM starts, and here one thread waits for it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _abandon_start)
    # Python unblocks SIGINT when it starts the resource tracker, so that one has to be there before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGINT})
            # To the main thread: a handler runs only there, and it may be waiting for the engine to start.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    threading.Thread(target=wait, name="interrupts", daemon=True).start()


def _ready(settings: Settings, startup: Startup) -> None:
    print(f"{'prepared' if settings.prepare else 'ready   '} {startup}", flush=True)
    if settings.prepare:
        _end_at_once(0)


def _abandon_start(*_: object) -> None:
    _end_at_once(INTERRUPTED)


def _end_at_once(status: int) -> NoReturn:
    """Nothing is being written before vLLM serves, so that everything may end."""
    children = psutil.Process().children(recursive=True)
    # Python's own resource tracker ends by itself, once it has removed the shared memory of the others.
    started = [child for child in children if not any("resource_tracker" in part for part in child.cmdline())]
    for child in started:
        child.kill()
    os._exit(status)


def _parsed(service: Service) -> Namespace:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM's class is untyped for us
        def error(self, message: str) -> NoReturn:
            raise ConfigError(f"vLLM: {message}", "what stands after -- must be flags of vLLM's own server")

    parser = make_arg_parser(Parser())
    ours = vllm_arguments(service.settings, service.base, service.base_names)
    before = vars(parser.parse_args(ours))
    arguments: Namespace = parser.parse_args([*ours, *service.settings.vllm_arguments])
    for name in OURS:
        if vars(arguments)[name] != before[name]:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} may not stand after --", "see server --help for what this server sets itself")
    validate_parsed_serve_args(arguments)
    return arguments


def _refuse_missing_entry_points() -> None:
    found = {
        entry.name
        for group in ("general", "endpoint")
        for entry in metadata.entry_points(group=f"vllm.{group}_plugins")
    }
    missing = {GENERAL, ROUTES} - found
    if missing:
        raise ConfigError(
            f"vLLM would not find our plugins: the entry points {', '.join(sorted(missing))} are not installed",
            "install Mailwright itself, not only its dependencies: pip install --no-deps -e .",
        )


def _refuse_failed_plugins() -> None:
    """vLLM only logs a plugin that cannot be imported, and then serves without it: without keys, for one."""
    from vllm.plugins import load_plugins_by_group

    for group, name in {"vllm.general_plugins": GENERAL, "vllm.endpoint_plugins": ROUTES}.items():
        if name not in load_plugins_by_group(group):
            raise ConfigError(f"vLLM could not load our plugin {name}", "the log above says why")


def refuse_shadowed_names(service: Service) -> None:
    """Raise ConfigError if the store has an adapter that no request could reach: its name means the base model."""
    for name in Store(service.settings.store).names():
        if name in service.base_names:
            raise ConfigError(
                f"the store has an adapter {name!r}, which is also the name of the base model",
                "publish the adapter under another name, or rename the base model's directory",
            )


if __name__ == "__main__":
    sys.exit(main())
