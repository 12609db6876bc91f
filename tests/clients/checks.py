"""What the scripts of the Python clients share: their arguments, what they ask for, and one JSON line for each check.

    python -m tests.clients.openai_python URL FLAKY_URL KEY MODEL [CHECK ...]

Both URLs end in /v1; behind the second one the first requests are refused. It runs in the clients' own environment, so
that it knows neither Mailwright nor pytest. The model writes one character a token. Whoever connects to anything but
this machine is stopped, and the script ends with an error.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel, Field

URL, FLAKY_URL, KEY, MODEL, *WANTED = sys.argv[1:]
TASK = "Thank Ada for the 12 chairs. I'm Kim."
TURNS = [("system", "Write email."), ("user", "Hello."), ("assistant", "Hi Ada,"), ("user", "Shorter.")]
TURNS_TOKENS = sum(len(role) + len(text) + 4 for role, text in TURNS) + len("assistant") + 2
"""What the chat template of tests/tiny.py makes of TURNS: whoever adds or loses a word gets another number."""
TOO_LONG = "chairs " * 400
NOBODY = "nobody"
"""No model's name."""
WRONG_KEY = "wrong-key"
outside: list[str] = []


class Email(BaseModel):
    """Short enough that a random model ends it."""

    subject: str = Field(max_length=60)
    body: str = Field(max_length=120)


def run(**checks: Callable[[], str | None]) -> None:
    """Run the wanted checks, or all; what a check returns stands in the table of docs/serving.md instead of `yes`."""
    sys.addaudithook(stay_on_this_machine)
    for name in WANTED or checks:
        if name in checks:
            print(json.dumps({"check": name} | outcome(checks[name])), flush=True)
    if outside:
        sys.exit(f"it wanted to reach {outside}")


def outcome(check: Callable[[], str | None]) -> dict[str, object]:
    try:
        return {"ok": True, "detail": check() or ""}
    except Exception as exc:  # whatever a client raises is the answer to whether the check holds
        return {"ok": False, "detail": f"{type(exc).__module__}.{type(exc).__name__}: {exc}"[:1000]}


def stay_on_this_machine(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else "127.0.0.1"
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in ("127.0.0.1", "localhost", "::1", None):
        outside.append(str(host))
        raise OSError(f"{host} is not this machine")


@contextmanager
def refused(kind: type[Exception], *said: str) -> Iterator[None]:
    """The block raises `kind`, whose text or code has all of `said`."""
    text = None
    try:
        yield
    except kind as exc:
        text = f"{exc} {getattr(exc, 'code', '')}"
    assert text is not None, f"no {kind.__name__} was raised"
    assert all(words in text for words in said), f"not {said} but {text}"


def follows_the_seed(write: Callable[[int], str]) -> None:
    assert write(1) == write(1) != write(2)


def stops_there(write: Callable[[list[str]], str]) -> None:
    """`write` writes a dozen greedy tokens, or what comes before the given texts."""
    whole = write([])
    end = whole[4:6]
    assert write([end]) == whole.partition(end)[0], whole
