"""The directories that trainer, server and ui share: store, kept emails, cache.

A flag wins over the environment, the environment over the default.
"""

from __future__ import annotations

import ipaddress
import os
from functools import lru_cache
from pathlib import Path

from adapters.errors import ConfigError


def store_directory(flag: str | None = None) -> Path:
    """`--store`, else `MAILWRIGHT_STORE`, else `$XDG_DATA_HOME/mailwright/store`; absolute, may not exist yet."""
    return absolute(flag or os.environ.get("MAILWRIGHT_STORE") or default_store_directory())


def default_store_directory() -> Path:
    return _in_home("XDG_DATA_HOME", "~/.local/share", "store")


def kept_directory(flag: str | None = None) -> Path:
    """`--kept`, else `MAILWRIGHT_KEPT`, else `$XDG_DATA_HOME/mailwright/kept`: emails kept on the comparison page."""
    return absolute(flag or os.environ.get("MAILWRIGHT_KEPT") or _in_home("XDG_DATA_HOME", "~/.local/share", "kept"))


def cache_directory() -> Path:
    """`MAILWRIGHT_CACHE`, else `$XDG_CACHE_HOME/mailwright`: base models and past estimates; safe to delete."""
    return absolute(os.environ.get("MAILWRIGHT_CACHE") or _in_home("XDG_CACHE_HOME", "~/.cache", ""))


def _in_home(variable: str, default: str, name: str) -> Path:
    return absolute(Path(os.environ.get(variable) or default, "mailwright", name))


def absolute(path: str | Path) -> Path:
    """The path without `~`; raises ConfigError for a user whose home directory is not known."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as exc:
        raise ConfigError(
            f"the home directory in {str(path)!r} is not known", "give the whole path, without ~"
        ) from exc


@lru_cache(maxsize=128)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def silence_telemetry() -> None:
    """Turn off the telemetry of our dependencies; call it before importing any of them."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }.items():
        os.environ.setdefault(name, value)
