"""Generated practice: tasks and emails composed from hand-written pieces, to teach a model to keep facts and to end.

Half of it are kinds of email with slots (trainer/data/shipped/practice.yaml); the other half strings together clauses
that have nothing to do with one another (trainer/data/shipped/clauses.yaml), so that only going through the task,
clause by clause, gets every value beside its own. Every slot of a task stands in the email, in the same spelling, so
that a model learns to copy what it is told. Practice is narrow: it is only ever trained on, never evaluated on. This
file does not know files of emails or tokens.
"""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

from adapters.emails.number_words import MONTHS as MONTH_WORDS
from adapters.emails.number_words import WEEKDAYS
from trainer.data.examples import Example, task_example

VOICES = ("formal", "friendly")
DATA = Path(__file__).parent / "shipped"

DAYS = [day.capitalize() for day in WEEKDAYS]
MONTHS = [month.capitalize() for month in MONTH_WORDS]
FORMAL_CLOSINGS = (
    "Yours sincerely,",
    "Sincerely,",
    "Kind regards,",
    "With kind regards,",
    "Respectfully,",
    "Best regards,",
)
FRIENDLY_CLOSINGS = (
    "Cheers,",
    "Thanks,",
    "Best wishes,",
    "All the best,",
    "Talk soon,",
    "Take care,",
    "Thanks again,",
    "Best,",
)
LEADS = (
    "{task}",
    "{task}",
    "Write an email. {task}",
    "Email please: {task}",
    "{task} Write it as an email.",
    "can you draft this email for me? {task}",
    "I need an email. {task}",
    "Help me with this message. {task}",
)
SENDERS = (
    "{task} Sign it {sender}.",
    "{task} Signed, {sender}.",
    "{task} From {sender}.",
    "{task} My name is {sender}.",
    "{task} I'm {sender}.",
    "{task}\nSender: {sender}",
    "{task}\nfrom: {sender}",
    "{task} - {sender}",
    "I'm {sender}. {task}",
    "This is {sender}. {task}",
    "From {sender}: {task}",
    "{task} Put {sender} at the end.",
    "{task} It's from {sender}.",
    "{task} thanks, {sender}",
)
CLAUSE_LEADS = (
    "Email to {name}: {said}",
    "Write to {name}. {said}",
    "to {name}: {said}",
    "Please write an email to {name}. {said}",
    "Let {name} know: {said}",
    "mail {name} - {said}",
    "{said} Write that to {name}.",
    "For {name}: {said}",
    "Tell {name} this by email: {said}",
    "{name} has to hear of this: {said}",
)
FORMAL_LAST = (
    "Please let me know if you have any questions.",
    "Thank you for your attention.",
    "I look forward to hearing from you.",
    "Please do not hesitate to contact me.",
)
FRIENDLY_LAST = (
    "Let me know what you think.",
    "Thanks a lot!",
    "Just write if anything's unclear.",
    "I hope that's all right with you.",
)


def practice_examples(voice: str, count: int, seed: int) -> list[Example]:
    """`count` different examples in `voice`, the same for the same seed."""
    chance = random.Random(f"{voice}-{seed}")
    made: dict[str, Example] = {}
    while len(made) < count:
        example = chance.choice([_from_a_kind, _from_clauses])(voice, chance)
        made.setdefault(example.task, example)
    return list(made.values())


