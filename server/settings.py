"""Flags and environment -> one frozen Settings, read once: no other module of the server reads the environment.

Refuses what would make the server unsafe. Imports no vLLM, so that `server --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from adapters.console import Parser
from adapters.errors import ConfigError
from adapters.models import catalog
from adapters.models.validate import MAX_RANK
from adapters.options import add_flags, from_flags
from adapters.settings import is_loopback, store_directory
from adapters.store.manifest import DEFAULT_MAX_RANK
from server.api.keys import Keys

EXAMPLES = """
examples:
  server                                        the default base model and the default store
  server --base ~/models/SmolLM2-360M-Instruct --store ./store --port 8080
  server --no-int8                              a CPU: the base model as it was trained, slower
  server --kv-cache 8                           on a GPU: the rest of its memory stays free, to train beside it
  server keys create --name phone --models 'formal*,base'
                                                an API key; from then on every request needs one
  server --host 0.0.0.0                         reachable from other machines, which needs a key
  server -- --seed 7                            everything after -- goes to vLLM unchanged
"""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True)

    base: str | None = Field(
        default=None,
        description="a name (`adapters base list`), a directory or a hub id (default: MAILWRIGHT_BASE, else that of the"
        f" store's voices, else {catalog.HELP})",
    )
    store: Annotated[Path, BeforeValidator(store_directory)] = Field(
        default_factory=store_directory,
        description="where the adapters are (default: MAILWRIGHT_STORE, else the user's data folder)",
    )
    host: str = Field(default="127.0.0.1", description="address to bind; any but loopback needs an API key")
    port: int = Field(default=8000, ge=1, le=65535, description="port to bind")
    max_loras: int = Field(default=16, ge=1, description="adapters that one batch may mix")
    max_resident: int = Field(
        default=64,
        ge=1,
        validate_default=True,
        description="adapters kept in memory, at least --max-loras; on the default base model 10 MB each",
    )
    max_rank: int = Field(default=DEFAULT_MAX_RANK, ge=1, le=MAX_RANK, description="largest LoRA rank")
    max_model_len: int = Field(default=2048, ge=1, description="tokens of prompt and answer")
    kv_cache: float | None = Field(
        default=None,
        ge=0.01,
        le=4096,
        description="GiB for the attention cache (default: 1, on a GPU what is left of 92 % of its memory)",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    int8: bool | None = Field(
        default=None,
        description="on a CPU: 8-bit base weights, faster and a little less exact"
        " (default: for base models of a billion parameters and more)",
    )
    speculate: int = Field(
        default=0,
        ge=0,
        le=16,
        description="guess N tokens ahead from what an email repeats of its task, and check them in one step: faster"
        " for one reader, slower for many whose temperature is not 0; logit_bias is refused then",
    )
    shutdown_seconds: int = Field(
        default=30, ge=1, description="how long running answers may take to finish after SIGTERM or Ctrl-C"
    )
    max_queued: int = Field(default=256, ge=1, description="requests being answered or waiting; more get status 503")
    allow_fields: frozenset[str] = Field(
        default=frozenset(), description="vLLM's own request fields to allow, such as top_k,min_p (default: none)"
    )
    prepare: bool = Field(default=False, description="fetch and compile what a start needs, and end")
    debug: bool = Field(default=False, description="show tracebacks")
    # The operator's own key, which may do everything. It has no flag, because every user of the machine sees those.
    api_key: str | None = Field(
        default=None, repr=False, json_schema_extra={"flag": False, "environment": "MAILWRIGHT_API_KEY"}
    )
    vllm_arguments: tuple[str, ...] = Field(default=(), json_schema_extra={"flag": False})

    @field_validator("max_resident")
    @classmethod
    def _hold_a_whole_batch(cls, value: int, others: ValidationInfo) -> int:
        max_loras: int = others.data.get("max_loras", 0)
        return max(value, max_loras)

    @property
    def kv_cache_bytes(self) -> int | None:
        return int(self.kv_cache * 2**30) if self.kv_cache else None


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings of the command line and the environment.

    Raises:
        ConfigError: a flag that cannot work, or a setting under which the server must not start.
        SystemExit: after --help.
    """
    split = list(arguments).index("--") if "--" in arguments else len(arguments)
    parser = Parser(
        prog="server",
        usage="server [flags] [-- vLLM's own flags]\n       server keys create|list|revoke ...",
        description="Serve one base model and every adapter in the store over the OpenAI API.",
        epilog=EXAMPLES,
        allow_abbrev=False,
    )
    add_flags(parser, Settings)
    flags = parser.parse_args(arguments[:split])
    settings = from_flags(Settings, flags, environment, vllm_arguments=tuple(arguments[split + 1 :]))
    _refuse_open_door(settings)
    _refuse_environment(environment)
    return settings


def _refuse_open_door(settings: Settings) -> None:
    if settings.api_key is None and not is_loopback(settings.host) and not Keys(settings.store).all():
        raise ConfigError(
            f"--host {settings.host} would let other machines in without a key",
            "make one (server keys create), set MAILWRIGHT_API_KEY, or keep --host 127.0.0.1",
        )


def _refuse_environment(environment: Mapping[str, str]) -> None:
    for name, why in {
        "VLLM_USE_RUST_FRONTEND": "vLLM's Rust frontend ignores the gate and the routes",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "it opens routes that load any directory, two of them without a key",
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "it writes people's mail into the log",
        "VLLM_SERVER_DEV_MODE": "it opens routes that control the engine, and logs more of a request",
        "VLLM_ENABLE_RESPONSES_API_STORE": "it keeps people's mail in memory, for everyone who knows an answer's id",
        "PROMETHEUS_MULTIPROC_DIR": "our own metrics would vanish from /metrics",
        "VLLM_API_KEY": "it guards some paths only; MAILWRIGHT_API_KEY guards all of them",
    }.items():
        if environment.get(name, "").strip().lower() not in ("", "0", "false"):
            raise ConfigError(f"{name} is set: {why}", f"unset {name}")
