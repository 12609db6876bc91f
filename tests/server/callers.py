"""An application as it runs behind a gate that has let somebody in."""

from typing import Any

from fastapi import FastAPI

from server.api.access import LOCAL
from server.api.keys import CALLER, Caller


def asked_by(app: FastAPI, caller: Caller = LOCAL) -> Any:
    async def entered(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, CALLER: caller}, receive, send)

    return entered