def pieces() -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The kinds of email, and the pools of values by name."""
    return _read("practice.yaml"), _read("pools.yaml")


def clauses() -> list[dict[str, Any]]:
    return list(_read("clauses.yaml"))


@cache
def _read(name: str) -> Any:
    import yaml

    return yaml.safe_load((DATA / name).read_text(encoding="utf-8"))


def _from_clauses(voice: str, chance: random.Random) -> Example:
    """Two to four clauses, in the email in the task's order, since a small model loses its place otherwise."""
    _, pools = pieces()
    written, sender = _recipient(pools, chance), _sender(pools, chance)
    told, said, taken = [], [], {written, sender}
    chosen = chance.sample(clauses(), chance.choice([2, 2, 3, 3, 4]))
    for clause in chosen:
        values = {}
        for slot, pool in clause["slots"].items():
            values[slot] = _value(pool, pools, chance, taken)
            taken.add(values[slot])
        told.append(chance.choice(clause["task"]).format(**values))
        said.append(_capitalise(chance.choice(clause[voice]).format(**values)))
        if clause is chosen[0]:
            subject = _capitalise(chance.choice(clause["subjects"]).format(**values))
    task = chance.choice(CLAUSE_LEADS).format(name=written, said=_listed(told, chance))
    task = chance.choice(SENDERS).format(task=task, sender=sender)
    if chance.random() < 0.5:
        said.append(chance.choice(FORMAL_LAST if voice == "formal" else FRIENDLY_LAST))
    email = _email(voice, subject, _greeting(voice, "person", written, {}, chance), said, sender, chance)
    in_order = sorted(taken - {written, sender}, key=lambda value: task.lower().find(value.lower()))
    facts = [[value] for value in (*in_order, sender)]
    return task_example(task, email, facts=facts, voice=voice, kind="clauses")


def _listed(told: list[str], chance: random.Random) -> str:
    """The clauses as somebody in a hurry, or with time, would type them."""
    sentences = ". ".join(_capitalise(clause) for clause in told) + "."
    bullets = "".join(f"\n- {clause}" for clause in told) + "\n"
    in_one = [f"{', '.join(told)}.", ", ".join(told), f"{'; '.join(told)}.", f"{' and '.join(told)}."]
    return chance.choice([sentences, sentences, bullets, *in_one])


def _recipient(pools: dict[str, list[str]], chance: random.Random) -> str:
    first, last = chance.choice(pools["FIRST"]), chance.choice(pools["LAST"])
    title = chance.choice(["Ms", "Mr", "Dr", "Mrs"])
    return chance.choice([first, f"{first} {last}", f"{first} {last}", f"{title} {last}", f"{title} {first} {last}"])


def _sender(pools: dict[str, list[str]], chance: random.Random) -> str:
    sender = f"{chance.choice(pools['FIRST'])} {chance.choice(pools['LAST'])}"
    return sender.split()[0] if chance.random() < 0.3 else sender


def _email(voice: str, subject: str, greeting: str, sentences: list[str], sender: str, chance: random.Random) -> str:
    closing = chance.choice(FORMAL_CLOSINGS if voice == "formal" else FRIENDLY_CLOSINGS)
    return "\n\n".join([f"Subject: {subject}", greeting, *_paragraphs(sentences, chance), f"{closing}\n{sender}"])


def _from_a_kind(voice: str, chance: random.Random) -> Example:
    kinds, pools = pieces()
    kind = chance.choice(kinds)
    values: dict[str, str] = {}
    for slot, values_or_pool in kind["slots"].items():
        values[slot] = _value(values_or_pool, pools, chance, taken=set(values.values()))
    written, sender = _recipient(pools, chance), _sender(pools, chance)
    fill = {**values, "name": written}
    task = chance.choice(LEADS).format(task=chance.choice(kind["tasks"]).format(**fill))
    task = chance.choice(SENDERS).format(task=task, sender=sender)
    sentences = [_capitalise(chance.choice(group).format(**fill)) for group in kind[voice]]
    greeting = _greeting(voice, kind["to"], written, values, chance)
    subject = _capitalise(chance.choice(kind["subjects"]).format(**fill))
    email = _email(voice, subject, greeting, sentences, sender, chance)
    return task_example(
        task, email, facts=[[value] for value in (*values.values(), sender)], voice=voice, kind=kind["kind"]
    )


