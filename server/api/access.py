"""Who asks, whether they may, and how much of it: API keys and their limits, for one server.

Without any key, on a loopback address, every local caller may write and read, and only the command line administers:
then the Host header must be a loopback one, or any web page could have its own name mean this machine and ask from a
browser here. Limits are counted in this process and begin anew with it. This file knows no ASGI and no vLLM;
server/api/gate.py says what a request wants.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.errors import Forbidden, RateLimited, Unauthorised
from adapters.settings import is_loopback
from server.api.keys import HINT, SCOPES, Caller, Keys, Scope

LOCAL = Caller("local", "local caller", frozenset({"infer", "metrics"}))
OPERATOR = Caller("operator", "MAILWRIGHT_API_KEY", frozenset(SCOPES))


@dataclass
class Use:
    """What a key has used: `tokens` of its bucket are left at `at`, `streams` of its answers are being written."""

    tokens: float
    at: float
    streams: int = 0
    told: float = -math.inf
    """When the audit log was last told that it met a limit."""


class Access:
    """`api_key` is the operator's own; `local`: the server listens on a loopback address.

    `limited` hears which caller met which limit, at most once a minute for each.
    """

    def __init__(
        self,
        keys: Keys,
        api_key: str | None,
        local: bool,
        limited: Callable[[Caller, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._api_key = api_key.encode() if api_key else None
        self._local = local
        self._limited = limited
        self._clock = clock
        self._uses: dict[str, Use] = {}

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whose request has these headers, names in lower case.

        Raises:
            Unauthorised: nobody that this server knows.
            Forbidden: it came to a name that is not this machine's own.
            KeysDamaged: nobody can be let in.
        """
        token = _token(headers)
        if self._api_key and hmac.compare_digest(token, self._api_key):
            return OPERATOR
        if self._keys.all():
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
    def admitted(self, caller: Caller) -> Iterator[dict[str, str]]:
        """Count one answer of `caller`, from here on until the context ends; gives the headers that say what is left.

        Raises:
            RateLimited: it has too many already.
        """
        use = self._uses.setdefault(caller.id, Use(float(caller.requests_per_minute or 0), self._clock()))
        if caller.streams and use.streams >= caller.streams:
            self._tell(caller, use, "streams")
            raise RateLimited(f"this API key may have {caller.streams} answers written at the same time", retry_after=1)
        headers = self._take(caller, use) if caller.requests_per_minute else {}
        use.streams += 1
        try:
            yield headers
        finally:
            use.streams -= 1

    def _take(self, caller: Caller, use: Use) -> dict[str, str]:
        """One request from a bucket that holds a minute's requests and fills evenly."""
        limit, moment = caller.requests_per_minute or 1, self._clock()
        use.tokens = min(limit, use.tokens + (moment - use.at) * limit / 60)
        use.at = moment
        if use.tokens < 1:
            self._tell(caller, use, "requests")
            wait = math.ceil((1 - use.tokens) * 60 / limit)
            raise RateLimited(f"this API key may send {limit} requests a minute", retry_after=wait)
        use.tokens -= 1
        return {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(int(use.tokens)),
            "x-ratelimit-reset-requests": f"{math.ceil((limit - use.tokens) * 60 / limit)}s",
        }

    def _tell(self, caller: Caller, use: Use, limit: str) -> None:
        if self._clock() - use.told >= 60:
            use.told = self._clock()
            self._limited(caller, limit)


def check_scope(caller: Caller, allowed: frozenset[Scope]) -> None:
    """Raise Forbidden unless `caller` has one of the scopes `allowed`."""
    if caller.scopes & allowed:
        return
    needed = " or ".join(sorted(allowed))
    if caller is LOCAL:
        hint = "use the `adapters` command, or make a key: server keys create, or MAILWRIGHT_API_KEY for the server"
        raise Forbidden(f"without API keys nobody has the scope {needed}", hint)
    raise Forbidden(
        f"this API key has the scopes {', '.join(sorted(caller.scopes))}, and this needs {needed}", "use another key"
    )


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
