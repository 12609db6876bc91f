"""What every command line shares: errors as `error:` and `hint:`, exit statuses, a status line. It knows no command."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from adapters.errors import ConfigError, MailwrightError

Command = Callable[[argparse.Namespace], int | None]
STATUS_AFTER_SECONDS = 2.0
"""A status line appears only for what takes longer."""


def run(command: Callable[[], int | None], debug: bool) -> int:
    """Exit status: what `command` answers, 2 after an error that the user can mend, 130 after Ctrl-C.

    If nobody reads on, as in `adapters list | head -1`, it is 141, what the shell gives a program that SIGPIPE ends.
    """
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
        # So that the flush at exit does not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("stopped; nothing was left half done", file=sys.stderr)
        return 130


def run_parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None, command: Command) -> int:
    """`run` with the arguments that `parser` makes of `argv`, else of the command line."""
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


@contextmanager
def status(doing: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done and for how long; gives a function that changes the text."""
    from tqdm import tqdm

    bar = tqdm(desc=doing, bar_format="{desc} ({elapsed})", delay=STATUS_AFTER_SECONDS, disable=None, leave=False)
    ended = threading.Event()

    def tick() -> None:
        pause = STATUS_AFTER_SECONDS
        while not ended.wait(pause):
            bar.refresh()
            pause = 0.5

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield lambda text: bar.set_description_str(text, refresh=False)
    finally:
        ended.set()
        ticking.join()
        bar.close()
