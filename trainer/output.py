"""Files that a command writes where the person asked for them. It knows no command and nothing of what is in them."""

from __future__ import annotations

import os
from pathlib import Path

from adapters.errors import ConfigError
from trainer.console import say


def check_directory(file: Path) -> None:
    """Raise ConfigError, before anything slow, if there is no directory to write `file` into."""
    if not file.parent.is_dir():
        raise ConfigError(f"{file} cannot be written: there is no directory {file.parent}", "make it first")


def check_new_directory(directory: Path) -> None:
    """Raise ConfigError, before anything slow, if `directory` is there with something in it, or cannot be made."""
    check_directory(directory)
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise ConfigError(f"{directory} is there already and no directory", "name another one")
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"the directory {directory} is there already and not empty", "name another one, or empty it")
    if not os.access(directory.parent, os.W_OK):
        raise ConfigError(f"nothing can be written into {directory.parent}", "name a directory elsewhere")


def write(file: Path, content: str) -> None:
    """Write it whole, as UTF-8, and say so.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        file.write_bytes(content.encode())
    except OSError as exc:
        raise ConfigError(f"{file} cannot be written ({exc.strerror})", "give another file") from exc
    say(f"wrote {file}")