def _greeting(voice: str, to: str, written: str, values: dict[str, str], chance: random.Random) -> str:
    if to == "group":
        return chance.choice(["Dear colleagues,", "Dear all,"] if voice == "formal" else ["Hi all,", "Hello everyone,"])
    if to == "company":
        return "Dear Sir or Madam," if voice == "formal" else f"Hello {values['company']} team,"
    title, _, rest = written.partition(" ")
    titled = title in ("Ms", "Mr", "Dr", "Mrs")
    if voice == "formal":
        return f"Dear {title} {rest.split()[-1]}," if titled else f"Dear {written},"
    called = rest.split()[0] if titled and " " in rest else written if titled else title
    return f"{chance.choice(['Hi', 'Hello', 'Hey'])} {called},"


def _paragraphs(sentences: list[str], chance: random.Random) -> list[str]:
    """The sentences in order, some of them joined: emails are not one sentence a paragraph."""
    paragraphs = [sentences[0]]
    for sentence in sentences[1:]:
        if chance.random() < 0.4:
            paragraphs[-1] += f" {sentence}"
        else:
            paragraphs.append(sentence)
    return paragraphs


def _capitalise(text: str) -> str:
    return re.sub(r"(?:^|(?<=[.!?] ))[a-z]", lambda letter: letter[0].upper(), text)


def _value(values_or_pool: list[str] | str, pools: dict[str, list[str]], chance: random.Random, taken: set[str]) -> str:
    """A value that no other slot of this task has."""
    while True:
        if isinstance(values_or_pool, str):
            value = (
                chance.choice(pools[values_or_pool])
                if values_or_pool in pools
                else _made_up(values_or_pool, pools, chance)
            )
        else:
            value = str(chance.choice(values_or_pool))
        if value not in taken:
            return value


def _made_up(pool: str, pools: dict[str, list[str]], chance: random.Random) -> str:
    """Values of an open kind, so that copying is the only way to get them right."""
    number = chance.randint
    day, month = number(1, 28), chance.choice(MONTHS)
    hour, minute = number(8, 18), chance.choice(["00", "10", "15", "20", "30", "40", "45", "50"])
    clock = f"{(hour - 1) % 12 + 1}{'' if minute == '00' else ':' + minute} {'am' if hour < 12 else 'pm'}"
    amount = f"{number(11, 9800):,}{chance.choice(['', '', '.50', f'.{number(10, 99)}'])}"
    made = {
        "DAY": [chance.choice(DAYS)],
        "DATE": [f"{day} {month}", f"{month} {day}", f"{day} {month}"],
        "DEADLINE": [f"{chance.choice(DAYS)} {day} {month}", f"{day} {month}", chance.choice(DAYS)],
        "TIME": [clock, clock, f"{hour}:{minute}", clock.replace(" ", "")],
        "MONEY": [f"${amount}", f"£{amount}", f"€{amount}", f"{amount} euros"],
        "COUNT": [str(number(3, 480))],
        "PERCENT": [f"{number(3, 60)} %", f"{number(3, 60)}%"],
        "DURATION": [f"{number(2, 18) * 5} minutes", f"{chance.choice(['one hour', 'two hours', 'three hours'])}"],
        "WEEKS": [f"{chance.choice(['two', 'three', 'four', 'six', 'ten'])} weeks"],
        "ORDER": [str(number(1000, 999999)), f"{chance.choice('ABCDEFGHKLMNPRSTW')}{number(100, 99999)}"],
        "CODE": [
            f"{chance.choice(['INV', 'R', 'MB', 'QX', 'HL', 'F', 'TK', 'NO'])}-{number(100, 99999)}",
            str(number(1000, 99999)),
        ],
        "PHONE": [f"555 0{number(100, 199)}", f"0{number(20, 99)} {number(1000, 9999)} {number(100, 999)}"],
        "PERSON": [f"{chance.choice(pools['FIRST'])} {chance.choice(pools['LAST'])}"],
        "ADDRESS": [f"{number(1, 240)} {chance.choice(pools['STREET'])}"],
        "EMAIL": [
            f"{chance.choice(pools['FIRST']).lower()}@{chance.choice(pools['TOWN']).lower().replace(' ', '')}.example"
        ],
    }
    return chance.choice(made[pool])
