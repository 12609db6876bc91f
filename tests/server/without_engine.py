"""vLLM's own application with our plugin in it and no engine behind: asks it and prints status and body as JSON.

python -m tests.server.without_engine BASE STORE
"""

import asyncio
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import httpx

from adapters.models.base_models import find
from server.cpu.lora import WRAPPER
from server.plugin import GENERAL, ROUTES, Service
from server.settings import read
from server.vllm_server import parsed

REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/adapters/frmal", None),
    ("GET", "/docs", None),
    ("POST", "/v1/chat/completions", {"model": "frmal", "messages": []}),
    ("POST", "/v1/chat/completions", {"model": "base", "messages": [{"role": "user", "content": "x"}], "stop": [7]}),
    ("POST", "/v1/completions", {"model": "base", "prompt": "x", "temperature": "canary"}),
]


class NoEngine:
    errored = False
    model_config = SimpleNamespace(max_model_len=2048)
    vllm_config = SimpleNamespace(speculative_config=None)

    async def collective_rpc(self, _: str) -> list[str]:
        return [WRAPPER]

    async def list_loras(self) -> list[int]:
        return []

    async def check_health(self) -> None:
        pass

    def generate(self, *_: object, **__: object) -> None:
        raise AssertionError("no question here needs a token")

    def shutdown(self, timeout: float) -> None:
        pass


async def answers(base: str, store: str) -> list[tuple[int, str]]:
    from vllm.entrypoints.launchers.app import build_app
    from vllm.plugins.endpoint_plugins.interface import init_endpoint_plugins_state

    service = Service(read(["--base", base, "--store", store], {}), find(base))
    args = parsed(service)
    args.mailwright = service
    app, engine = build_app(args, ("generate",)), NoEngine()
    app.state.engine_client, app.state.vllm_config = engine, SimpleNamespace(model_config=engine.model_config)
    await init_endpoint_plugins_state(engine, app.state, args)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as client:
        found = [await client.request(method, path, json=body) for method, path, body in REQUESTS]
        return [(answer.status_code, answer.text) for answer in found]


if __name__ == "__main__":
    os.environ["VLLM_PLUGINS"] = f"{GENERAL},{ROUTES}"
    print(json.dumps(asyncio.run(answers(*sys.argv[1:]))))
