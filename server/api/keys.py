"""API keys in STORE/keys.json, the secrets only as hashes.

A key looks like `mw-0123456789ab-SECRET`: its id finds the entry, its SHA-256 proves it. A plain hash is enough for a
secret of 256 random bits. Servers read the file again when it has changed, so that a new or revoked key counts at once.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from adapters.errors import ConfigError, Forbidden, KeysDamaged, Unauthorised
from adapters.store.audit import acting_as
from adapters.store.disk import explained, locked, replace
from adapters.store.store import KEYS
from server.drafts.asked import CHECKED, take_drafts
from server.engine.store_reader import Stamp, stamp

TOKEN = re.compile(r"mw-(?P<id>[0-9a-f]{12})-[A-Za-z0-9_-]{43}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,62}")
PATTERN = re.compile(r"[a-z0-9_*?\[\]-]{1,63}")
# An unknown id is compared with this, so that it takes as long as a known one.
NO_KEY = "0" * 64
HINT = "send the header Authorization: Bearer KEY"

# The key in an ASGI scope of the Caller.
CALLER = "mailwright.caller"

Scope = Literal["infer", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they may. `models` are shell patterns of adapter names; `base` is the base model.

    `id` tells keys apart in limits and in the audit log; `streams` bounds concurrent answers, `drafts` those of one
    request.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ("*",)
    requests_per_minute: int | None = None
    streams: int | None = None
    drafts: int | None = None

    @property
    def sees_all(self) -> bool:
        return "*" in self.models

    def may_use(self, reference: str, base_names: Collection[str] = ("base",)) -> bool:
        """Whether `reference` (a name, name@version or name@label) is one of this caller's models, existing or not."""
        name = reference.removesuffix(CHECKED).partition("@")[0]
        names = ["base", *base_names] if reference in base_names else [name]
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.models)

    def acting(self) -> AbstractContextManager[None]:
        """What happens within is in the audit log under this caller's name."""
        return acting_as(self.name)

    def take_drafts(self, request: dict[str, Any]) -> int:
        """How many drafts `request` asks for, which is taken out of it.

        Raises:
            RequestError: it cannot be asked for so many, or for drafts of this.
            Forbidden: this caller may not ask for so many.
        """
        asked = take_drafts(request)
        if self.drafts is not None and asked > self.drafts:
            allowed = f"at most {self.drafts} drafts" if self.drafts else "no checked drafts"
            raise Forbidden(f"this API key allows {allowed}, and the request asks for {asked}", "ask for fewer")
        return asked


