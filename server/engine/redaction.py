"""Keeps mail out of the log of vLLM and its libraries.

At DEBUG vLLM logs whole answers, at any level the text of exceptions, which quote the request, and when its engine dies
the parameters of every request. From `install` on, records of the loggers named keep their wording, numbers and the
frames of a traceback; all other arguments and the text of exceptions become the name of their type.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from typing import Any

# Loggers of the engine's processes that see more of a request than its tokens: stop words, schemas.
ENGINE = ("vllm.logging_utils", "vllm.v1.structured_output")
# Loggers of the process that answers HTTP; installed once it serves, because before there is no mail.
SERVING = (
    *ENGINE,
    *("vllm.entrypoints", "vllm.renderers", "vllm.inputs", "vllm.v1.engine", "vllm.tokenizers"),
    *("vllm.tool_parsers", "vllm.parser", "vllm.reasoning"),
    *("uvicorn", "starlette", "fastapi", "asyncio", "concurrent"),
)
# Of the server as a whole, before and after its requests.
STARTING = "vllm.entrypoints.launchers"


def install(loggers: tuple[str, ...]) -> None:
    """For the rest of this process, with any handlers and levels; idempotent."""
    make = logging.getLogRecordFactory()

    def made(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        if record.name.startswith(loggers) and not record.name.startswith(STARTING):
            redact(record)
        return record

    logging.setLogRecordFactory(made)
    # It logs a traceback of 55 lines for every request that it refuses.
    logging.getLogger("vllm.entrypoints.anthropic.api_router").setLevel(logging.CRITICAL)
    # These quote the values of the fields that they are about.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")


def redact(record: logging.LogRecord) -> None:
    if not isinstance(record.msg, str):
        record.msg = _named(record.msg)
    if isinstance(record.args, dict):
        record.args = {key: _plain(value) for key, value in record.args.items()}
    elif record.args:
        record.args = tuple(map(_plain, record.args))
    if record.exc_info and record.exc_info[0]:
        kind, _, frames = record.exc_info
        text = record.getMessage() + f"\n{kind.__name__}\n" + "".join(traceback.format_tb(frames))
        record.msg, record.args, record.exc_info, record.exc_text = text.rstrip(), (), None, None


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else _named(value)


def _named(value: object) -> str:
    return f"<{type(value).__name__}>"
