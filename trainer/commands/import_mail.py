"""`trainer import`: the command line of trainer/mail/importer.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError
from adapters.store.manifest import check_name
from trainer.console import bar, check_new_file, log

if TYPE_CHECKING:
    from trainer.mail.importer import Describe, ImportReport
    from trainer.mail.mailboxes import Advance

EXAMPLES = """examples:
  trainer import ~/Mail/Sent.mbox --name anna                       writes anna.jsonl
  trainer import ~/Maildir --name anna --me anna@berg.example --me a.berg@work.example
  trainer import exported_emails/ --name anna --privacy mask --names
  trainer import mails.csv --name anna --columns body=Text,subject=Betreff,to=An
  trainer import Sent.mbox --name anna --describe-with http://127.0.0.1:8000/v1 --describe-model qwen3-4b
  trainer sft --data anna.jsonl --name anna                         then teaches the voice
"""
HELP = """Turn your sent emails into examples that `trainer sft` learns from.

PATH is an mbox, a Maildir, an .eml file, a folder of these, a table (CSV, TSV, JSON, JSON lines, Parquet), or JSON
lines in OpenAI's fine-tuning format. An email becomes an example if it is from --me and was written by a person: quotes
and what follows the name are cut off, attachments are not opened. Its task is built from recipient, subject and the
facts found in it; for a reply, the message answered is part of the task.

Addresses, phone numbers, links and bank numbers are replaced by invented ones, the same throughout a thread (--privacy
fake): an adapter can repeat what it was trained on to every user. --names replaces people's names too."""
# Lines about single messages on the terminal.
MAX_MESSAGE_LINES = 100


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "import",
        parents=[shared],
        help="turn a mailbox or a table of emails into examples",
        description=HELP,
        epilog=EXAMPLES,
    )
    option = parser.add_argument
    option("path", metavar="PATH", type=Path)
    option("--name", required=True, help="the voice's name; the examples go to NAME.jsonl")
    option("--me", metavar="ADDRESS", action="append", default=[], help="whose emails; may be given several times")
    option("--output", metavar="FILE", type=Path, help="where the examples go (default: NAME.jsonl)")
    option("--force", action="store_true", help="overwrite FILE")
    option(
        "--privacy",
        choices=("keep", "mask", "fake"),
        default="fake",
        help="personal data: leave it, replace it by [EMAIL] and the like, or by invented values (default: fake)",
    )
    option("--names", action="store_true", help="treat names of people as personal data too")
    option("--columns", metavar="KEY=COLUMN,...", help="columns of a table: body, subject, to, from, date, thread")
    option(
        "--describe-with", metavar="URL", help="an OpenAI-compatible endpoint that writes the tasks; it gets your mail"
    )
    option("--describe-model", metavar="MODEL", help="the model at that endpoint")
    option("--seed", metavar="N", type=int, default=0, help="seed of the phrasings and the invented values")
    parser.set_defaults(command=_import)


def _import(args: argparse.Namespace) -> None:
    from trainer.data.examples import write_rows
    from trainer.mail import importer, tables

    check_name(args.name)
    output = args.output or Path(f"{args.name}.jsonl")
    check_new_file(output, args.force)
    columns = tables.parse_columns(args.columns) if args.columns else {}
    options = importer.Options(tuple(args.me), columns, args.privacy, args.names, args.seed, _describe(args))
    rows, report = importer.read_mail(args.path, options, _progress)
    write_rows(rows, output)
    messages = [*report.problems, *report.notes]
    for line in messages[:MAX_MESSAGE_LINES]:
        log(line)
    if len(messages) > MAX_MESSAGE_LINES:
        log(f"and {len(messages) - MAX_MESSAGE_LINES} more; --json lists all")
    if args.json:
        print(json.dumps(report.as_dict() | {"output": str(output)}, indent=2, ensure_ascii=False))
    else:
        print("\n".join([*_sentences(report, args), f"next: trainer check {output}"]))


def _describe(args: argparse.Namespace) -> Describe | None:
    if bool(args.describe_with) != bool(args.describe_model):
        raise ConfigError("--describe-with and --describe-model need each other", "give both, or neither")
    if not args.describe_with:
        return None
    from trainer.mail.task_model import describer

    return describer(args.describe_with, args.describe_model, log)


def _progress(what: str, total: int, _unit: str) -> AbstractContextManager[Advance]:
    return bar(what, total)


def _sentences(report: ImportReport, args: argparse.Namespace) -> Iterator[str]:
    if report.me:
        guessed = ", the likeliest; --me ADDRESS names another, or more" if report.me_guessed else ""
        yield f"emails of {', '.join(report.me)}{guessed}"
    yield f"read {report.read}, used {report.used} in {report.threads} threads, {report.replies} of them replies"
    for reason, count in report.left_out.most_common():
        yield f"left out {count}: {reason}"
    if args.describe_with:
        yield f"{report.described} tasks were written by {args.describe_model}, the others by rule"
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(report.personal.items())) or "none found"
    what = {"keep": "kept, not looked for", "mask": f"masked: {found}", "fake": f"replaced by invented values: {found}"}
    yield f"personal data {what[args.privacy]}" + ("" if args.names or args.privacy == "keep" else "; names stay")
