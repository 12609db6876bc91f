"""Flags and environment -> one frozen Settings, read once: no other module of the page reads the environment.

This file imports neither Gradio nor OpenAI's client, so that `ui --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from adapters.console import Parser
from adapters.errors import ConfigError
from adapters.options import add_flags, from_flags
from adapters.settings import is_loopback, kept_directory, store_directory

EXAMPLES = """
examples:
  ui                                            the server on this machine, the page at http://127.0.0.1:7860
  ui --server http://127.0.0.1:8080 --port 7861
  ui --kept ~/mail/kept                         where the emails that you keep are written
  MAILWRIGHT_API_KEY=... ui --server https://mail.example.org/v1
"""


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


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True)

    server: Annotated[str, AfterValidator(_address)] = Field(
        default="http://127.0.0.1:8000/v1",
        description="address of the server, or MAILWRIGHT_SERVER",
        json_schema_extra={"environment": "MAILWRIGHT_SERVER"},
    )
    host: str = Field(default="127.0.0.1", description="address to bind; any but loopback needs --allow-everyone")
    port: int = Field(default=7860, ge=1, le=65535, description="port to bind")
    kept: Annotated[Path, BeforeValidator(kept_directory)] = Field(
        default_factory=kept_directory,
        description="kept emails (default: MAILWRIGHT_KEPT, else the user's data folder)",
    )
    store: Annotated[Path, BeforeValidator(store_directory)] = Field(
        default_factory=store_directory,
        description="the server's store, named in the training command (default: as the server's)",
    )
    allow_everyone: bool = Field(
        default=False, description="everyone who reaches --host may use the page, with its API key"
    )
    debug: bool = Field(default=False, description="show tracebacks")
    # OpenAI's client needs some key, also for a server that asks for none.
    api_key: str = Field(
        default="none", repr=False, json_schema_extra={"flag": False, "environment": "MAILWRIGHT_API_KEY"}
    )


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings of the command line and the environment.

    Raises:
        ConfigError: a flag or variable that cannot work, or a host that would let others in.
        SystemExit: after --help.
    """
    parser = Parser(
        prog="ui",
        description="Compare the base model and a voice side by side, in the browser.",
        epilog=EXAMPLES,
        allow_abbrev=False,
    )
    add_flags(parser, Settings)
    settings = from_flags(Settings, parser.parse_args(arguments), environment)
    if not settings.allow_everyone and not is_loopback(settings.host):
        raise ConfigError(
            f"--host {settings.host} would let other machines use this page, and the API key that it holds",
            "keep --host 127.0.0.1, or add --allow-everyone if that is what you want",
        )
    return settings
