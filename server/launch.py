"""Settings -> vLLM's own OpenAI server with our plugins in it. Console script `server`.

    server --base MODEL --store DIR --port 8000

server/plugin.py puts together what answers a request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial

from adapters import console
from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel, default, find
from adapters.store.store import Store
from server import process, vllm_server
from server.cpu import int8
from server.engine.device import Device, choose
from server.engine.start_times import Startup
from server.plugin import Service
from server.settings import Settings, read
from server.vllm_version import installed_vllm, refuse_untested_vllm

# Flushed, because the log may be a file or a pipe and a start takes long.
log = partial(print, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a clean stop, 2 for an error that the user can fix, 1 for any other, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["keys"]:
        from server.api import keys_cli

        return keys_cli.main(arguments[1:])
    debug = "--debug" in arguments
    try:
        return console.run(lambda: run(read(arguments, os.environ)), debug)
    except Exception as exc:  # the top of the program: vLLM may raise any error
        if debug:
            raise
        console.complain(f"{type(exc).__name__}: {exc}", "the log above may have more; --debug shows the traceback")
        return 1


def run(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns the exit status."""
    startup = Startup()
    refuse_untested_vllm(installed_vllm())
    with process.prepared():
        device = _device(settings)
        startup.ended("imports")
        log(f"device   {device}")
        if not device.cuda:
            process.prepare_cpu(log)
            startup.ended("LoRA's arithmetic")
        base = _base_model(settings, device)
        rounds, why = int8.chosen(settings.int8, device.cuda, base)
        log(f"weights  {8 if rounds else 16} bits: {why}")
        if rounds:
            int8.prepare(base, vllm_server.LORA_MODULES, log)
        startup.ended("base model")
        settings = settings.model_copy(update={"int8": rounds, "kv_cache": settings.kv_cache or device.kv_cache_gib})
        service = Service(settings, base, startup, ready=lambda: _ready(settings, startup))
        refuse_shadowed_names(service)
        log(f"base     {base.name}  {base.path}")
        log(f"adapters {vllm_server.adapter_memory(settings, base)}")
        log(f"store    {settings.store}")
        if not settings.prepare:
            log(f"address  http://{settings.host}:{settings.port}/v1")
        if not vllm_server.serve(service):
            console.complain(
                "vLLM's engine process ended by itself", "the log above has the cause; start the server again"
            )
            return 1
    return 0


def _device(settings: Settings) -> Device:
    from vllm.platforms import current_platform

    return choose(current_platform, settings.dtype, bool(settings.int8))


def _base_model(settings: Settings, device: Device) -> BaseModel:
    if settings.base:
        return find(settings.base, log)
    choice = default(device.cuda, settings.store)
    log(f"no --base given: {choice}")
    return find(choice.base, log)


def refuse_shadowed_names(service: Service) -> None:
    """Raise ConfigError if the store has an adapter that no request could reach: its name means the base model."""
    for name in Store(service.settings.store).names():
        if name in service.base_names:
            raise ConfigError(
                f"the store has an adapter {name!r}, which is also the name of the base model",
                "publish the adapter under another name, or rename the base model's directory",
            )


def _ready(settings: Settings, startup: Startup) -> None:
    log(f"{'prepared' if settings.prepare else 'ready   '} {startup}")
    if settings.prepare:
        process.end_at_once(0)


if __name__ == "__main__":
    sys.exit(main())
