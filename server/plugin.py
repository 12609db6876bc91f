"""The vLLM entry points: `register` runs in every vLLM process, `EndpointPlugin` in the one that answers HTTP.

Here the parts meet: store, residency, gate and routes are put together and hung into vLLM's application. vLLM only logs
a plugin that fails to load and then serves without it; `refuse_stock_workers` and server/launch.py make it a refusal.
"""

from __future__ import annotations

import asyncio
import itertools
from argparse import Namespace
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters.base_model import BaseModel
from adapters.errors import ConfigError, MailwrightError, Overloaded
from adapters.store import Store, Version
from adapters.validate import reasons_against
from server.claims import StoreClaims
from server.ending import Ending
from server.gate import Gate
from server.metrics import Metrics
from server.reconcile import reconcile
from server.residency import Reasons, Residency
from server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

GENERAL, ROUTES = "mailwright_general", "mailwright_routes"
"""The names of our entry points in pyproject.toml."""


@dataclass(frozen=True)
class Service:
    """What server/launch.py hands to the plugin, as `args.mailwright`."""

    settings: Settings
    base: BaseModel
    ending: Ending = field(default_factory=Ending)

    @property
    def base_names(self) -> tuple[str, ...]:
        """The base model's own name first: vLLM puts that one into answers."""
        return tuple(dict.fromkeys([self.base.name, "base"]))


def register() -> None:
    """Install our arithmetic for CPUs in this process; again is harmless."""
    from server import cpu_lora

    cpu_lora.install()


class EndpointPlugin:
    """See vLLM's `plugins/endpoint_plugins/interface.py`."""

    name = ROUTES
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Called before there is an engine."""
        from prometheus_client import REGISTRY, disable_created_metrics

        from server.adapter_routes import adapter_routes
        from server.routes import metrics_route, model_routes

        service: Service = app.state.args.mailwright
        self._store = Store(service.settings.store)
        # Otherwise every counter and histogram has a second series, that says when it began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._metrics = Metrics(REGISTRY, service.base.name)
        self._claims = StoreClaims(self._store)
        self._residency = Residency(
            lambda version: reasons_against(version.path, service.base, service.settings.max_rank),
            Loras(app),
            self._claims,
            service.settings.max_resident,
            self._metrics.load_ended,
        )
        app.include_router(model_routes(self._store, service.base, service.base_names, self._residency))
        app.include_router(
            adapter_routes(
                self._store, self._residency, service.base, service.settings.max_rank, bool(service.settings.api_key)
            )
        )
        app.include_router(metrics_route(REGISTRY))
        app.add_exception_handler(MailwrightError, _answer)
        app.add_middleware(
            Gate,
            store=self._store,
            residency=self._residency,
            metrics=self._metrics,
            base_names=service.base_names,
            api_key=service.settings.api_key,
            ending=service.ending,
        )

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        refuse_stock_workers(await engine_client.collective_rpc("lora_wrapper"))
        args.mailwright.ending.follow(engine_client)
        # Kept, because the loop alone does not keep a task; the end of the loop cancels them.
        self._following = [
            asyncio.create_task(self._metrics.follow_residents(engine_client.list_loras)),
            asyncio.create_task(self._claims.keep_alive()),
            asyncio.create_task(reconcile(self._store, self._residency)),
        ]


class Loras:
    """vLLM's engine as what holds versions. vLLM knows each by its exact name, a number of ours and its directory.

    Its own resolvers are not used: they keep a lock for every name that anybody asks for, and give a number to every
    attempt, so that what a failed one left in the engine could not be removed.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._numbers = itertools.count(1)

    async def load(self, version: Version) -> Reasons:
        from vllm.lora.request import LoRARequest

        # Never load_inplace: it reads the files again at every step.
        request = LoRARequest(version.id, next(self._numbers), str(version.path))
        engine = self._app.state.engine_client
        try:
            await engine.add_lora(request)
        except Exception as exc:  # whatever vLLM has against it, once more a bad adapter may not keep a slot
            if engine.errored:
                raise
            await engine.remove_lora(request.lora_int_id)
            return [f"vLLM could not load it ({type(exc).__name__}); the server's log says why"]
        self._app.state.openai_serving_models.lora_requests[version.id] = request
        return []

    async def unload(self, version: Version) -> None:
        request = self._app.state.openai_serving_models.lora_requests.pop(version.id)
        await self._app.state.engine_client.remove_lora(request.lora_int_id)


def refuse_stock_workers(wrappers: list[str]) -> None:
    """Raise ConfigError if a worker, by its own answer, would mix adapters into the base model's rows."""
    from server import cpu_lora

    if cpu_lora.missing_from(wrappers):
        raise ConfigError(
            f"vLLM's workers compute LoRA with {', '.join(wrappers)}, which is wrong on a CPU",
            "install Mailwright in the environment that vLLM runs in: its entry points are missing there",
        )


async def _answer(request: Any, error: Exception) -> Any:
    from starlette.responses import Response

    from server.openai_errors import body_of

    assert isinstance(error, MailwrightError)
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, Overloaded) else None
    return Response(body_of(error), error.status, headers, media_type="application/json")
