"""The vLLM entry points: `register` runs in every vLLM process, `EndpointPlugin` in the one that answers HTTP.

Here the parts meet: store, residency, gate and routes are put together and hung into vLLM's application. vLLM only logs
a plugin that fails to load and then serves without it; `refuse_stock_workers` and server/launch.py make it a refusal.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.base_model import BaseModel
from adapters.errors import AdapterNotFound, ConfigError, MailwrightError
from adapters.store import Store, Version
from server.gate import Gate
from server.metrics import Metrics
from server.residency import Reasons, Residency, reasons_to_refuse
from server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.lora.resolver import LoRAResolver

GENERAL, ROUTES = "mailwright_general", "mailwright_routes"
"""The names of our entry points in pyproject.toml."""


@dataclass(frozen=True)
class Service:
    """What server/launch.py hands to the plugin, as `args.mailwright`."""

    settings: Settings
    base: BaseModel

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
        """Called before vLLM builds its own list of resolvers from the registry."""
        from prometheus_client import REGISTRY, disable_created_metrics
        from vllm.lora.resolver import LoRAResolverRegistry

        from server.routes import metrics_route, model_routes

        service: Service = app.state.args.mailwright
        store = Store(service.settings.store)
        # Otherwise every counter and histogram has a second series, that says when it began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._metrics = Metrics(REGISTRY, service.base.name)
        LoRAResolverRegistry.register_resolver(ROUTES, store_resolver(store))
        app.include_router(model_routes(store, service.base, service.base_names))
        app.include_router(metrics_route(REGISTRY))
        app.add_exception_handler(MailwrightError, _answer)
        app.add_middleware(
            Gate,
            store=store,
            residency=_residency(app, service, self._metrics),
            metrics=self._metrics,
            base_names=service.base_names,
            api_key=service.settings.api_key,
        )

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        refuse_stock_workers(await engine_client.collective_rpc("lora_wrapper"))
        # Kept, because the loop alone does not keep a task; the end of the loop cancels it.
        self._following = asyncio.create_task(self._metrics.follow_residents(engine_client.list_loras))


def store_resolver(store: Store) -> LoRAResolver:
    """Gives vLLM the directory of an exact version; residency has judged it before vLLM asks."""
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver

    class StoreResolver(LoRAResolver):
        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            try:
                version = store.resolve(lora_name)
            except AdapterNotFound:
                return None
            # vLLM puts its own number in. Never load_inplace: it reads the files again at every step.
            return LoRARequest(lora_name=version.id, lora_int_id=1, lora_path=str(version.path))

    return StoreResolver()


def refuse_stock_workers(wrappers: list[str]) -> None:
    """Raise ConfigError if a worker, by its own answer, would mix adapters into the base model's rows."""
    from server import cpu_lora

    if cpu_lora.missing_from(wrappers):
        raise ConfigError(
            f"vLLM's workers compute LoRA with {', '.join(wrappers)}, which is wrong on a CPU",
            "install Mailwright in the environment that vLLM runs in: its entry points are missing there",
        )


def _residency(app: FastAPI, service: Service, metrics: Metrics) -> Residency:
    async def load(version: Version) -> Reasons:
        answer = await app.state.openai_serving_models.resolve_lora(version.id)
        failed = version.id not in app.state.openai_serving_models.lora_requests
        return [f"vLLM could not load it: {answer.error.message} The server's log says why."] if failed else []

    def judge(version: Version) -> Reasons:
        return reasons_to_refuse(version, service.base, service.settings.max_rank)

    return Residency(judge, load, metrics.load_ended)


async def _answer(request: Any, error: Exception) -> Any:
    from starlette.responses import Response

    from server.openai_errors import body_of

    assert isinstance(error, MailwrightError)
    return Response(body_of(error), error.status, media_type="application/json")
