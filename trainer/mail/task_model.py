"""A model behind an OpenAI-compatible endpoint writes the request that an email answers, instead of the rule.

What is sent is the email as it will be trained on, personal data already replaced. This file does not know mailboxes;
where an answer is no request, or quotes the email, the rule's task stays (trainer/mail/task_rules.py).
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

AT_A_TIME = 8
SECONDS = 120.0
RETRIES = 3
MOST_TOKENS = 300
TEMPERATURE = 0.7
"""Requests should differ from one another as people's do."""
MOST_COPIED_WORDS = 12
"""That many words in a row as in the email are a quote."""
INSTRUCTION = """Here is an email. Write the request that its writer might have typed to an assistant to get exactly \
this email: one to three plain sentences in the writer's own voice and in the email's language. Say to whom, why, and \
every fact that the email tells (names, numbers, dates, times, amounts), as it is spelled there, and who signs it. Do \
not quote its sentences, and do not describe its style. Answer with the request alone."""
ANSWERS = """The email answers this message, which the assistant is shown too, so do not repeat what it says:"""


# OpenAI's client checks no shapes, so that a server's nonsense may fail anywhere on its way.
TROUBLE = (ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True)
class Describer:
    """`url` is the endpoint's base (`https://host/v1`); `log` is told before anything is sent."""

    url: str
    model: str
    key: str
    log: Callable[[str], Any]

    def __call__(self, drafts: Sequence[Draft], progress: Progress) -> list[str | None]:
        """The task of each draft, in order; None where the answer was none, empty or a quote.

        Raises:
            ServerProblem: the endpoint does not answer for the first email.
        """
        self.log(f"sending {len(drafts)} emails to {host(self.url)}, for {self.model} to describe; Ctrl-C stops it")
        with progress("describing", len(drafts), "email") as advance:
            return asyncio.run(self._all(drafts, advance))

    async def _all(self, drafts: Sequence[Draft], advance: Advance) -> list[str | None]:
        import openai

        turns = asyncio.Semaphore(AT_A_TIME)

        async def in_turn(draft: Draft) -> str | None:
            async with turns:
                try:
                    return await self._one(client, draft)
                except (openai.OpenAIError, *TROUBLE):
                    return None
                finally:
                    advance(1)

        async with self._client() as client:
            try:
                first = await self._one(client, drafts[0])
            except (openai.OpenAIError, *TROUBLE) as exc:
                raise ServerProblem(
                    f"{host(self.url)} describes no email ({type(exc).__name__})",
                    "check --describe-with, --describe-model and OPENAI_API_KEY, or leave --describe-with out",
                ) from exc
            advance(1)
            return [first, *await asyncio.gather(*(in_turn(draft) for draft in drafts[1:]))]

    def _client(self) -> AsyncOpenAI:
        import openai

        # Mail for a server on this machine goes through no proxy, whatever the environment says.
        direct = is_loopback(urlsplit(self.url).hostname or "")
        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self.key,
            timeout=SECONDS,
            max_retries=RETRIES,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if direct else None,
        )

    async def _one(self, client: AsyncOpenAI, draft: Draft) -> str | None:
        answer = await client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt(draft)}],
            max_tokens=MOST_TOKENS,
            temperature=TEMPERATURE,
        )
        return described(answer.choices[0].message.content or "", draft)


def describer(url: str, model: str, log: Callable[[str], Any]) -> Describer:
    """Raises ConfigError where `url` is no endpoint."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url[:80]!r} is no endpoint", "give its base address, such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ConfigError("the endpoint's address has a user or password in it", "set OPENAI_API_KEY instead")
    key = os.environ.get("OPENAI_API_KEY") or os.environ.get("MAILWRIGHT_API_KEY") or "none"
    return Describer(url, model, key, log)


def host(url: str) -> str:
    return urlsplit(url).netloc


def prompt(draft: Draft) -> str:
    answered = draft.request.answered
    shown = f"{INSTRUCTION}\n\nEmail:\n{draft.email}"
    return f"{shown}\n\n{ANSWERS}\n{answered}" if answered else shown


def described(answer: str, draft: Draft) -> str | None:
    """The answer as a task, with the facts that it forgot; None if it is empty or quotes the email at length."""
    text = answer.strip().strip('"').strip()
    if not text or word_grams(text, MOST_COPIED_WORDS) & word_grams(draft.email, MOST_COPIED_WORDS):
        return None
    forgotten = [fact[0] for fact in draft.request.facts if not keeps(fact, text)]
    return f"{text} Mention {listed(forgotten)}." if forgotten else text
