"""The command line of the store: `adapters list | show | promote | ... | gc`. Parses, calls, prints; no logic.

It does not know training or serving.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from adapters.console import Parser, run_parsed
from adapters.errors import ConfigError
from adapters.models import base_models
from adapters.settings import store_directory
from adapters.store import describe
from adapters.store.audit import table
from adapters.store.store import Store
from adapters.store.version import Version

EXAMPLES = """examples:
  adapters list                               every version of every adapter; * marks the promoted one
  adapters promote formal@2 --percent 10      a tenth of the requests for `formal` goes to version 2
  adapters promote formal@2                   all of them, from the next request on
  adapters rollback formal                    back to what `formal` meant before
  adapters import ./my-lora --name mine       publish a PEFT LoRA that was trained elsewhere

exit status: 0, 1 where verify finds damage, 2 after an error; every command has --json and examples in its --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    return run_parsed(_parser(), argv, lambda args: args.command(Store(store_directory(args.store)), args))


def _parser() -> argparse.ArgumentParser:
    shared = Parser(add_help=False)
    shared.add_argument(
        "--store", metavar="DIR", help="the store (default: MAILWRIGHT_STORE, else ~/.local/share/mailwright/store)"
    )
    shared.add_argument("--json", action="store_true", help="print JSON")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = Parser(
        prog="adapters",
        description="List, check, promote, move and remove adapters.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[Store, argparse.Namespace], int | None], about: str, *examples: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            parents=[shared],
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog="\n  ".join(["examples:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    _add_readers(add)
    _add_pointers(add)
    _add_movers(add)
    return parser


def _add_readers(add: Callable[..., argparse.ArgumentParser]) -> None:
    add("list", _list, "every version of every adapter", "adapters list", "adapters list --json | jq '.[].id'")
    show = add(
        "show", _show, "what one version says of itself", "adapters show formal", "adapters show formal@candidate"
    )
    show.add_argument("reference", metavar="NAME[@N]")
    audit = add("audit", _audit, "who changed what, the newest last", "adapters audit --adapter formal --last 50")
    audit.add_argument("--last", type=int, default=20, metavar="N", help="how many entries (default: %(default)s)")
    audit.add_argument("--adapter", metavar="NAME[@N]", help="only what was done to it")
    add(
        "verify",
        _verify,
        "check every version, and find what is damaged or left over; changes nothing",
        "adapters verify",
        "adapters verify --json || echo damaged",
    )


def _add_pointers(add: Callable[..., argparse.ArgumentParser]) -> None:
    promote = add(
        "promote",
        _promote,
        "make NAME mean this version, unless validation or its evaluation speaks against it",
        "adapters promote formal@2",
        "adapters promote formal@candidate --percent 10    # a canary, which the next promote or rollback ends",
        "adapters promote formal@2 --force                 # whatever speaks against it",
    )
    promote.add_argument("reference", metavar="NAME@N")
    promote.add_argument("--percent", type=int, metavar="P", help="only for that share of the requests, 1 to 99")
    promote.add_argument("--force", action="store_true", help="warn where it would refuse")
    promote.add_argument(
        "--base", metavar="MODEL", help="directory or hub id of the base model to check against (default: its own)"
    )
    rollback = add(
        "rollback",
        _rollback,
        "end the canary if there is one, else promote what was promoted before",
        "adapters rollback formal",
    )
    rollback.add_argument("name", metavar="NAME")
    label = add(
        "label",
        _label,
        "make NAME@LABEL mean this version",
        "adapters label formal@3 candidate",
        "adapters label formal candidate --remove",
    )
    label.add_argument("reference", metavar="NAME@N")
    label.add_argument("label", metavar="LABEL")
    label.add_argument("--remove", action="store_true", help="remove the label from NAME")
    retire = add(
        "retire",
        _retire,
        "have a version, or all of a name, answer no more requests",
        "adapters retire formal@1",
        "adapters retire formal           # the whole name",
        "adapters retire formal --undo    # until gc has removed it",
    )
    retire.add_argument("reference", metavar="NAME[@N]")
    retire.add_argument("--undo", action="store_true", help="bring back what gc has not removed; nothing is promoted")


def _add_movers(add: Callable[..., argparse.ArgumentParser]) -> None:
    importing = add(
        "import",
        _import,
        "publish a PEFT LoRA directory, or one that export wrote, as the next version",
        "adapters import ./my-lora --name mine",
        "adapters import ./my-lora --name mine --base HuggingFaceTB/SmolLM2-360M-Instruct --licence CC-BY-4.0",
    )
    importing.add_argument("directory", metavar="DIR", type=Path)
    importing.add_argument("--name", required=True, help="the adapter's name")
    importing.add_argument(
        "--base", metavar="MODEL", help="directory or hub id of its base model (default: what DIR says, if it is here)"
    )
    importing.add_argument("--licence", help="licence of its training data (default: what DIR says, else unstated)")
    export = add(
        "export",
        _export,
        "write a version to a new directory, for PEFT or import",
        "adapters export formal@2 ./formal-2",
    )
    export.add_argument("reference", metavar="NAME@N")
    export.add_argument("directory", metavar="DIR", type=Path)
    gc = add(
        "gc",
        _gc,
        "remove retired versions that no server may have loaded, and leftovers",
        "adapters gc --dry-run",
        "adapters gc",
    )
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def _list(store: Store, args: argparse.Namespace) -> None:
    rows = list(describe.rows(store))
    if args.json:
        _print_json(rows)
        return
    print(f"store: {store.directory}")
    width = max([24, *(len(row["id"]) for row in rows)])
    for row in rows:
        print(f"{'*' if row['promoted'] else ' '} {row['id']:{width}} {describe.line(row)}")
    if not rows:
        print("no adapters yet: `trainer sft --data FILE --name NAME` makes one")


def _show(store: Store, args: argparse.Namespace) -> None:
    version = store.resolve(args.reference)
    status = describe.status(version, store.pointers(version.name))
    described = {"path": str(version.path)} | status | version.manifest().model_dump(mode="json")
    if args.json:
        _print_json(described)
        return
    for line in describe.lines(described):
        print(line)


def _audit(store: Store, args: argparse.Namespace) -> None:
    entries = store.audit.entries(args.last, args.adapter)
    if args.json:
        _print_json(entries)
        return
    for line in table(entries):
        print(line)
    if not entries:
        print(f"no entries in {store.audit.file}")


def _verify(store: Store, args: argparse.Namespace) -> int:
    from adapters.console import status
    from adapters.models.promotion import own_base
    from adapters.models.validate import reasons_against
    from adapters.store.gc import verify

    unchecked: list[str] = []

    def reasons(version: Version) -> list[str]:
        tell(f"checking {version.id}")
        base = own_base(version)
        if base is None:
            unchecked.append(version.id)
        return reasons_against(version.path, base)

    with status("checking the store") as tell:
        findings = verify(store, reasons)
    damaged = [finding for finding in findings if not finding.removable]
    checked = sum(len(store.versions(name)) for name in store.names())
    if args.json:
        found = [{"path": str(f.path), "what": f.what, "removable": f.removable} for f in findings]
        _print_json({"versions": checked, "without_base": unchecked, "findings": found})
        return 1 if damaged else 0
    print(f"store: {store.directory}")
    for finding in findings:
        kind = "left over" if finding.removable else "damaged"
        print(f"{kind:9} {os.path.relpath(finding.path, store.directory)}: {finding.what}")
    left_over = len(findings) - len(damaged)
    mend = "; `adapters gc` removes what is left over" if left_over else ""
    print(f"{checked} versions, {len(damaged)} damaged, {left_over} left over{mend}")
    if unchecked:
        more = f" and {len(unchecked) - 3} more" if len(unchecked) > 3 else ""
        _note_missing_base(", ".join(unchecked[:3]) + more)
    return 1 if damaged else 0


def _promote(store: Store, args: argparse.Namespace) -> None:
    from adapters.models import promotion

    version = promotion.find(store, args.reference)
    base = base_models.find(args.base, _say) if args.base else promotion.own_base(version)
    overridden = promotion.reasons_not_to(version, base) if args.force else []
    version = promotion.promote(store, version.id, base, force=args.force, percent=args.percent)
    for reason in overridden:
        _say(f"warning: {version.id} is promoted although {reason}")
    if base is None:
        _note_missing_base(version.id)
    if args.json:
        _print_json(
            describe.name_status(store, version.name) | {"checked_on": base and base.name, "overridden": overridden},
        )
    elif args.percent is None:
        print(f"{version.name} now means {version.id}")
    else:
        print(f"{args.percent}% of the requests for {version.name} now go to {version.id}")


def _rollback(store: Store, args: argparse.Namespace) -> None:
    version = store.roll_back(args.name)
    if args.json:
        _print_json(describe.name_status(store, version.name))
    else:
        print(f"{version.name} now means {version.id}")


def _label(store: Store, args: argparse.Namespace) -> None:
    name, at, _ = args.reference.partition("@")
    if not args.remove:
        version = store.label(args.reference, args.label)
    elif at:
        raise ConfigError(f"a label is removed from a name, not from {args.reference!r}", f"give {name}")
    else:
        store.remove_label(name, args.label)
    if args.json:
        _print_json(describe.name_status(store, name))
    elif args.remove:
        print(f"{name} has no label {args.label} any more")
    else:
        print(f"{name}@{args.label} now means {version.id}")


def _retire(store: Store, args: argparse.Namespace) -> None:
    versions = store.bring_back(args.reference) if args.undo else store.retire(args.reference)
    name, ids = versions[0].name, ", ".join(version.id for version in versions)
    if args.json:
        _print_json(describe.name_status(store, name))
    elif args.undo:
        promoted = store.promoted(name)
        means = f"{name} means {promoted.id}" if promoted else f"nothing of {name} is promoted: `adapters promote`"
        print(f"brought back {ids}; {means}")
    else:
        print(f"retired {ids}; `adapters retire {args.reference} --undo` brings back what gc has not removed")


def _import(store: Store, args: argparse.Namespace) -> None:
    from adapters.models import transfer

    base = base_models.find(args.base, _say) if args.base else transfer.base_of(args.directory)
    version = transfer.import_(store, args.directory, args.name, base, args.licence)
    if args.json:
        _print_json({"id": version.id, "path": str(version.path)} | describe.name_status(store, version.name))
        return
    print(f"published {version.id} in {version.path}, on {base.name}")
    print(describe.after_publish(store, version))


def _export(store: Store, args: argparse.Namespace) -> None:
    from adapters.models.transfer import export

    version = store.resolve(args.reference)
    export(version, args.directory)
    if args.json:
        _print_json({"id": version.id, "directory": str(args.directory.absolute())})
    else:
        print(f"wrote {version.id} to {args.directory}")


def _gc(store: Store, args: argparse.Namespace) -> None:
    from adapters.console import status
    from adapters.store.gc import collect

    with status("looking for servers that still run"):
        collected = collect(store, dry_run=args.dry_run)
    if args.json:
        _print_json({"dry_run": args.dry_run, "removed": collected.removed, "kept": collected.kept})
        return
    for what in collected.removed:
        print(f"{'would remove' if args.dry_run else 'removed'} {what}")
    for what in collected.kept:
        print(f"kept {what}")
    if not collected.removed:
        print("nothing to remove")


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _note_missing_base(ids: str) -> None:
    _say(f"note: the base model of {ids} is not on this machine, so that only what needs none was checked")


if __name__ == "__main__":
    sys.exit(main())
