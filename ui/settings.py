"""Flags and environment -> one frozen Settings, read once: no other module of the page reads the environment.

This file imports neither Gradio nor OpenAI's client, so that `ui --help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from adapters.console import Parser, port
from adapters.errors import ConfigError
from adapters.settings import is_loopback, kept_directory, store_directory

EXAMPLES = """
examples:
  ui                                            the server on this machine, the page at http://127.0.0.1:7860
  ui --server http://127.0.0.1:8080 --port 7861
  ui --kept ~/mail/kept                         where the emails that you keep are written
  MAILWRIGHT_API_KEY=... ui --server https://mail.example.org/v1
"""


@dataclass(frozen=True)
class Settings:
    server: str
    """The server's address, ending in /v1."""
    api_key: str = field(repr=False)
    host: str
    port: int
    kept: Path
    """The folder of kept examples; may not exist yet."""
    store: Path
    """Where the server's voices are; used only to say how to train one again."""
    debug: bool


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings that the command line and the environment give together.

    Raises:
        ConfigError: a flag or variable that cannot work, or a host that would let others in.
        SystemExit: after --help.
    """
    flags = _parser().parse_args(arguments)
    if not flags.allow_everyone and not is_loopback(flags.host):
        raise ConfigError(
            f"--host {flags.host} would let other machines use this page, and with it the API key that the page holds",
            "keep --host 127.0.0.1, or add --allow-everyone if that is what you want",
        )
    return Settings(
        server=_address(flags.server or environment.get("MAILWRIGHT_SERVER") or "http://127.0.0.1:8000/v1"),
        api_key=environment.get("MAILWRIGHT_API_KEY") or "none",
        host=flags.host,
        port=flags.port,
        kept=kept_directory(flags.kept),
        store=store_directory(flags.store),
        debug=flags.debug,
    )


def _address(text: str) -> str:
    """`http://host:port`, with or without /v1 behind it, as the address that ends in /v1."""
    if "@" in text:
        raise ConfigError("the server's address has a user or password in it", "set MAILWRIGHT_API_KEY instead")
    try:
        parts = urlsplit(text.strip())
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ConfigError(f"{text!r} is not the address of a server", "give one like http://127.0.0.1:8000/v1")
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, f"{path}/v1", "", ""))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ui",
        description="Compare the base model and a voice side by side, in the browser.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--server", metavar="URL", help="(default: MAILWRIGHT_SERVER, else http://127.0.0.1:8000/v1)")
    add("--host", default="127.0.0.1", help="address to bind; any but loopback needs --allow-everyone (%(default)s)")
    add("--port", type=port, default=7860, help="port to bind (%(default)s)")
    add("--kept", metavar="DIR", help="kept emails (default: MAILWRIGHT_KEPT, else the user's data folder)")
    add("--store", metavar="DIR", help="the server's store, named in the training command (default: as the server's)")
    add("--allow-everyone", action="store_true", help="whoever reaches --host may use the page, with its API key")
    add("--debug", action="store_true", help="show tracebacks")
    return parser
