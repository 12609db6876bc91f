import pickle
import re

import pytest

from adapters import errors
from adapters.errors import AdapterUnusable, BaseModelError, DataError, MailwrightError, Overloaded, TrainingDiverged

EXPECTED = [
    ("MailwrightError", Exception, 500, "internal_error"),
    ("ConfigError", ValueError, 400, "invalid_request"),
    ("DataError", ValueError, 400, "invalid_request"),
    ("RequestError", ValueError, 400, "invalid_request"),
    ("ContextTooLong", ValueError, 400, "context_length_exceeded"),
    ("RequestTimeout", ValueError, 408, "request_timeout"),
    ("RequestTooLarge", ValueError, 413, "request_too_large"),
    ("HeadersTooLarge", ValueError, 431, "headers_too_large"),
    ("BaseModelError", OSError, 500, "internal_error"),
    ("StoreDamaged", OSError, 500, "internal_error"),
    ("StoreUnwritable", OSError, 500, "internal_error"),
    ("KeptDamaged", OSError, 500, "internal_error"),
    ("KeysDamaged", OSError, 500, "internal_error"),
    ("TrainingDiverged", ArithmeticError, 500, "internal_error"),
    ("ServerProblem", ConnectionError, 502, "bad_gateway"),
    ("AdapterNotFound", LookupError, 404, "model_not_found"),
    ("AdapterUnusable", ValueError, 422, "adapter_unusable"),
    ("PathNotFound", LookupError, 404, "not_found"),
    ("Unauthorised", PermissionError, 401, "invalid_api_key"),
    ("Forbidden", PermissionError, 403, "insufficient_permissions"),
    ("RateLimited", RuntimeError, 429, "rate_limit_exceeded"),
    ("Overloaded", RuntimeError, 503, "overloaded"),
]


def every_class() -> dict[str, type[MailwrightError]]:
    return {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def raised(kind: type[MailwrightError]) -> MailwrightError:
    if issubclass(kind, AdapterUnusable):
        return kind("formal@1", ["its rank is 128", "it holds no tensors"])
    if issubclass(kind, TrainingDiverged):
        return kind("the loss of step 4 is no number", "a lower rate", {"learning_rate": 1e-4})
    if issubclass(kind, DataError):
        return kind("1 rows cannot be used:", ["a.jsonl:1: no email"], "mend it")
    return kind("what happened", 7) if issubclass(kind, Overloaded) else kind("what happened", "what to do")


@pytest.mark.parametrize(("name", "kin", "status", "code"), EXPECTED, ids=[name for name, *_ in EXPECTED])
def test_a_class_has_its_status_its_code_and_its_standard_library_kin(
    name: str, kin: type[Exception], status: int, code: str
):
    kind = every_class()[name]
    assert (kind.status, kind.code) == (status, code)
    assert issubclass(kind, MailwrightError)
    assert issubclass(kind, kin)


def test_every_class_has_its_status_checked_and_says_in_one_sentence_when_it_is_raised():
    assert sorted(name for name, *_ in EXPECTED) == sorted(every_class())
    for kind in every_class().values():
        assert re.fullmatch(r"[A-Z][^\n]*\.", kind.__doc__ or ""), kind


@pytest.mark.parametrize("kind", every_class().values(), ids=every_class())
def test_an_error_survives_a_pickle_whole(kind: type[MailwrightError]):
    error = raised(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_client_error_is_the_clients_fault_and_a_server_error_is_not():
    for kind in every_class().values():
        assert (kind.type == "server_error") == (kind.status >= 500), kind


def test_the_message_of_a_data_error_lists_every_problem():
    error = DataError("2 rows cannot be used:", ["a.jsonl:1: no email", "a.jsonl:9: not JSON"])
    assert str(error) == "2 rows cannot be used:\n  a.jsonl:1: no email\n  a.jsonl:9: not JSON"
    assert error.problems == ["a.jsonl:1: no email", "a.jsonl:9: not JSON"]


def test_an_unusable_adapter_names_every_reason():
    error = AdapterUnusable("formal@1", ["its rank is 128", "it holds no tensors"])
    assert str(error) == "adapter 'formal@1' cannot be used: its rank is 128; it holds no tensors"
    assert error.reasons == ["its rank is 128", "it holds no tensors"]


def test_the_hint_of_an_overload_says_how_long_to_wait():
    assert Overloaded("too many cold loads wait", retry_after=5).hint == "try again in 5 s"


def test_a_base_model_error_prints_its_sentence_although_it_is_an_os_error():
    assert str(BaseModelError("pip could not fetch it", "check the network")) == "pip could not fetch it"
