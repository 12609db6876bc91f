"""A model behind an OpenAI-compatible endpoint writes the task of an email.

The endpoint gets the email as it will be trained on, with personal data replaced. If an answer is empty or quotes the
email, the task by rule stays (trainer/mail/task_rules.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adapters.emails.form import word_grams
from adapters.emails.tasks import keeps
from adapters.errors import ConfigError, ServerProblem
from adapters.settings import is_loopback
from trainer.mail.importer import Draft, Progress
from trainer.mail.mailboxes import Advance
from trainer.mail.task_rules import listed

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONCURRENT_REQUESTS = 8
TIMEOUT_SECONDS = 120.0
RETRIES = 3
MAX_TOKENS = 300
# Tasks should differ from one another as people's do.
TEMPERATURE = 0.7
# So many words in a row that the email has too are a quote.
QUOTE_WORDS = 12
INSTRUCTION = """Here is an email. Write the request that its writer might have typed to an assistant to get exactly \
this email: one to three plain sentences in the writer's own voice and in the email's language. Say to whom, why, and \
every fact that the email tells (names, numbers, dates, times, amounts), as it is spelled there, and who signs it. Do \
not quote its sentences, and do not describe its style. Answer with the request alone."""
ANSWERS = """The email answers this message, which the assistant is shown too, so do not repeat what it says:"""

# OpenAI's client checks no shapes, so that a malformed answer may fail anywhere.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True)
class Describer:
    """`url` is the endpoint's base (`https://host/v1`); `log` is called before anything is sent."""

    url: str
    model: str
    key: str
    log: Callable[[str], Any]

    def __call__(self, drafts: Sequence[Draft], progress: Progress) -> list[str | None]:
        """The task of each draft, in order; None if the answer is empty or a quote.

        Raises:
            ServerProblem: the endpoint does not answer for the first email.
        """
        self.log(f"sending {len(drafts)} emails to {host(self.url)}, for {self.model} to describe; Ctrl-C stops it")
        with progress("describing", len(drafts), "email") as advance:
            return asyncio.run(self._all(drafts, advance))

    async def _all(self, drafts: Sequence[Draft], advance: Advance) -> list[str | None]:
        import openai

        slots = asyncio.Semaphore(CONCURRENT_REQUESTS)

        async def optional(draft: Draft) -> str | None:
            async with slots:
                try:
                    return await self._one(client, draft)
                except (openai.OpenAIError, *MALFORMED):
                    return None
                finally:
                    advance(1)

        async with self._client() as client:
            try:
                first = await self._one(client, drafts[0])
            except (openai.OpenAIError, *MALFORMED) as exc:
                raise ServerProblem(
                    f"{host(self.url)} describes no email ({type(exc).__name__})",
                    "check --describe-with, --describe-model and OPENAI_API_KEY, or leave --describe-with out",
                ) from exc
            advance(1)
            return [first, *await asyncio.gather(*(optional(draft) for draft in drafts[1:]))]

    def _client(self) -> AsyncOpenAI:
        import openai

        # Mail for a server on this machine goes through no proxy, whatever the environment says.
        direct = is_loopback(urlsplit(self.url).hostname or "")
        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self.key,
            timeout=TIMEOUT_SECONDS,
            max_retries=RETRIES,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if direct else None,
        )

    async def _one(self, client: AsyncOpenAI, draft: Draft) -> str | None:
        answer = await client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt(draft)}],
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE,
        )
        return described(answer.choices[0].message.content or "", draft)


def describer(url: str, model: str, log: Callable[[str], Any]) -> Describer:
    """Raises ConfigError if `url` is not an endpoint."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url[:80]!r} is not an endpoint", "give its base address, such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ConfigError("the endpoint's address has a user or password in it", "set OPENAI_API_KEY instead")
    key = os.environ.get("OPENAI_API_KEY") or os.environ.get("MAILWRIGHT_API_KEY") or "none"
    return Describer(url, model, key, log)


def host(url: str) -> str:
    return urlsplit(url).netloc


def prompt(draft: Draft) -> str:
    answered = draft.request.answered
    return f"{INSTRUCTION}\n\nEmail:\n{draft.email}" + (f"\n\n{ANSWERS}\n{answered}" if answered else "")


def described(answer: str, draft: Draft) -> str | None:
    """The answer as a task, with the facts that it lacks; None if it is empty or quotes the email at length."""
    text = answer.strip().strip('"').strip()
    if not text or word_grams(text, QUOTE_WORDS) & word_grams(draft.email, QUOTE_WORDS):
        return None
    forgotten = [fact[0] for fact in draft.request.facts if not keeps(fact, text)]
    return f"{text} Mention {listed(forgotten)}." if forgotten else text
