"""How the server ends: running requests finish, no new ones begin, and a dead engine is not taken for a clean stop.

vLLM drains its engine while the HTTP server still accepts; unfinished answers wait for ever, and the server with them;
when the engine has died vLLM returns as after a clean stop; and a server that is killed leaves its engine behind.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adapters.errors import Overloaded

# By then another server, or this one started again, may be there.
RETRY_SECONDS = 5
# The engine's last tokens reach their reader within this time, or never.
LAST_TOKENS_SECONDS = 5.0


class Shutdown:
    """`closing`: running requests finish and no new ones begin."""

    def __init__(self) -> None:
        self.closing = False
        self.engine_died = False
        self._in_flight: set[asyncio.Task[Any]] = set()

    def follow(self, engine_client: Any) -> None:
        """To be called once, with the client of the engine that vLLM shuts down, on a signal or because it died."""
        shut_down = engine_client.shutdown
        loop = asyncio.get_running_loop()

        # vLLM calls it in a thread.
        def shutdown(*arguments: Any, **options: Any) -> None:
            first, self.closing = not self.closing, True
            if first:
                self.engine_died = bool(engine_client.errored)
            shut_down(*arguments, **options)
            if first:
                loop.call_soon_threadsafe(loop.call_later, LAST_TOKENS_SECONDS, self._cut_off)

        engine_client.shutdown = shutdown

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """For the task of a request, which is cancelled when its answer can get no more tokens.

        Raises:
            Overloaded: the server is shutting down already.
        """
        if self.closing:
            raise shutting_down()
        task = asyncio.current_task()
        assert task
        self._in_flight.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._in_flight:
                task.uncancel()
                raise shutting_down() from None
            raise
        except Exception as exc:
            # The request failed because its engine was shut down.
            if self.closing and not self.engine_died:
                raise shutting_down() from exc
            raise
        finally:
            self._in_flight.discard(task)

    def _cut_off(self) -> None:
        while self._in_flight:
            self._in_flight.pop().cancel()


def end_with_parent() -> None:
    """End this process of vLLM's as soon as its parent is gone, for example killed when memory ran out.

    Otherwise the engine stays for ever, with all of its memory.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def shutting_down() -> Overloaded:
    return Overloaded("the server is shutting down", retry_after=RETRY_SECONDS)
