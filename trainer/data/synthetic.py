"""Synthetic examples: tasks and emails composed from hand-written pieces, to teach a model to keep facts and to end.

Half of them are kinds of email with slots (trainer/data/shipped/kinds.yaml); the other half join clauses that have
nothing to do with one another (clauses.yaml), so that the model has to go through the task clause by clause. Every slot
of a task stands in the email in the same spelling, so that the model learns to copy. Nothing is evaluated on them.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Any

from adapters.emails.number_words import MONTHS as MONTH_WORDS
from adapters.emails.number_words import WEEKDAYS
from trainer.data.examples import DATA, Example, task_example

VOICES = ("formal", "friendly")
DAYS = [day.capitalize() for day in WEEKDAYS]
MONTHS = [month.capitalize() for month in MONTH_WORDS]
TITLES = ("Ms", "Mr", "Dr", "Mrs")


@cache
def pieces(name: str) -> Any:
    """One of `kinds`, `clauses`, `pools` (values by the name of their slot) and `phrases`."""
    import yaml

    return yaml.safe_load((DATA / f"{name}.yaml").read_text(encoding="utf-8"))


def synthetic_examples(voice: str, count: int, seed: int) -> list[Example]:
    """`count` different examples in `voice`, the same for the same seed."""
    writer = _Writer(voice, random.Random(f"{voice}-{seed}"))
    made: dict[str, Example] = {}
    while len(made) < count:
        example = writer.chance.choice([writer.of_a_kind, writer.of_clauses])()
        made.setdefault(example.task, example)
    return list(made.values())


class _Writer:
    """Composes examples in one voice; `chance` decides everything that is open."""

    def __init__(self, voice: str, chance: random.Random) -> None:
        self.voice = voice
        self.chance = chance
        self.pick = chance.choice
        self.pools = pieces("pools")
        self.phrases = pieces("phrases")

    def of_a_kind(self) -> Example:
        kind = self.pick(pieces("kinds"))
        values: dict[str, str] = {}
        for slot, pool in kind["slots"].items():
            values[slot] = self._value(pool, set(values.values()))
        recipient, sender = self._recipient(), self._sender()
        fill = {**values, "name": recipient}
        task = self.pick(self.phrases["requests"]).format(task=self.pick(kind["tasks"]).format(**fill))
        task = self.pick(self.phrases["senders"]).format(task=task, sender=sender)
        sentences = [_capitalise(self.pick(group).format(**fill)) for group in kind[self.voice]]
        greeting = self._greeting(kind["to"], recipient, values)
        subject = _capitalise(self.pick(kind["subjects"]).format(**fill))
        email = self._email(subject, greeting, sentences, sender)
        return task_example(task, email, [[value] for value in (*values.values(), sender)], self.voice, kind["kind"])

    def of_clauses(self) -> Example:
        """Two to four clauses, in the email in the task's order, since a small model loses its place otherwise."""
        recipient, sender = self._recipient(), self._sender()
        requests: list[str] = []
        sentences: list[str] = []
        subject = ""
        taken = {recipient, sender}
        for clause in self.chance.sample(pieces("clauses"), self.pick([2, 2, 3, 3, 4])):
            values: dict[str, str] = {}
            for slot, pool in clause["slots"].items():
                values[slot] = self._value(pool, taken)
                taken.add(values[slot])
            requests.append(self.pick(clause["task"]).format(**values))
            sentences.append(_capitalise(self.pick(clause[self.voice]).format(**values)))
            subject = subject or _capitalise(self.pick(clause["subjects"]).format(**values))
        task = self.pick(self.phrases["clause_requests"]).format(name=recipient, clauses=self._listed(requests))
        task = self.pick(self.phrases["senders"]).format(task=task, sender=sender)
        if self.chance.random() < 0.5:
            sentences.append(self.pick(self.phrases["last_sentences"][self.voice]))
        email = self._email(subject, self._greeting("person", recipient, {}), sentences, sender)
        in_order = sorted(taken - {recipient, sender}, key=lambda value: task.lower().find(value.lower()))
        return task_example(task, email, [[value] for value in (*in_order, sender)], self.voice, "clauses")

    def _listed(self, clauses: list[str]) -> str:
        """The clauses as people type them, with time or in a hurry."""
        sentences = ". ".join(_capitalise(clause) for clause in clauses) + "."
        bullets = "".join(f"\n- {clause}" for clause in clauses) + "\n"
        in_one = [f"{', '.join(clauses)}.", ", ".join(clauses), f"{'; '.join(clauses)}.", f"{' and '.join(clauses)}."]
        return str(self.pick([sentences, sentences, bullets, *in_one]))

    def _recipient(self) -> str:
        first, last = str(self.pick(self.pools["FIRST"])), str(self.pick(self.pools["LAST"]))
        title = self.pick(TITLES)
        return self.pick([first, f"{first} {last}", f"{first} {last}", f"{title} {last}", f"{title} {first} {last}"])

    def _sender(self) -> str:
        sender = f"{self.pick(self.pools['FIRST'])} {self.pick(self.pools['LAST'])}"
        return str(sender.split()[0]) if self.chance.random() < 0.3 else sender

    def _email(self, subject: str, greeting: str, sentences: list[str], sender: str) -> str:
        closing = self.pick(self.phrases["closings"][self.voice])
        return "\n\n".join([f"Subject: {subject}", greeting, *self._paragraphs(sentences), f"{closing}\n{sender}"])

    def _greeting(self, to: str, recipient: str, values: dict[str, str]) -> str:
        formal = self.voice == "formal"
        if to == "group":
            return self.pick(["Dear colleagues,", "Dear all,"] if formal else ["Hi all,", "Hello everyone,"])
        if to == "company":
            return "Dear Sir or Madam," if formal else f"Hello {values['company']} team,"
        title, _, rest = recipient.partition(" ")
        titled = title in TITLES
        if formal:
            return f"Dear {title} {rest.split()[-1]}," if titled else f"Dear {recipient},"
        called = rest.split()[0] if titled and " " in rest else recipient if titled else title
        return f"{self.pick(['Hi', 'Hello', 'Hey'])} {called},"

    def _paragraphs(self, sentences: list[str]) -> list[str]:
        """The sentences in order, some of them joined: emails are not one sentence a paragraph."""
        paragraphs = sentences[:1]
        for sentence in sentences[1:]:
            if self.chance.random() < 0.4:
                paragraphs[-1] += f" {sentence}"
            else:
                paragraphs.append(sentence)
        return paragraphs

    def _value(self, pool: list[str] | str, taken: set[str]) -> str:
        """A value that no other slot of this task has, of the given ones or of a named pool."""
        while True:
            if isinstance(pool, list) or pool in self.pools:
                value = str(self.pick(pool if isinstance(pool, list) else self.pools[pool]))
            else:
                value = self._invented(pool)
            if value not in taken:
                return value

    def _invented(self, kind: str) -> str:
        """Values of an open kind, so that copying is the only way to get them right."""
        pick, number, pools = self.pick, self.chance.randint, self.pools
        day, month = number(1, 28), pick(MONTHS)
        hour, minute = number(8, 18), pick(["00", "10", "15", "20", "30", "40", "45", "50"])
        clock = f"{(hour - 1) % 12 + 1}{'' if minute == '00' else ':' + minute} {'am' if hour < 12 else 'pm'}"
        amount = f"{number(11, 9800):,}{pick(['', '', '.50', f'.{number(10, 99)}'])}"
        made = {
            "DAY": [pick(DAYS)],
            "DATE": [f"{day} {month}", f"{month} {day}", f"{day} {month}"],
            "DEADLINE": [f"{pick(DAYS)} {day} {month}", f"{day} {month}", pick(DAYS)],
            "TIME": [clock, clock, f"{hour}:{minute}", clock.replace(" ", "")],
            "MONEY": [f"${amount}", f"£{amount}", f"€{amount}", f"{amount} euros"],
            "COUNT": [str(number(3, 480))],
            "PERCENT": [f"{number(3, 60)} %", f"{number(3, 60)}%"],
            "DURATION": [f"{number(2, 18) * 5} minutes", pick(["one hour", "two hours", "three hours"])],
            "WEEKS": [f"{pick(['two', 'three', 'four', 'six', 'ten'])} weeks"],
            "ORDER": [str(number(1000, 999999)), f"{pick('ABCDEFGHKLMNPRSTW')}{number(100, 99999)}"],
            "CODE": [
                f"{pick(['INV', 'R', 'MB', 'QX', 'HL', 'F', 'TK', 'NO'])}-{number(100, 99999)}",
                str(number(1000, 99999)),
            ],
            "PHONE": [f"555 0{number(100, 199)}", f"0{number(20, 99)} {number(1000, 9999)} {number(100, 999)}"],
            "PERSON": [f"{pick(pools['FIRST'])} {pick(pools['LAST'])}"],
            "ADDRESS": [f"{number(1, 240)} {pick(pools['STREET'])}"],
            "EMAIL": [f"{pick(pools['FIRST']).lower()}@{pick(pools['TOWN']).lower().replace(' ', '')}.example"],
        }
        return str(pick(made[kind]))


def _capitalise(text: str) -> str:
    return re.sub(r"(?:^|(?<=[.!?] ))[a-z]", lambda letter: letter[0].upper(), text)
