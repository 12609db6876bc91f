"""The vLLM entry points: `register` runs in every vLLM process, `EndpointPlugin` in the one that answers HTTP.

Here the parts meet: store, residency, gate and routes are put together and hung into vLLM's application. vLLM only logs
a plugin that fails to load and then serves without it; `refuse_stock_workers` and server/launch.py make it a refusal.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters.errors import AdapterNotFound, ConfigError, MailwrightError
from adapters.models.base_models import BaseModel, chat_template
from adapters.models.validate import reasons_against
from adapters.settings import is_loopback
from adapters.store.audit import acting_as
from adapters.store.leases import HEARTBEAT_SECONDS, Lease
from adapters.store.store import Store
from adapters.store.version import Version
from server.api.access import Access
from server.api.errors import body_of, headers_of
from server.api.gate import Gate
from server.api.keys import CALLER, Caller, Keys
from server.api.limits import Limits
from server.engine import redaction
from server.engine.reconcile import reconcile
from server.engine.residency import LoadResult, Reasons, Residency
from server.engine.shutdown import Ending, end_with_parent
from server.engine.start_times import Startup
from server.metrics import Metrics
from server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

GENERAL, ROUTES = "mailwright_general", "mailwright_routes"
"""The names of our entry points in pyproject.toml."""


@dataclass(frozen=True)
class Service:
    """What server/launch.py hands to the plugin, as `args.mailwright`."""

    settings: Settings
    base: BaseModel
    startup: Startup = field(default_factory=Startup)
    ending: Ending = field(default_factory=Ending)
    ready: Callable[[], None] = lambda: None
    """Called as soon as requests could be answered."""

    @property
    def base_names(self) -> tuple[str, ...]:
        """The base model's own name first: vLLM puts that one into answers."""
        return tuple(dict.fromkeys([self.base.name, "base"]))


def register() -> None:
    """Install what CPUs need in this process, keep requests out of its log, have it end with the server.

    Again is harmless.
    """
    from server.cpu import lora, seeds, speculation

    lora.install()
    seeds.install()
    speculation.install()
    redaction.install(redaction.ENGINE)
    end_with_parent()


class EndpointPlugin:
    """See vLLM's `plugins/endpoint_plugins/interface.py`."""

    name = ROUTES
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Called when the engine has started, and before anything is served."""
        from prometheus_client import REGISTRY, disable_created_metrics

        from server.api.adapters_route import adapter_routes
        from server.api.models_route import metrics_route, model_routes
        from server.api.openapi import openapi_route

        service: Service = app.state.args.mailwright
        service.startup.ended("engine")
        self._app = app
        self._store = Store(service.settings.store)
        # Otherwise every counter and histogram has a second series, that says when it began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._metrics = Metrics(REGISTRY, service.base.name)
        self._lease = Lease(self._store.directory)
        self._residency = Residency(
            lambda version: reasons_against(version.path, service.base, service.settings.max_rank),
            Loras(app, self._metrics.residents_changed),
            self._lease,
            service.settings.max_resident,
            self._load_ended,
        )
        app.include_router(model_routes(self._store, service.base, service.base_names, self._residency))
        app.include_router(adapter_routes(self._store, self._residency, service.base, service.settings.max_rank))
        app.include_router(metrics_route(REGISTRY))
        app.include_router(openapi_route(app, service.settings.allow_fields))
        app.add_exception_handler(MailwrightError, answering(self._store))

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
        from starlette.middleware.cors import CORSMiddleware

        refuse_stock_workers(await engine_client.collective_rpc("lora_wrapper"))
        redaction.install(redaction.SERVING)
        service: Service = args.mailwright
        service.ending.follow(engine_client)
        # vLLM counts every request by its path; server/metrics.py knows more of it, and counting twice took as long.
        superfluous: list[Any] = [PrometheusInstrumentatorMiddleware]
        if not args.allowed_origins:
            # It would only say of every answer that no web site may read it.
            superfluous.append(CORSMiddleware)
        layers: list[Any] = self._app.user_middleware
        self._app.user_middleware = [each for each in layers if each.cls not in superfluous]
        # Around everything else that vLLM and what it uses have put around the routes since `attach_router`.
        gate: Any = Gate(
            self._app.build_middleware_stack(),
            store=self._store,
            residency=self._residency,
            metrics=self._metrics,
            base_names=service.base_names,
            access=Access(
                Keys(service.settings.store),
                service.settings.api_key,
                is_loopback(service.settings.host),
                self._limit_met,
            ),
            limits=Limits(
                engine_client.model_config.max_model_len,
                takes_tools(service.base),
                service.settings.allow_fields,
                speculates=engine_client.vllm_config.speculative_config is not None,
            ),
            ending=service.ending,
            cross_origin=bool(args.allowed_origins),
        )
        self._app.middleware_stack = gate
        # Kept, because the loop alone does not keep a task; the end of the loop cancels them.
        self._following = [
            asyncio.create_task(self._metrics.follow_residents(engine_client.list_loras)),
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._reconcile()),
        ]
        service.startup.ended("routes")
        _collect_seldom()
        service.ready()

    async def _beat(self) -> None:
        while True:
            await asyncio.to_thread(self._lease.beat)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _reconcile(self) -> None:
        with acting_as("server"):
            await reconcile(self._store, self._residency)

    async def _load_ended(self, version: Version, result: LoadResult, seconds: float) -> None:
        self._metrics.load_ended(version.name, result, seconds)
        await asyncio.to_thread(self._store.audit.record, "load", version, result=result)

    def _limit_met(self, caller: Caller, limit: str) -> None:
        def record() -> None:
            with acting_as(caller.name):
                self._store.audit.record("limit", limit=limit)

        # The disk may be slow, and this is the event loop.
        asyncio.get_running_loop().run_in_executor(None, record)


class Loras:
    """vLLM's engine as what holds versions. vLLM knows each by its exact name, a number of ours and its directory.

    Its own resolvers are not used: they keep a lock for every name that anybody asks for, and give a number to every
    attempt, so that what a failed one left in the engine could not be removed.
    """

    def __init__(self, app: FastAPI, changed: Callable[[], None]) -> None:
        self._app = app
        self._changed = changed
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
        finally:
            self._changed()
        self._app.state.openai_serving_models.lora_requests[version.id] = request
        return []

    async def unload(self, version: Version) -> None:
        request = self._app.state.openai_serving_models.lora_requests.pop(version.id)
        await self._app.state.engine_client.remove_lora(request.lora_int_id)
        self._changed()


def _collect_seldom() -> None:
    """Python's collector looks at every object of vLLM's again and again: 8 % of what a short request took."""
    gc.collect()
    # What there is now stays for as long as the server.
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


def takes_tools(base: BaseModel) -> bool:
    """Whether the chat template of `base` mentions tools; without that the model would never see them."""
    return "tools" in chat_template(base.path)


def answering(store: Store) -> Any:
    """What FastAPI is to do with our errors: a key with few models is told of these alone."""

    from fastapi import Response

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, MailwrightError)
        caller: Caller = request.scope[CALLER]
        if isinstance(error, AdapterNotFound) and not caller.sees_all:
            [reference] = request.path_params.values()
            error = store.not_found(reference, caller.may_use)
        headers = {name.decode(): value.decode() for name, value in headers_of(error)}
        return Response(body_of(error), error.status, headers, media_type="application/json")

    return answer
