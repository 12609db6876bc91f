"""`server keys create | list | revoke`: the command line of server/api/keys.py. Parses, calls, prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

from pydantic import BaseModel, Field

from adapters.console import Parser, run_parsed, table
from adapters.options import add_flags, from_flags
from adapters.settings import store_directory
from adapters.store.audit import Audit
from server.api.keys import SCOPES, Key, Keys, Order, Scope, now, parse_lifetime

EXAMPLES = """examples:
  server keys create --name phone                           may use every voice and the base model
  server keys create --name crm --models 'formal*,base' --expires 90d --requests-per-minute 60 --streams 4
  server keys create --name prometheus --scope metrics
  server keys list
  server keys revoke phone

A key is printed once, when it is made; the store keeps a hash of it. A running server takes new and revoked keys at its
next request. From the first key on, every request needs one.
"""


class NewKey(BaseModel):
    name: str = Field(description="whose key it is, for the list and the audit log")
    models: tuple[str, ...] = Field(
        default=("*",), description="adapters it may use, as shell patterns, and base for the base model (default: all)"
    )
    scope: tuple[Scope, ...] = Field(
        default=("infer",), description=f"what it may do, of {', '.join(SCOPES)}; several with commas (default: infer)"
    )
    expires: str | None = Field(
        default=None, description="how long it is valid: 90d, 12h, 30m (default: until revoked)"
    )
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000, description="(default: no limit)")
    streams: int | None = Field(default=None, ge=1, le=1_000_000, description="concurrent answers (default: no limit)")
    drafts: int | None = Field(
        default=None,
        ge=0,
        le=16,
        description="checked drafts that one request may ask for; 0 forbids them (default: 16)",
    )


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, or 2 for an error that the user can fix."""

    def command(args: argparse.Namespace) -> None:
        store = store_directory(args.store)
        args.command(Keys(store), Audit(store), args)

    return run_parsed(_parser(), arguments, command)


def _create(keys: Keys, audit: Audit, args: argparse.Namespace) -> None:
    new = from_flags(NewKey, args, {})
    lifetime = parse_lifetime(new.expires) if new.expires else None
    limits = (new.requests_per_minute, new.streams, new.drafts)
    key, token = keys.create(Order(new.name, new.models, new.scope, lifetime, *limits))
    audit.record("key created", key=key.id, key_name=key.name)
    if args.json:
        print(json.dumps(_public(key) | {"key": token}, indent=2))
        return
    print(f"{token}\n\nThis is key {key.id} ({key.name}). It is not printed again; clients send it as their API key.")


def _list(keys: Keys, audit: Audit, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps([_public(key) for key in keys.all()], indent=2))
    elif not keys.all():
        print(
            "no keys: a server on a loopback address answers every user of this machine; make one: server keys create"
        )
    else:
        headers = ["id", "name", "state", "scopes", "models", "requests a minute", "streams", "drafts", "expires (UTC)"]
        print(table(headers, map(_row, keys.all())))


def _row(key: Key) -> list[object]:
    expires = f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "-"
    limits = [key.requests_per_minute or "-", key.streams or "-", "-" if key.drafts is None else key.drafts]
    return [key.id, key.name, key.state(now()), ", ".join(key.scopes), ", ".join(key.models), *limits, expires]


def _revoke(keys: Keys, audit: Audit, args: argparse.Namespace) -> None:
    key = keys.revoke(args.key)
    audit.record("key revoked", key=key.id, key_name=key.name)
    print(json.dumps(_public(key), indent=2) if args.json else f"revoked {key.id} ({key.name})")


def _public(key: Key) -> dict[str, object]:
    """All fields but the hash."""
    return key.model_dump(mode="json", exclude={"sha256"}) | {"state": key.state(now())}


def _parser() -> argparse.ArgumentParser:
    shared = Parser(add_help=False)
    shared.add_argument("--store", metavar="DIR", help="the store that the servers use (default: MAILWRIGHT_STORE)")
    shared.add_argument("--json", action="store_true", help="print JSON")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    about = "Make, list and revoke the API keys of a store's servers."
    parser = Parser(prog="server keys", description=about, epilog=EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[shared], help=about, description=about, epilog=EXAMPLES)
        added.set_defaults(command=command)
        return added

    add_flags(add("create", _create, "make a key, and print it once"), NewKey)
    add("list", _list, "list every key, without its secret")
    add("revoke", _revoke, "end a key").add_argument("key", metavar="KEY", help="its id or its name")
    return parser
