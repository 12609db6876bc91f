"""The command line of the trainer; every command has its own file in trainer/commands/.

Heavy libraries are imported when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from adapters.console import Parser, run_parsed
from adapters.models import catalog
from trainer.commands import check, compare_starts, estimate, evaluate, import_mail, sft, sweep

EXAMPLES = """examples:
  trainer import ~/Mail/Sent.mbox --name anna
  trainer check anna.jsonl --fix cleaned.jsonl
  trainer sweep --data anna.jsonl --write anna.yaml
  trainer compare-starts --data anna.jsonl --minutes 5
  trainer estimate --data my_email_dataset.json
  trainer sft --data my_email_dataset.json --name my_email_assistant
  trainer sft --data trainer/data/shipped/voices/formal.jsonl --name formal --recipe quick
  trainer evaluate formal
"""


def main(argv: Sequence[str] | None = None) -> int:
    return run_parsed(_parser(), argv, lambda args: args.command(args))


def _parser() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    based = Parser(add_help=False, parents=[common])
    based.add_argument(
        "--base",
        metavar="MODEL",
        help="name (`adapters base list`), directory or hub id of the base model (default: MAILWRIGHT_BASE, else that "
        f"of the store's voices, else {catalog.HELP}; evaluate: the adapter's own)",
    )
    stored = Parser(add_help=False, parents=[based])
    stored.add_argument(
        "--store", metavar="DIR", help="the store (default: MAILWRIGHT_STORE, else ~/.local/share/mailwright/store)"
    )
    parser = Parser(prog="trainer", description="Teach and evaluate voices.", epilog=EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sft.add(commands, stored)
    estimate.add(commands, based)
    import_mail.add(commands, common)
    check.add(commands, based)
    sweep.add(commands, based)
    compare_starts.add(commands, based)
    evaluate.add(commands, stored)
    return parser


if __name__ == "__main__":
    sys.exit(main())
