"""Who asks, whether they may, and how much of it: API keys and their limits, for one server.

Without any key, on a loopback address, every local caller may write and read, and only the command line administers:
then the Host header must be a loopback one, or any web page could have its own name mean this machine and ask from a
browser here. Limits are counted in this process and begin anew with it.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.errors import Forbidden, RateLimited, Unauthorised
from adapters.settings import is_loopback
from adapters.store.audit import acting_as
from adapters.store.store import Store
from server.api.keys import HINT, SCOPES, Caller, Keys, Scope

LOCAL = Caller("local", "local caller", frozenset({"infer", "metrics"}))
OPERATOR = Caller("operator", "MAILWRIGHT_API_KEY", frozenset(SCOPES))


@dataclass
class Use:
    """What a key has used: `tokens` of its bucket are left at `at`, `streams` of its answers are being written."""

    tokens: float
    at: float
    streams: int = 0
    # When the audit log last got an entry of a limit.
    recorded: float = -math.inf


class Access:
    """The callers of one server; `api_key` is the operator's own, `local`: it listens on a loopback address."""

    def __init__(
        self, store: Store, api_key: str | None, local: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._audit = store.audit
        self._keys = Keys(store.directory)
        self._api_key = api_key.encode() if api_key else None
        self._local = local
        self._clock = clock
        self._uses: dict[str, Use] = {}

    async def authorise(self, headers: Mapping[bytes, bytes], allowed: frozenset[Scope] | None) -> Caller:
        """Who sends these headers, names in lower case; one of the scopes `allowed` is needed, None for any.

        Raises:
            Unauthorised: no key that counts.
            Forbidden: without keys, the request names another host; or the caller has none of the scopes.
            KeysDamaged: the keys cannot be read, so that all requests are refused.
        """
        if self._keys.changed:
            await asyncio.to_thread(self._keys.all)
        caller = self._caller(headers)
        if allowed is not None and not caller.scopes & allowed:
            needed = " or ".join(sorted(allowed))
            if caller is LOCAL:
                hint = "use the `adapters` command, or make a key: server keys create, or MAILWRIGHT_API_KEY"
                raise Forbidden(f"without API keys no caller has the scope {needed}", hint)
            scopes = ", ".join(sorted(caller.scopes))
            raise Forbidden(f"this API key has the scopes {scopes}, and this needs {needed}", "use another key")
        return caller

    def _caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        token = _token(headers)
        if self._api_key and hmac.compare_digest(token, self._api_key):
            return OPERATOR
        if self._keys.exist:
            return self._keys.find(token.decode(errors="replace")).caller
        if self._api_key or not self._local:
            raise Unauthorised("no valid API key came with the request", HINT)
        if not is_loopback(_host(headers)):
            raise Forbidden(
                "without API keys this server answers on loopback addresses only, and the Host header names another",
                "ask http://127.0.0.1, or make a key: server keys create",
            )
        return LOCAL

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[list[tuple[bytes, bytes]]]:
        """Count one answer of `caller` until the context ends; gives the headers with the rest of its quota.

        Raises:
            RateLimited: it has too many already.
        """
        use = self._uses.setdefault(caller.id, Use(float(caller.requests_per_minute or 0), self._clock()))
        if caller.streams and use.streams >= caller.streams:
            self._record(caller, use, "streams")
            raise RateLimited(f"this API key allows {caller.streams} concurrent requests", retry_after=1)
        headers = self._take(caller, use) if caller.requests_per_minute else []
        use.streams += 1
        try:
            yield headers
        finally:
            use.streams -= 1

    def _take(self, caller: Caller, use: Use) -> list[tuple[bytes, bytes]]:
        """One request from a bucket that holds a minute's requests and fills evenly."""
        limit, moment = caller.requests_per_minute or 1, self._clock()
        use.tokens = min(limit, use.tokens + (moment - use.at) * limit / 60)
        use.at = moment
        if use.tokens < 1:
            self._record(caller, use, "requests")
            wait = math.ceil((1 - use.tokens) * 60 / limit)
            raise RateLimited(f"this API key allows {limit} requests a minute", retry_after=wait)
        use.tokens -= 1
        return [
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % use.tokens),
            (b"x-ratelimit-reset-requests", b"%ds" % math.ceil((limit - use.tokens) * 60 / limit)),
        ]

    def _record(self, caller: Caller, use: Use, limit: str) -> None:
        """Write into the audit log that `caller` met `limit`, at most once a minute."""

        def record() -> None:
            with acting_as(caller.name):
                self._audit.record("limit", limit=limit)

        if self._clock() - use.recorded >= 60:
            use.recorded = self._clock()
            # The disk may be slow, and this is the event loop.
            asyncio.get_running_loop().run_in_executor(None, record)


def _token(headers: Mapping[bytes, bytes]) -> bytes:
    """What the client presents: OpenAI's clients as a bearer token, Anthropic's as X-Api-Key."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"").strip()


def _host(headers: Mapping[bytes, bytes]) -> str:
    """The Host header without its port."""
    host = headers.get(b"host", b"").decode("latin-1").strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