class Key(BaseModel):
    """One entry of the file; `sha256` is of the whole key as its owner sends it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    name: str
    sha256: str
    models: tuple[str, ...]
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    streams: int | None = Field(default=None, ge=1)
    drafts: int | None = Field(default=None, ge=0)

    @property
    def caller(self) -> Caller:
        who = f"key {self.id} ({self.name})"
        limits = (self.requests_per_minute, self.streams, self.drafts)
        return Caller(self.id, who, frozenset(self.scopes), self.models, *limits)

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and self.expires <= now else "active"


@dataclass(frozen=True)
class Order:
    """A key to be made, checked by `Keys.create`."""

    name: str
    models: tuple[str, ...] = ("*",)
    scopes: tuple[Scope, ...] = ("infer",)
    lifetime: timedelta | None = None
    requests_per_minute: int | None = None
    streams: int | None = None
    drafts: int | None = None


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


class Keys:
    """The keys of a store. `clock` gives the time that expiry is measured by."""

    def __init__(self, store: Path, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._file = store / KEYS
        self._clock = clock
        self._stamp: Stamp | None = (0, 0, 0)
        self._read: dict[str, Key] = {}

    @property
    def changed(self) -> bool:
        return stamp(self._file) != self._stamp

    def all(self) -> list[Key]:
        """Every key ever made, also expired and revoked ones; the file is read if it has changed.

        Raises:
            KeysDamaged: the file cannot be read, or is not what this program wrote.
        """
        # Before the file is read: a change in between is read the next time.
        now = stamp(self._file)
        if now != self._stamp:
            self._read = {key.id: key for key in self._load()} if now else {}
            self._stamp = now
        return list(self._read.values())

    @property
    def exist(self) -> bool:
        """Whether there was any when the file was last read."""
        return bool(self._read)

    def find(self, token: str) -> Key:
        """The key whose owner presents `token`, by what the file held when it was last read.

        Raises:
            Unauthorised: there is none, or it has expired or was revoked.
        """
        form = TOKEN.fullmatch(token)
        key = self._read.get(form["id"]) if form else None
        proven = hmac.compare_digest(digest(token), key.sha256 if key else NO_KEY)
        if not key or not proven:
            raise Unauthorised("no valid API key came with the request", HINT)
        # Only the owner of the secret learns more.
        state = key.state(self._clock())
        if state != "active":
            raise Unauthorised(f"the API key {key.id} {'has expired' if state == 'expired' else 'was revoked'}", HINT)
        return key

    def create(self, order: Order) -> tuple[Key, str]:
        """A new key, and its token, which is kept nowhere.

        Raises:
            ConfigError: an invalid name, pattern or limit.
            StoreUnwritable: nothing was made.
        """
        _check(order)
        created, identity = self._clock(), secrets.token_hex(6)
        token = f"mw-{identity}-{secrets.token_urlsafe(32)}"
        given = {field: value for field, value in vars(order).items() if field != "lifetime"}
        expires = created + order.lifetime if order.lifetime else None
        key = Key(id=identity, sha256=digest(token), created=created, expires=expires, **given)

        def add(keys: list[Key]) -> list[Key]:
            if any(known.name == order.name and known.state(created) == "active" for known in keys):
                raise ConfigError(f"there is an active key named {order.name!r}", "choose another name, or revoke it")
            return [*keys, key]

        self._change(add)
        return key, token

    def revoke(self, reference: str) -> Key:
        """End the key with that id, or the active one with that name.

        Raises:
            ConfigError: there is none that still counts.
        """
        found = [key for key in self.all() if reference in (key.id, key.name) and not key.revoked]
        if not found:
            raise ConfigError(f"there is no key {reference[:80]!r} to revoke", "`server keys list` shows them all")
        revoked = {key.id: key.model_copy(update={"revoked": self._clock()}) for key in found}
        self._change(lambda keys: [revoked.get(key.id, key) for key in keys])
        return revoked[found[-1].id]

    def _change(self, change: Callable[[list[Key]], list[Key]]) -> None:
        with explained(self._store):
            self._store.mkdir(parents=True, exist_ok=True)
            with locked(self._store):
                replace(self._file, ENTRIES.dump_json(change(self.all()), indent=2) + b"\n", mode=0o600)

    def _load(self) -> list[Key]:
        try:
            return ENTRIES.validate_json(self._file.read_bytes())
        except (OSError, ValidationError) as exc:
            # Without the cause's text: it would quote the file.
            why = exc.strerror if isinstance(exc, OSError) else "it is damaged"
            raise KeysDamaged(
                f"{self._file} cannot be read: {why}", "restore it; removing it removes every key"
            ) from None


ENTRIES = TypeAdapter(list[Key])


def digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def parse_lifetime(text: str) -> timedelta:
    """Raises:
    ConfigError: `text` is not like `90d`, `12h` or `30m`.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,4})([dhm])", text)
    if not match:
        raise ConfigError(f"{text[:80]!r} is not a time span", "give days, hours or minutes: 90d, 12h, 30m")
    return timedelta(**{{"d": "days", "h": "hours", "m": "minutes"}[match[2]]: int(match[1])})


def _check(order: Order) -> None:
    if not NAME.fullmatch(order.name):
        raise ConfigError(
            f"{order.name[:80]!r} is not a name for a key", "use up to 63 letters, digits, spaces, . _ @ -"
        )
    for pattern in order.models:
        if not PATTERN.fullmatch(pattern):
            raise ConfigError(
                f"{pattern[:80]!r} is not a pattern of adapter names", "for example: formal, 'formal*', base"
            )
    if not order.models or not order.scopes:
        raise ConfigError("a key without models or scopes may do nothing", f"scopes are {', '.join(SCOPES)}")
    for limit, value in {"requests a minute": order.requests_per_minute, "streams": order.streams}.items():
        if value is not None and not 1 <= value <= 1_000_000:
            raise ConfigError(f"{value} {limit} cannot be", "give a number from 1 to 1000000")
