"""Notes that an email could have been written from, made from the email itself: its sentences without the small words.

A task and the email that somebody wrote for it share facts and little else, so that a small model learns to write in a
voice and to guess what the words between the facts might be. Notes hold every clause of the email: a model that turns
them back into the email learns to leave nothing out and to add nothing. Greeting, closing and subject are the email's.
English only: an email in another language loses too few words, and gives no notes. This file does not know tokens.
"""

from __future__ import annotations

import random
import re

from trainer.data import Example, task_example
from trainer.form import body, word_grams
from trainer.practice import CLAUSE_LEADS, SENDERS

SMALL = re.compile(
    r"""a|an|the|this|that|these|those|there|i|we|my|our|me|us|it|its|
    is|are|was|were|be|been|being|am|has|have|had|do|does|did|will|would|shall|should|could|can|may|might|
    so|very|just|please|kindly|glad|sorry|happy|grateful|and|as|from|like""",
    re.VERBOSE,
)
LINKS = re.compile("to|of|for|in|with|by|on|at")
SMALL_LOST, LINKS_LOST, YOU_LOST, FILLERS_LOST = 0.9, 0.35, 0.4, 0.5
"""Shares of the words, and of the sentences without a name or number, that notes leave out."""
MOST_COPIED, GRAM = 0.2, 4
"""Notes of which more word 4-grams stand in the email would teach to copy: an answer that copies keeps no fact."""
TRIES = 4
THIRD = (("he", "his", "him"), ("she", "her", "her"), ("they", "their", "them"))
GREETING = re.compile(r"(?:Dear|Hi|Hello|Hey) +([^,\n]+),$")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'])")
NAME = re.compile(r"I\b|[A-Z][\w']*\s[A-Z]")
SAYS_SOMETHING = re.compile(r"\d|(?<=\w )[A-Z]")


def from_notes(example: Example, chance: random.Random) -> Example | None:
    """The example's email with notes for a task; None where none can be made of it.

    That is an answer to a second turn, an email without a greeting or without a name under a closing, and one whose
    notes would be the email again.
    """
    parts = _parts(example.email)
    if parts is None or len(example.messages) > 1:
        return None
    name, sentences, sender = parts
    for _ in range(TRIES):
        third = chance.choice(THIRD)
        said = [noted for sentence in sentences if (noted := _note(sentence, third, chance))]
        if not said:
            continue
        task = chance.choice(CLAUSE_LEADS).format(name=name, said=_listed(said, chance))
        task = chance.choice(SENDERS).format(task=task, sender=sender)
        grams = word_grams(task, GRAM)
        if len(grams & word_grams(example.email, GRAM)) <= MOST_COPIED * len(grams):
            return task_example(task, example.email, voice=example.voice, kind="notes", thread=example.thread)
    return None


def _parts(email: str) -> tuple[str, list[str], str] | None:
    """Who is greeted, the sentences, and who signs, with what stands below the name."""
    parts = [part.strip() for part in body(email).split("\n\n")]
    greeting, (_, *signed) = GREETING.fullmatch(parts[0]), parts[-1].split("\n")
    if not greeting or not signed or len(parts) < 3:
        return None
    paragraphs = (" ".join(part.split()) for part in parts[1:-1])
    return greeting[1], [sentence for part in paragraphs for sentence in SENTENCE.split(part)], ", ".join(signed)


def _note(sentence: str, third: tuple[str, str, str], chance: random.Random) -> str:
    """What somebody in a hurry would have noted for the sentence; nothing for some that only fill."""
    if not SAYS_SOMETHING.search(sentence) and chance.random() < FILLERS_LOST:
        return ""
    he, his, him = third
    kept: list[str] = []
    for word in sentence.rstrip(".!").split():
        bare = word.strip(",.;'").lower()
        if bare in ("you", "your"):
            # The task speaks of the recipient, whom the email speaks to.
            if chance.random() >= YOU_LOST:
                kept.append(word.lower().replace("your", his).replace("you", him if kept else he))
        elif word.startswith("May") and kept:
            kept.append(word)
        elif chance.random() >= (SMALL_LOST if SMALL.fullmatch(bare) else LINKS_LOST if LINKS.fullmatch(bare) else 0):
            kept.append("&" if bare == "and" and chance.random() < 0.5 else word)
    return " ".join(kept)


def _listed(said: list[str], chance: random.Random) -> str:
    """The notes as sentences, on lines of their own, or one after the other."""
    if chance.random() < 1 / 3:
        return ". ".join(said) + "."
    begun = [note if NAME.match(note) else note[0].lower() + note[1:] for note in said]
    lines = "".join(f"\n- {note}" for note in begun) + "\n"
    return chance.choice([lines, ", ".join(begun), "; ".join(begun) + ".", "\n".join(begun)])
