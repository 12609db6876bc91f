"""`server keys create | list | revoke`: the command line of server/api/keys.py. Parses, calls, prints; no logic."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

from adapters.console import Parser, run_parsed
from adapters.settings import store_directory
from adapters.store.audit import Audit
from server.api.keys import SCOPES, Key, Keys, Order, Scope, now, parse_lifetime

EXAMPLES = """examples:
  server keys create --name phone                           may ask every voice and the base model
  server keys create --name crm --models 'formal*,base' --expires 90d --requests-per-minute 60 --streams 4
  server keys create --name prometheus --scope metrics
  server keys list
  server keys revoke phone

A key is shown once, when it is made; the store keeps a hash of it. A running server takes new and revoked keys at its
next request. With the first key nobody is let in without one any more.
"""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, or 2 for what the user can mend."""

    def command(args: argparse.Namespace) -> None:
        store = store_directory(args.store)
        args.command(Keys(store), Audit(store), args)

    return run_parsed(_parser(), arguments, command)


def _create(keys: Keys, audit: Audit, args: argparse.Namespace) -> None:
    lifetime = parse_lifetime(args.expires) if args.expires else None
    order = Order(args.name, args.models, args.scope, lifetime, args.requests_per_minute, args.streams)
    key, token = keys.create(order)
    audit.record("key created", key=key.id, key_name=key.name)
    if args.json:
        print(json.dumps(_shown(key) | {"key": token}, indent=2))
        return
    print(f"{token}\n\nThis is key {key.id} ({key.name}). It is not shown again; clients send it as their API key.")


def _list(keys: Keys, audit: Audit, args: argparse.Namespace) -> None:
    shown = [_shown(key) for key in keys.all()]
    if args.json:
        print(json.dumps(shown, indent=2))
    elif not shown:
        print("no keys: everybody on this machine may ask a server on a loopback address; server keys create makes one")
    else:
        print("\n".join(_line(key) for key in keys.all()))


def _revoke(keys: Keys, audit: Audit, args: argparse.Namespace) -> None:
    key = keys.revoke(args.key)
    audit.record("key revoked", key=key.id, key_name=key.name)
    print(json.dumps(_shown(key), indent=2) if args.json else f"revoked {key.id} ({key.name})")


def _line(key: Key) -> str:
    about = [f"{key.state(now()):8}", f"may {', '.join(key.scopes)}", f"models {', '.join(key.models)}"]
    if key.requests_per_minute:
        about.append(f"{key.requests_per_minute} requests a minute")
    if key.streams:
        about.append(f"{key.streams} at the same time")
    until = f"until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else "for good"
    return "  ".join([key.id, f"{key.name:16}", *about, until])


def _shown(key: Key) -> dict[str, object]:
    """All but the hash."""
    return key.model_dump(mode="json", exclude={"sha256"}) | {"state": key.state(now())}


def _parser() -> argparse.ArgumentParser:
    shared = Parser(add_help=False)
    shared.add_argument("--store", metavar="DIR", help="the store that the servers use (default: MAILWRIGHT_STORE)")
    shared.add_argument("--json", action="store_true", help="print JSON")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = Parser(
        prog="server keys",
        description="Make, list and revoke the API keys of a store's servers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[shared], help=about, epilog=EXAMPLES, description=about)
        added.formatter_class = argparse.RawDescriptionHelpFormatter
        added.set_defaults(command=command)
        return added

    create = add("create", _create, "make a key, and show it once").add_argument
    create("--name", required=True, help="whose it is, for the list and the audit log")
    create(
        "--models",
        type=_words,
        default=("*",),
        metavar="PATTERNS",
        help="adapters it may use, as shell patterns, and base for the base model (default: all)",
    )
    create(
        "--scope",
        type=_scopes,
        default=("infer",),
        metavar="SCOPES",
        help=f"what it may do, of {', '.join(SCOPES)}; several with commas (default: infer)",
    )
    create("--expires", metavar="TIME", help="how long it counts: 90d, 12h, 30m (default: until revoked)")
    create("--requests-per-minute", type=int, metavar="N", help="(default: no limit)")
    create("--streams", type=int, metavar="N", help="answers being written at the same time (default: no limit)")
    add("list", _list, "show every key, without its secret")
    add("revoke", _revoke, "end a key").add_argument("key", metavar="KEY", help="its id or its name")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def _scopes(text: str) -> tuple[Scope, ...]:
    found = tuple(scope for scope in SCOPES if scope in _words(text))
    if not found or set(found) != set(_words(text)):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not of {', '.join(SCOPES)}")
    return found
