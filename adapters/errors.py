"""Every error that Mailwright raises on purpose: one tree, each class with its HTTP status and OpenAI code.

Each class also inherits a standard-library exception, so a caller may catch either. Its docstring says when it occurs.
"""

from __future__ import annotations

from collections.abc import Sequence


class MailwrightError(Exception):
    """An error that no other class describes. The message has the offending value, `hint` what to do or nothing."""

    status = 500
    code = "internal_error"
    type = "server_error"
    # The field of the request that is at fault.
    param: str | None = None

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
    """A flag, setting or recipe is not allowed or does not work."""

    status, code, type = 400, "invalid_request", "invalid_request_error"


class DataError(MailwrightError, ValueError):
    """Rows of emails cannot be used; `problems` lists each with file, line number and reason."""

    status, code, type = 400, "invalid_request", "invalid_request_error"

    def __init__(self, message: str, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__("\n  ".join([message, *problems]), hint)
        self.problems = list(problems)


class RequestError(MailwrightError, ValueError):
    """A request does not follow the OpenAI API, or asks for more than this server allows."""

    status, code, type = 400, "invalid_request", "invalid_request_error"

    def __init__(self, message: str, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param


class ContextTooLong(RequestError):
    """The prompt and the answer have more tokens than the model can take."""

    code = "context_length_exceeded"


class RequestTimeout(RequestError):
    """The headers or the body of a request arrive too slowly."""

    status, code = 408, "request_timeout"


class RequestTooLarge(RequestError):
    """The body of a request has too many bytes."""

    status, code = 413, "request_too_large"


class HeadersTooLarge(RequestError):
    """The headers of a request are too many or too long."""

    status, code = 431, "headers_too_large"


class BaseModelError(MailwrightError, OSError):
    """The base model cannot be found, fetched, read or trusted."""


class StoreDamaged(MailwrightError, OSError):
    """A file of the store is missing or damaged."""


class StoreUnwritable(MailwrightError, OSError):
    """The disk of the store is full or read-only; nothing has changed."""


class KeptDamaged(MailwrightError, OSError):
    """The file of the kept examples cannot be read or written."""


class KeysDamaged(MailwrightError, OSError):
    """The file of the API keys cannot be read, so every request is refused."""


class TrainingDiverged(MailwrightError, ArithmeticError):
    """The training loss is NaN or infinite; `remedy` has recipe fields with values that may help."""

    def __init__(self, message: str, hint: str, remedy: dict[str, float]) -> None:
        super().__init__(message, hint)
        self.remedy = remedy


class ServerProblem(MailwrightError, ConnectionError):
    """The server cannot be reached, refuses a request, or sends an invalid answer."""

    status, code = 502, "bad_gateway"


class AdapterNotFound(MailwrightError, LookupError):
    """The adapter does not exist, is retired, or is not visible to this API key."""

    status, code, type, param = 404, "model_not_found", "invalid_request_error", "model"


class AdapterUnusable(MailwrightError, ValueError):
    """The adapter fails validation or loading; `reasons` lists every problem."""

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
    """The server does not have this path."""

    status, code, type = 404, "not_found", "invalid_request_error"


class Unauthorised(MailwrightError, PermissionError):
    """The request has no API key, or a wrong or expired one."""

    status, code, type = 401, "invalid_api_key", "authentication_error"


class Forbidden(MailwrightError, PermissionError):
    """The scope of the API key does not allow this request."""

    status, code, type = 403, "insufficient_permissions", "invalid_request_error"


class RateLimited(MailwrightError, RuntimeError):
    """The caller has reached a limit of its API key; `retry_after` is in seconds."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message, f"try again in {retry_after} s")
        self.retry_after = retry_after


class Overloaded(MailwrightError, RuntimeError):
    """Too much work is waiting already; `retry_after` is in seconds."""

    status, code = 503, "overloaded"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message, f"try again in {retry_after} s")
        self.retry_after = retry_after
