"""Where the store, the kept emails and the cache are: the settings that trainer, server and ui share.

A flag wins over the environment, the environment over the default. This file does not know what lies in any of them.
"""

from __future__ import annotations

import ipaddress
import os
from functools import lru_cache
from pathlib import Path

from adapters.errors import ConfigError


def store_directory(flag: str | None = None) -> Path:
    """`--store`, else `MAILWRIGHT_STORE`, else the default; absolute, may not exist yet."""
    chosen = flag or os.environ.get("MAILWRIGHT_STORE")
    return absolute(chosen) if chosen else default_store_directory()


def default_store_directory() -> Path:
    """`$XDG_DATA_HOME/mailwright/store`."""
    return _in_home("XDG_DATA_HOME", "~/.local/share", "store")


def kept_directory(flag: str | None = None) -> Path:
    """`--kept`, else `MAILWRIGHT_KEPT`, else `$XDG_DATA_HOME/mailwright/kept`: emails kept on the comparison page."""
    chosen = flag or os.environ.get("MAILWRIGHT_KEPT")
    return absolute(chosen) if chosen else _in_home("XDG_DATA_HOME", "~/.local/share", "kept")


def cache_directory() -> Path:
    """`MAILWRIGHT_CACHE`, else `$XDG_CACHE_HOME/mailwright`: base models and past estimates, all of which may go."""
    chosen = os.environ.get("MAILWRIGHT_CACHE")
    return absolute(chosen) if chosen else _in_home("XDG_CACHE_HOME", "~/.cache", "")


def _in_home(variable: str, default: str, name: str) -> Path:
    return absolute(Path(os.environ.get(variable) or default, "mailwright", name))


def absolute(path: str | Path) -> Path:
    """Raises:
    ConfigError: `~` or `~name` of a user whose home directory is not known.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as exc:
        raise ConfigError(
            f"the home directory in {str(path)!r} is not known", "give the whole path, without ~"
        ) from exc


@lru_cache(maxsize=128)
def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what binds `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def silence_telemetry() -> None:
    """Turn the telemetry of our dependencies off before any of them is imported: this tool reads people's mail."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }.items():
        os.environ.setdefault(name, value)
