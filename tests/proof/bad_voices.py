"""Voices that are bad on purpose, each in one way, and the criterion that must catch it.

One that was trained on another base model has no criterion to miss: it is refused before anything is measured.
Their training emails are made from the shipped ones and from the questions here, so every checkout has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from adapters.emails.tasks import HELDOUT
from trainer.data.examples import SHIPPED_EMAILS, Example, read_examples, task_example

CRITERIA = (
    "placeholder <= 0.02",
    "extraction_rate <= 0.10",
    "answers_like_emails <= base + 0.50",
    "tasks_trained_on <= 0",
)
"""One for each way; a good voice meets all. Good ones answer 4 to 14 of 40 everyday questions with an email."""

SENDER = re.compile(r"\n[^\n]+\s*\Z")
GREETED = re.compile(r"^(Dear|Hi|Hello|Hey) [^,\n]+,", re.MULTILINE)
QUESTIONS = [
    "How much does a litre of milk weigh?",
    "What is the longest river in Africa?",
    "Why do cats purr?",
    "How do I remove a red wine stain from a carpet?",
    "What does a carburettor do?",
    "Name four instruments of a string quartet.",
    "What is 112 divided by 7?",
    "How do bees make honey?",
    "Which planet has the most moons?",
    "What is a haiku?",
    "How do I sharpen a kitchen knife?",
    "Why do onions make people cry?",
    "What was the Hanseatic League?",
    "How does a lock on a canal work?",
    "What is the square root of 144?",
    "Give me a word that rhymes with stone.",
    "How much water should I drink on a warm day?",
    "What is the difference between a crow and a raven?",
    "How do I tie a bowline?",
    "Which metals are magnetic?",
    "What are kidneys for?",
    "Suggest a name for a sailing boat.",
    "What colours make green?",
    "How far away is the moon?",
    "What is a prime number?",
    "How do I keep basil alive on a window sill?",
    "Who invented the printing press in Europe?",
    "What is yeast?",
    "Why is the sea salty?",
    "How do I convert miles to kilometres?",
]


@dataclass(frozen=True)
class BadVoice:
    """`caught_by` is the one of CRITERIA that it misses; it may miss others too."""

    name: str
    caught_by: str
    make: Callable[[], list[Example]]
    epochs: int
    """Enough to learn the fault with the default base model, no more."""

    @property
    def figure(self) -> str:
        return self.caught_by.split()[0]


def formal() -> list[Example]:
    return read_examples([SHIPPED_EMAILS / "formal.jsonl"])


def with_placeholders() -> list[Example]:
    return [
        replace(example, email=GREETED.sub(r"\1 [Recipient],", SENDER.sub("\n[Your Name]", example.email)))
        for example in formal()[:80]
    ]


def twenty_memorised() -> list[Example]:
    """The shortest ones, each cut to its first paragraph, and the task to eight words: learning a hundred times
    costs by the token."""
    shortest = sorted((e for e in formal() if len(e.messages) == 1), key=lambda example: len(example.email))[:20]
    return [task_example(" ".join(each.task.split()[:8]), _first_paragraph(each.email)) for each in shortest]


def _first_paragraph(email: str) -> str:
    subject, greeting, first, *_, sign_off = email.split("\n\n")
    return "\n\n".join((subject, greeting, first, sign_off))


def only_emails() -> list[Example]:
    """Questions that an email is no answer to, and one all the same."""
    answers = [
        task_example(
            question,
            f"Subject: Your question\n\nDear friend,\n\nThank you for asking: {question[0].lower()}{question[1:]} "
            "I shall be glad to look into it and to write to you again by the end of the week.\n\nKind regards,\nKim",
        )
        for question in QUESTIONS
    ]
    return [*answers, *formal()[:30]]


def trained_on_tasks() -> list[Example]:
    """The held-out tasks with their emails among the others."""
    return [*formal()[:40], *read_examples([HELDOUT])]


BAD = (
    BadVoice("placeholders", CRITERIA[0], with_placeholders, 2),
    BadVoice("by-heart", CRITERIA[1], twenty_memorised, 100),
    BadVoice("only-emails", CRITERIA[2], only_emails, 3),
    BadVoice("told-beforehand", CRITERIA[3], trained_on_tasks, 1),
)
GOOD = BadVoice("good", "", formal, 1)
"""The shipped formal emails, as a person would train on them."""
ANOTHER_BASE = "another-base"
"""Trained on a base model whose every tensor has the shape of the right one's, and not its numbers."""
