"""Every error that Mailwright raises on purpose.

MailwrightError                      500 internal_error       what none of these says
├── ConfigError(ValueError)          400 invalid_request      a flag, setting or recipe that cannot work
├── DataError(ValueError)            400 invalid_request      rows of emails that cannot be used; every one listed
├── RequestError(ValueError)         400 invalid_request      a request that is not what the OpenAI API allows
│   ├── ContextTooLong               400 context_length_exceeded   more tokens than the model reads and writes
│   ├── RequestTimeout               408 request_timeout      its headers or its body took too long
│   ├── RequestTooLarge              413 request_too_large     its body has too many bytes
│   └── HeadersTooLarge              431 headers_too_large     its headers are too many or too long
├── BaseModelError(OSError)          500 internal_error       the base model cannot be found, fetched or trusted
├── StoreDamaged(OSError)            500 internal_error       a file of the store that is not what it should be
├── StoreUnwritable(OSError)         500 internal_error       the store's disk is full or read-only; nothing was changed
├── KeptDamaged(OSError)             500 internal_error       kept examples that cannot be read or written
├── KeysDamaged(OSError)             500 internal_error       API keys that cannot be read: nobody is let in
├── TrainingDiverged(ArithmeticError) 500 internal_error      a run whose loss is no number any more
├── ServerProblem(ConnectionError)   502 bad_gateway          the server cannot be reached, refuses, or answers nonsense
├── AdapterNotFound(LookupError)     404 model_not_found      no such adapter, retired, or not for this key
├── AdapterUnusable(ValueError)      422 adapter_unusable     fails validation or loading; carries every reason
├── PathNotFound(LookupError)        404 not_found            a path that this server does not have
├── Unauthorised(PermissionError)    401 invalid_api_key      no key, or a wrong or expired one
├── Forbidden(PermissionError)       403 insufficient_permissions   the key's scope does not allow it
├── RateLimited(RuntimeError)        429 rate_limit_exceeded  carries `retry_after` in seconds
└── Overloaded(RuntimeError)         503 overloaded           carries `retry_after` in seconds

A leaf knows its HTTP status and OpenAI code, and inherits its standard-library kin, so that callers may catch either.
This file knows neither HTTP frameworks nor the command line: it only says what they should answer.
"""

from __future__ import annotations

from collections.abc import Sequence


class MailwrightError(Exception):
    """What went wrong, with the offending value; `hint` says what to do about it, or is empty."""

    status = 500
    code = "internal_error"
    type = "server_error"
    param: str | None = None
    """The field of the request that is at fault."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self)._restore, (self.message, self.__dict__)

    @classmethod
    def _restore(cls, message: str, fields: dict[str, object]) -> MailwrightError:
        error = cls.__new__(cls)
        Exception.__init__(error, message)
        error.__dict__.update(fields)
        return error


class ConfigError(MailwrightError, ValueError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class DataError(MailwrightError, ValueError):
    """Rows that cannot be used; `problems` has one line for each, with file, line number and reason."""

    status, code, type = 400, "invalid_request", "invalid_request_error"

    def __init__(self, message: str, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__("\n  ".join([message, *problems]), hint)
        self.problems = list(problems)


class RequestError(MailwrightError, ValueError):
    status, code, type = 400, "invalid_request", "invalid_request_error"

    def __init__(self, message: str, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param


class ContextTooLong(RequestError):
    code = "context_length_exceeded"


class RequestTimeout(RequestError):
    status, code = 408, "request_timeout"


class RequestTooLarge(RequestError):
    status, code = 413, "request_too_large"


class HeadersTooLarge(RequestError):
    status, code = 431, "headers_too_large"


class BaseModelError(MailwrightError, OSError):
    pass


class StoreDamaged(MailwrightError, OSError):
    pass


class StoreUnwritable(MailwrightError, OSError):
    pass


class KeptDamaged(MailwrightError, OSError):
    pass


class KeysDamaged(MailwrightError, OSError):
    pass


class TrainingDiverged(MailwrightError, ArithmeticError):
    """`remedy` are fields of the recipe with values that may help."""

    def __init__(self, message: str, hint: str, remedy: dict[str, float]) -> None:
        super().__init__(message, hint)
        self.remedy = remedy


class ServerProblem(MailwrightError, ConnectionError):
    """What a client of the server is told; the message is one sentence or two with what to do."""

    status, code = 502, "bad_gateway"


class AdapterNotFound(MailwrightError, LookupError):
    status, code, type, param = 404, "model_not_found", "invalid_request_error", "model"


class AdapterUnusable(MailwrightError, ValueError):
    """`reasons` lists everything that is wrong with it, not only the first thing."""

    status, code, type, param = 422, "adapter_unusable", "invalid_request_error", "model"

    def __init__(
        self,
        adapter: str,
        reasons: Sequence[str],
        hint: str = "train it again on this base model, or promote another version",
    ) -> None:
        super().__init__(f"adapter {adapter!r} cannot be used: {'; '.join(reasons)}", hint)
        self.reasons = list(reasons)


class PathNotFound(MailwrightError, LookupError):
    status, code, type = 404, "not_found", "invalid_request_error"


class Unauthorised(MailwrightError, PermissionError):
    status, code, type = 401, "invalid_api_key", "authentication_error"


class Forbidden(MailwrightError, PermissionError):
    status, code, type = 403, "insufficient_permissions", "invalid_request_error"


class RateLimited(MailwrightError, RuntimeError):
    """This caller has used up what its key allows; try again after `retry_after` seconds."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message, f"try again in {retry_after} s")
        self.retry_after = retry_after


class Overloaded(MailwrightError, RuntimeError):
    """Too much work waits already; try again after `retry_after` seconds."""

    status, code = 503, "overloaded"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message, f"try again in {retry_after} s")
        self.retry_after = retry_after
