"""`adapters base list | show | fetch`: the base models of the catalog. Parses, calls, prints."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from adapters.console import Parser, table
from adapters.errors import ConfigError
from adapters.models import base_models, catalog, gpu
from adapters.models.catalog import Entry
from adapters.settings import store_directory

EXAMPLES = """examples:
  adapters base list                          what there is, what is here, and what this machine takes
  adapters base show qwen2.5-coder-1.5b-instruct
  adapters base fetch smollm2-135m-instruct   fetch and convert it now
  adapters base fetch Qwen/Qwen3-0.6B         any model of the hub works too
  MAILWRIGHT_MIRROR=/media/usb adapters base fetch qwen2.5-coder-1.5b-instruct
                                              without network: from a directory with files named by their SHA-256
"""


def add(commands: Any, shared: Parser) -> None:
    about = "the base models: what there is, what is here, what this machine takes"
    base = commands.add_parser("base", help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=EXAMPLES)
    actions = base.add_subparsers(required=True, metavar="ACTION")
    for name, command, help_ in (
        ("list", _list, "every base model of the catalog"),
        ("show", _show, "one of them: size, licence, where it comes from, memory"),
        ("fetch", _fetch, "fetch one now, and convert it"),
    ):
        action = actions.add_parser(
            name, parents=[shared], help=help_, description=f"{help_[0].upper()}{help_[1:]}.", epilog=EXAMPLES
        )
        action.set_defaults(command=command)
        if name != "list":
            action.add_argument("name", metavar="NAME")


def _list(_: object, args: Namespace) -> None:
    choice = _choice(args)
    rows = [_described(entry) for entry in catalog.entries().values()]
    headers = ("", "base model", "parameters", "download", "serve", "train", "licence", "here")
    cells = [
        (
            "*" if row["name"] == choice.base else "",
            row["name"],
            f"{row['parameters'] / 1e6:,.0f} M",
            _gigabytes(row["download_bytes"]),
            _gigabytes(row["memory"]["serve"]),
            _gigabytes(row["memory"]["train"]),
            row["licence"],
            "yes" if row["here"] else "no",
        )
        for row in rows
    ]
    text = f"{table(headers, cells)}\n* without --base: {choice}"
    _print(args, {"choice": choice.base, "why": choice.why, "models": rows}, text)


def _show(_: object, args: Namespace) -> None:
    row, choice = _described(_entry(args.name)), _choice(args)
    row |= {"choice": choice.base, "why": choice.why}
    measured = "measured" if row["memory"]["measured"] else "estimated"
    fields = [
        ("name", row["name"]),
        ("title", f"{row['title']}: {row['about']}"),
        ("parameters", f"{row['parameters']:,}"),
        ("context", f"{row['context']:,} tokens"),
        ("architecture", row["architecture"]),
        ("licence", row["licence"]),
        ("made from", row["upstream"]),
        ("download", f"{_gigabytes(row['download_bytes'])}, {_gigabytes(row['bf16_bytes'])} in the cache"),
        ("comes from", "\n".join(row["sources"])),
        ("identity", row["identity"]),
        ("memory", f"{_gigabytes(row['memory']['serve'])} to serve, {_gigabytes(row['memory']['train'])} to train"),
        ("", f"({measured}, on a CPU)"),
        ("here", row["path"] or f"no; `adapters base fetch {row['name']}` fetches it"),
        ("without --base", str(choice)),
    ]
    _print(args, row, table(("field", "value"), fields))


def _fetch(_: object, args: Namespace) -> None:
    entry = catalog.entries().get(args.name)
    if entry and catalog.free_memory() < entry.memory.serve:
        _log(f"warning: serving {entry.name} takes {_gigabytes(entry.memory.serve)} of memory, and less is free")
    found = base_models.find(args.name, _log)
    described = {"name": found.name, "path": str(found.path), "fingerprint": found.fingerprint}
    _print(args, described, f"{found.name} is in {found.path}\nfingerprint {found.fingerprint}")


def _entry(name: str) -> Entry:
    if entry := catalog.of_model(name):
        return entry
    raise ConfigError(f"the catalog has no base model {name!r}", f"it has {', '.join(catalog.entries())}")


def _described(entry: Entry) -> dict[str, Any]:
    here = base_models.known(entry.name)
    fields = entry.model_dump(include=set("name title about upstream parameters context licence architecture".split()))
    return fields | {
        "memory": entry.memory.model_dump(),
        "download_bytes": entry.file.size if entry.file else entry.bf16_bytes,
        "bf16_bytes": entry.bf16_bytes,
        "sources": _sources(entry),
        "identity": _identity(entry),
        "here": here is not None,
        "path": here and str(here.path),
    }


def _sources(entry: Entry) -> list[str]:
    if not entry.file:
        return [f"the hub's {entry.repo}"]
    found = [f"MAILWRIGHT_MIRROR, a directory or URL that has it as {entry.file.sha256}"]
    if entry.file.hub:
        found.append(f"the hub's {entry.file.hub}, {entry.file.name}")
    if wheels := entry.file.wheels:
        first, *_, last = (*wheels.requirements, wheels.requirements[-1])
        found.append(
            f"pip: {first}" if first == last else f"pip: {first} to {last} ({len(wheels.requirements)} wheels)"
        )
    return found


def _identity(entry: Entry) -> str:
    if entry.file:
        return f"SHA-256 {entry.file.sha256} of {entry.file.name}"
    return f"the hub's own revision ({entry.revision or 'none is pinned: the newest, unchecked by us'})"


def _choice(args: Namespace) -> catalog.Choice:
    return catalog.choose(bool(gpu.names()), Path(store_directory(args.store)))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _print(args: Namespace, value: object, text: str) -> None:
    print(json.dumps(value, indent=2) if args.json else text)


def _log(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
