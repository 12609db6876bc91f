"""Files that a command writes where the person asked for them. It knows no command and nothing of what is in them."""

from __future__ import annotations

from pathlib import Path

from adapters.errors import ConfigError
from trainer.progress import say


def check_directory(file: Path) -> None:
    """Raise ConfigError, before anything slow, if there is no directory to write `file` into."""
    if not file.parent.is_dir():
        raise ConfigError(f"{file} cannot be written: there is no directory {file.parent}", "make it first")


def write(file: Path, content: str | bytes) -> None:
    """Write it whole, a text as UTF-8, and say so.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as exc:
        raise ConfigError(f"{file} cannot be written ({exc.strerror})", "give another file") from exc
    say(f"wrote {file}")
