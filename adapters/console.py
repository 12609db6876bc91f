"""What every command line shares: errors as `error:` and `hint:`, exit statuses, tables and a status line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from adapters.errors import ConfigError, MailwrightError

Command = Callable[[argparse.Namespace], int | None]
UNLIMITED_COLUMNS = 100_000


def run(command: Callable[[], int | None], debug: bool) -> int:
    """The exit status: that of `command`, 2 after a MailwrightError, 130 after Ctrl-C, 141 after a closed pipe."""
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except MailwrightError as exc:
        if debug:
            raise
        complain(str(exc), exc.hint)
        return 2
    except BrokenPipeError:
        # `adapters list | head -1`. Without this the flush at exit fails too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("stopped; nothing was left half done", file=sys.stderr)
        return 130


def run_parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None, command: Command) -> int:
    given = sys.argv[1:] if argv is None else argv
    return run(lambda: command(parser.parse_args(given)), "--debug" in given)


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
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The rows in columns under their headers. A terminal wraps long cells; a file or pipe gets one line a row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*headers, box=None, pad_edge=False, header_style="none")
    for column in drawn.columns:
        column.overflow = "fold"
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console(color_system=None, width=None if sys.stdout.isatty() else UNLIMITED_COLUMNS)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


@contextmanager
def status(doing: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done and for how long; gives a function that changes the text."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda text: progress.update(task, description=text)
