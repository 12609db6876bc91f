"""The command line of the store: `adapters list | show NAME | promote NAME@N`. Parses, calls, prints; no logic.

This file also holds what our commands share: how an error is printed, a parser whose errors are ours, a port. It does
not know training or serving.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from adapters.errors import ConfigError, MailwrightError
from adapters.settings import store_directory
from adapters.store import Store, Version

EXAMPLES = """examples:
  adapters list                   every version of every adapter; * marks the promoted one
  adapters show formal            what the promoted version of `formal` says of itself
  adapters promote formal@2       `formal` means version 2 from the next request on
"""


def run(command: Callable[[], None], debug: bool) -> int:
    """Exit status of `command`: 0, 2 after an error that the user can mend, 130 after Ctrl-C."""
    try:
        command()
    except MailwrightError as exc:
        if debug:
            raise
        complain(str(exc), exc.hint)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was left half done", file=sys.stderr)
        return 130
    return 0


def complain(error: str, hint: str) -> None:
    print(f"error: {error}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, f"{self.prog} --help shows every flag")


def port(text: str) -> int:
    """The `type` of a flag for a port to bind."""
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    store = Store(store_directory(args.store))
    return run(lambda: args.command(store, args), args.debug)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--store", metavar="DIR", help="the store (default: MAILWRIGHT_STORE, else ~/.local/share/mailwright/store)"
    )
    shared.add_argument("--json", action="store_true", help="print JSON")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="adapters",
        description="List, show and promote adapters.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", parents=[shared], help="every version of every adapter")
    listing.set_defaults(command=_list)
    show = commands.add_parser("show", parents=[shared], help="what one version says of itself")
    show.add_argument("reference", metavar="NAME[@N]")
    show.set_defaults(command=_show)
    promote = commands.add_parser("promote", parents=[shared], help="make the bare name mean this version")
    promote.add_argument("reference", metavar="NAME@N")
    promote.set_defaults(command=_promote)
    return parser


def _list(store: Store, args: argparse.Namespace) -> None:
    rows = [_summary(version, store) for name in store.names() for version in store.versions(name)]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"store: {store.directory}")
    for row in rows:
        heldout = "" if row["heldout_loss"] is None else f", held-out loss {row['heldout_loss']:.3f}"
        mark = "*" if row["promoted"] else " "
        print(f"{mark} {row['id']:24} {row['created'][:16]}  on {row['base_name']}, rank {row['rank']}{heldout}")
    if not rows:
        print("no adapters yet: `trainer sft --data FILE --name NAME` makes one")


def _show(store: Store, args: argparse.Namespace) -> None:
    version = store.resolve(args.reference)
    described = {"path": str(version.path)} | version.manifest().model_dump(mode="json")
    if args.json:
        print(json.dumps(described, indent=2))
        return
    for key, value in described.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, setting in value.items():
                print(f"  {inner}: {', '.join(map(str, setting)) if isinstance(setting, list) else setting}")
        else:
            print(f"{key}: {value}")


def _promote(store: Store, args: argparse.Namespace) -> None:
    version = store.promote(args.reference)
    print(json.dumps({"promoted": version.id}) if args.json else f"{version.name} now means {version.id}")


def _summary(version: Version, store: Store) -> dict[str, Any]:
    manifest = version.manifest()
    return {
        "id": version.id,
        "promoted": store.promoted(version.name) == version,
        "created": manifest.created.isoformat(),
        "base_name": manifest.base_name,
        "rank": manifest.lora.rank,
        "heldout_loss": manifest.training and manifest.training.heldout_loss,
        "path": str(version.path),
    }


if __name__ == "__main__":
    sys.exit(main())
