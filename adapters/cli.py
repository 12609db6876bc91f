"""The command line of the store: `adapters list | show | ... | gc | base`. Parses, calls, prints; no logic."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from adapters.console import Parser, run_parsed, status, table
from adapters.errors import ConfigError
from adapters.models import base_cli
from adapters.settings import store_directory
from adapters.store import describe
from adapters.store.audit import FIELDS, cells
from adapters.store.store import Store
from adapters.store.version import Version

EXAMPLES = """examples:
  adapters list                               every version of every adapter; * marks the promoted one
  adapters promote formal@2 --percent 10      a tenth of the requests for `formal` goes to version 2
  adapters promote formal@2                   all of them, from the next request on
  adapters rollback formal                    promote again what `formal` meant before
  adapters import ./my-lora --name mine       publish a PEFT LoRA that was trained elsewhere
  adapters base list                          the base models, and which one this machine takes

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
    about = "List, check, promote, move and remove adapters."
    parser = Parser(prog="adapters", description=about, epilog=EXAMPLES)
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
        )
        added.set_defaults(command=command)
        return added

    _add_readers(add)
    _add_pointers(add)
    _add_movers(add)
    base_cli.add(commands, shared)
    return parser


def _add_readers(add: Callable[..., argparse.ArgumentParser]) -> None:
    add("list", _list, "every version of every adapter", "adapters list", "adapters list --json | jq '.[].id'")
    show = add("show", _show, "the manifest of one version", "adapters show formal", "adapters show formal@candidate")
    show.add_argument("reference", metavar="NAME[@N]")
    audit = add("audit", _audit, "who changed what, the newest last", "adapters audit --adapter formal --last 50")
    audit.add_argument("--last", type=int, default=20, metavar="N", help="how many entries (default: %(default)s)")
    audit.add_argument("--adapter", metavar="NAME[@N]", help="only entries about this adapter or version")
    about = "check every version and list what is damaged or left over; changes nothing"
    add("verify", _verify, about, "adapters verify", "adapters verify --json || echo damaged")


def _add_pointers(add: Callable[..., argparse.ArgumentParser]) -> None:
    promote = add(
        "promote",
        _promote,
        "make NAME mean this version, if it passes validation and passed its evaluation",
        "adapters promote formal@2",
        "adapters promote formal@candidate --percent 10    # a canary; the next promote or rollback ends it",
        "adapters promote formal@2 --force                 # warn instead of refusing",
    )
    promote.add_argument("reference", metavar="NAME@N")
    promote.add_argument("--percent", type=int, metavar="P", help="only for this share of the requests, 1 to 99")
    promote.add_argument("--force", action="store_true", help="warn instead of refusing")
    promote.add_argument(
        "--base",
        metavar="MODEL",
        help="name, directory or hub id of the base model to check against (default: its own)",
    )
    about = "end the canary if there is one, else promote the version that was promoted before"
    rollback = add("rollback", _rollback, about, "adapters rollback formal")
    rollback.add_argument("name", metavar="NAME")
    examples = ("adapters label formal@3 candidate", "adapters label formal candidate --remove")
    label = add("label", _label, "make NAME@LABEL mean this version", *examples)
    label.add_argument("reference", metavar="NAME@N")
    label.add_argument("label", metavar="LABEL")
    label.add_argument("--remove", action="store_true", help="remove the label from NAME")
    retire = add(
        "retire",
        _retire,
        "stop serving a version, or every version of a name",
        "adapters retire formal@1",
        "adapters retire formal           # the whole name",
        "adapters retire formal --undo    # works until gc has removed it",
    )
    retire.add_argument("reference", metavar="NAME[@N]")
    retire.add_argument("--undo", action="store_true", help="bring back what gc has not removed; promotes nothing")


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
        "--base", metavar="MODEL", help="name, directory or hub id of its base model (default: the one that DIR names)"
    )
    importing.add_argument("--licence", help="licence of its training data (default: the one in DIR, else unstated)")
    about = "write a version to a new directory, for PEFT or import"
    export = add("export", _export, about, "adapters export formal@2 ./formal-2")
    export.add_argument("reference", metavar="NAME@N")
    export.add_argument("directory", metavar="DIR", type=Path)
    about = "remove retired versions that no server may have loaded, and leftovers"
    gc = add("gc", _gc, about, "adapters gc --dry-run", "adapters gc")
    gc.add_argument("--dry-run", action="store_true", help="list what would be removed, and remove nothing")


def _list(store: Store, args: argparse.Namespace) -> None:
    rows = list(describe.rows(store))
    drawn = table(describe.HEADERS, map(describe.cells, rows))
    text = drawn if rows else "no adapters yet: `trainer sft --data FILE --name NAME` makes one"
    _print(args, rows, f"store: {store.directory}\n{text}")


def _show(store: Store, args: argparse.Namespace) -> None:
    version = store.resolve(args.reference)
    status = describe.status(version, store.pointers(version.name))
    described = {"path": str(version.path)} | status | version.manifest().model_dump(mode="json")
    _print(args, described, table(("field", "value"), describe.fields(described)))


def _audit(store: Store, args: argparse.Namespace) -> None:
    entries = store.audit.entries(args.last, args.adapter)
    drawn = table((*FIELDS, "details"), map(cells, entries))
    _print(args, entries, drawn if entries else f"no entries in {store.audit.file}")


