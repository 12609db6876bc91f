"""What every command line shares: errors as `error:` and `hint:`, exit statuses, tables and a status line."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from adapters.errors import ConfigError, MailwrightError

Command = Callable[[argparse.Namespace], int | None]
# A file or a pipe gets one line a row, however long.
PIPED_COLUMNS = 100_000


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
    """Raises ConfigError where argparse would print its usage and exit; texts of the help keep their line breaks."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, f"{self.prog} --help shows every flag")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The rows in columns under their headers, numbers to the right. A terminal wraps long cells; nothing is cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, header in enumerate(headers):
        numbers = all(_is_number(row[number]) for row in cells if number < len(row))
        grid.add_column(Text(header), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        # As Text, because rich would read a cell such as "[EMAIL]" as markup.
        grid.add_row(*map(Text, row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_COLUMNS
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _is_number(cell: str) -> bool:
    """Missing numbers count too: an empty cell, or a dash."""
    plain = cell.strip(" $%").replace(",", "").replace("\N{MINUS SIGN}", "-")
    try:
        float(plain or 0)
    except ValueError:
        return plain in ("-", "–")
    return True


@contextmanager
def status(doing: str) -> Iterator[Callable[[str], None]]:
    """Show a text and the elapsed time on a terminal; call what it gives with another text."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        # What a command prints goes to its stdout.
        redirect_stdout=False,
        disable=not sys.stderr.isatty(),
    )
    with progress:
        task = progress.add_task(doing, total=None)
        yield lambda text: progress.update(task, description=text)


@contextmanager
def byte_bar(doing: str, total: int, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """On a terminal a bar with the bytes done, in all and a second, and the time left; call what it gives with more."""
    from tqdm import tqdm

    form = (
        f"{{desc}} {{percentage:3.0f}} % |{{bar}}| {{n_fmt}} of {{total_fmt}}{unit}, {{rate_fmt}}, {{remaining}} left"
    )
    with tqdm(
        total=total,
        desc=doing,
        unit=unit,
        unit_scale=True,
        bar_format=form,
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        yield progress.update
