"""The vLLM entry points: `register` runs in every vLLM process, `EndpointPlugin` in the one that answers HTTP.

vLLM only logs a plugin that fails to load and then serves without it; `refuse_stock_workers` and server/launch.py make
that an error.
"""

from __future__ import annotations

import asyncio
import gc
import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError
from adapters.models.base_models import BaseModel, chat_template
from adapters.models.validate import reasons_against
from adapters.settings import is_loopback
from adapters.store.store import Store
from server.cpu import memory
from server.engine import redaction
from server.engine.shutdown import Shutdown, end_with_parent
from server.engine.start_times import Startup
from server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

# The names of our entry points in pyproject.toml.
GENERAL, ROUTES = "mailwright_general", "mailwright_routes"


@dataclass(frozen=True)
class Service:
    """What server/launch.py hands to the plugin, as `args.mailwright`; `ready` is called before the first request."""

    settings: Settings
    base: BaseModel
    startup: Startup = field(default_factory=Startup)
    shutdown: Shutdown = field(default_factory=Shutdown)
    ready: Callable[[], None] = lambda: None

    @property
    def base_names(self) -> tuple[str, ...]:
        """The base model's own name first: vLLM puts that one into answers."""
        return tuple(dict.fromkeys([self.base.name, "base"]))


def register() -> None:
    """Install what CPUs need in this process, keep mail out of its log, have it end with the server; idempotent."""
    from server.cpu import int8, lora, sampling, threads, words

    lora.install()
    int8.install()
    words.install()
    sampling.install()
    threads.install(os.environ)
    redaction.install(redaction.ENGINE)
    end_with_parent()


class EndpointPlugin:
    """See vLLM's `plugins/endpoint_plugins/interface.py`."""

    name = ROUTES
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Called when the engine has started, before anything is served."""
        from prometheus_client import REGISTRY, disable_created_metrics

        from server.api.application import add_routes
        from server.engine.loras import Loras
        from server.engine.voices import Voices
        from server.metrics import Metrics

        service: Service = app.state.args.mailwright
        settings, base = service.settings, service.base
        service.startup.ended("engine")
        self._app = app
        # Otherwise every counter and histogram has a second series with the time of its creation.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._metrics = Metrics(REGISTRY, base.name)
        self._voices = Voices(
            Store(settings.store),
            Loras(app.state, self._metrics.residents_changed),
            lambda version: reasons_against(version.path, base, settings.max_rank),
            settings.max_resident,
            self._metrics.load_ended,
        )
        add_routes(app, self._voices, base, service.base_names, settings.max_rank, settings.allow_fields, REGISTRY)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        from adapters.emails.checker import check
        from server.api.access import Access
        from server.api.application import add_layers
        from server.api.limits import Limits
        from server.drafts import likelihood

        refuse_stock_workers(await engine_client.collective_rpc("lora_wrapper"))
        redaction.install(redaction.SERVING)
        service: Service = args.mailwright
        settings = service.settings
        service.shutdown.follow(engine_client)
        likelihood.install(engine_client)
        add_layers(
            self._app,
            self._metrics,
            cross_origin=bool(args.allowed_origins),
            voices=self._voices,
            base_names=service.base_names,
            access=Access(self._voices.store, settings.api_key, is_loopback(settings.host)),
            limits=Limits(
                engine_client.model_config.max_model_len,
                # Without a place for tools in the chat template the model would never see them.
                "tools" in chat_template(service.base.path),
                settings.allow_fields,
                speculates=engine_client.vllm_config.speculative_config is not None,
            ),
            shutdown=service.shutdown,
            check=check,
        )
        # Kept, because the loop alone does not keep a task; the end of the loop cancels them.
        self._background = [
            asyncio.create_task(self._metrics.follow_residents(engine_client.list_loras)),
            asyncio.create_task(self._voices.keep()),
        ]
        service.startup.ended("routes")
        _collect_seldom()
        service.ready()


def _collect_seldom() -> None:
    """Python's collector looks at every object of vLLM's again and again: 8 % of the time of a short request."""
    gc.collect()
    memory.trim()
    # The objects that exist now stay as long as the server.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def refuse_stock_workers(wrappers: list[str]) -> None:
    """Raise ConfigError if a worker, by its own answer, would mix adapters into the base model's rows."""
    from server.cpu import lora

    if lora.missing_from(wrappers):
        raise ConfigError(
            f"vLLM's workers compute LoRA with {', '.join(wrappers)}, which is wrong on a CPU",
            "install Mailwright in the environment that vLLM runs in: its entry points are missing there",
        )