def _verify(store: Store, args: argparse.Namespace) -> int:
    from adapters.models.promotion import own_base
    from adapters.models.validate import reasons_against
    from adapters.store.gc import verify

    without_base: list[str] = []

    def reasons(version: Version) -> list[str]:
        show(f"checking {version.id}")
        base = own_base(version)
        if base is None:
            without_base.append(version.id)
        return reasons_against(version.path, base)

    with status("checking the store") as show:
        findings = verify(store, reasons)
    left_over = sum(finding.removable for finding in findings)
    damaged = len(findings) - left_over
    checked = sum(len(store.versions(name)) for name in store.names())
    rows = [
        ("left over" if f.removable else "damaged", os.path.relpath(f.path, store.directory), f.what) for f in findings
    ]
    mend = "; `adapters gc` removes what is left over" if left_over else ""
    lines = [f"store: {store.directory}", *([table(("finding", "path", "problem"), rows)] if rows else [])]
    lines.append(f"{checked} versions, {damaged} damaged, {left_over} left over{mend}")
    found = [{"path": str(f.path), "what": f.what, "removable": f.removable} for f in findings]
    _print(args, {"versions": checked, "without_base": without_base, "findings": found}, "\n".join(lines))
    if without_base:
        more = f" and {len(without_base) - 3} more" if len(without_base) > 3 else ""
        _note_missing_base(", ".join(without_base[:3]) + more)
    return 1 if damaged else 0


def _promote(store: Store, args: argparse.Namespace) -> None:
    from adapters.models import base_models, promotion

    version = promotion.find(store, args.reference)
    base = base_models.find(args.base, _log) if args.base else promotion.own_base(version)
    overridden = promotion.reasons_not_to(version, base) if args.force else []
    version = promotion.promote(store, version.id, base, force=args.force, percent=args.percent)
    for reason in overridden:
        _log(f"warning: {version.id} is promoted although {reason}")
    if base is None:
        _note_missing_base(version.id)
    text = f"{version.name} now means {version.id}"
    if args.percent is not None:
        text = f"{args.percent}% of the requests for {version.name} now go to {version.id}"
    checked = {"checked_on": base and base.name, "overridden": overridden}
    _print(args, describe.name_status(store, version.name) | checked, text)


def _rollback(store: Store, args: argparse.Namespace) -> None:
    version = store.roll_back(args.name)
    _print(args, describe.name_status(store, version.name), f"{version.name} now means {version.id}")


def _label(store: Store, args: argparse.Namespace) -> None:
    name, at, _ = args.reference.partition("@")
    if args.remove and at:
        raise ConfigError(f"a label is removed from a name, got {args.reference!r}", f"give {name}")
    if args.remove:
        store.remove_label(name, args.label)
        text = f"removed the label {args.label} from {name}"
    else:
        text = f"{name}@{args.label} now means {store.label(args.reference, args.label).id}"
    _print(args, describe.name_status(store, name), text)


def _retire(store: Store, args: argparse.Namespace) -> None:
    versions = store.bring_back(args.reference) if args.undo else store.retire(args.reference)
    name, ids = versions[0].name, ", ".join(version.id for version in versions)
    text = f"retired {ids}; `adapters retire {args.reference} --undo` brings back what gc has not removed"
    if args.undo:
        promoted = store.promoted(name)
        means = f"{name} means {promoted.id}" if promoted else f"{name} has no promoted version: `adapters promote`"
        text = f"brought back {ids}; {means}"
    _print(args, describe.name_status(store, name), text)


def _import(store: Store, args: argparse.Namespace) -> None:
    from adapters.models import base_models, transfer

    base = base_models.find(args.base, _log) if args.base else transfer.base_of(args.directory)
    version = transfer.import_(store, args.directory, args.name, base, args.licence)
    text = f"published {version.id} in {version.path}, on {base.name}\n{describe.after_publish(store, version)}"
    published = {"id": version.id, "path": str(version.path)}
    _print(args, published | describe.name_status(store, version.name), text)


def _export(store: Store, args: argparse.Namespace) -> None:
    from adapters.models.transfer import export

    version = store.resolve(args.reference)
    export(version, args.directory)
    written = {"id": version.id, "directory": str(args.directory.absolute())}
    _print(args, written, f"wrote {version.id} to {args.directory}")


def _gc(store: Store, args: argparse.Namespace) -> None:
    from adapters.store.gc import collect

    with status("looking for running servers"):
        collected = collect(store, dry_run=args.dry_run)
    lines = [f"{'would remove' if args.dry_run else 'removed'} {what}" for what in collected.removed]
    lines += [f"kept {what}" for what in collected.kept]
    lines += [] if collected.removed else ["nothing to remove"]
    _print(args, {"dry_run": args.dry_run, "removed": collected.removed, "kept": collected.kept}, "\n".join(lines))


def _print(args: argparse.Namespace, value: object, text: str) -> None:
    print(json.dumps(value, indent=2) if args.json else text)


def _log(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _note_missing_base(ids: str) -> None:
    _log(f"note: the base model of {ids} is not on this machine; only checks that need no base model ran")


if __name__ == "__main__":
    sys.exit(main())
