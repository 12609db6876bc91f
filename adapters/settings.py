"""Where the store and the cache are: the settings that trainer, server and ui share.

A flag wins over the environment, the environment over the default. This file does not know what lies in either place.
"""

from __future__ import annotations

import os
from pathlib import Path


def store_directory(flag: str | None = None) -> Path:
    """`--store`, else `MAILWRIGHT_STORE`, else `$XDG_DATA_HOME/mailwright/store`; absolute, may not exist yet."""
    chosen = flag or os.environ.get("MAILWRIGHT_STORE")
    if not chosen:
        chosen = f"{os.environ.get('XDG_DATA_HOME') or '~/.local/share'}/mailwright/store"
    return Path(chosen).expanduser().absolute()


def cache_directory() -> Path:
    """`MAILWRIGHT_CACHE`, else `$XDG_CACHE_HOME/mailwright`: base models, all of which can be made again."""
    chosen = os.environ.get("MAILWRIGHT_CACHE")
    if not chosen:
        chosen = f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/mailwright"
    return Path(chosen).expanduser().absolute()


def silence_telemetry() -> None:
    """Turn the telemetry of our dependencies off before any of them is imported: this tool reads people's mail."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }.items():
        os.environ.setdefault(name, value)
