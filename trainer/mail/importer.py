"""A mailbox or a table of emails -> rows that trainer/data/examples.py reads, and a report of the items left out.

It finds out whose mail it is, which emails answer which, and which may be learned from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import ConfigError, DataError
from trainer.data.examples import Example, row_of
from trainer.mail import mailboxes, reply_text, tables
from trainer.mail.chat_rows import chat_examples, private
from trainer.mail.mailboxes import Advance, MailItem
from trainer.mail.message import Mail, UnreadableMail
from trainer.mail.task_rules import Request, TooManyFacts, email_of, request
from trainer.mail.threads import thread_keys

if TYPE_CHECKING:
    from trainer.text.personal_data import Mode, Privacy

# Of the reply text: about 1,000 tokens, as many as a recipe takes with the task.
MAX_CHARACTERS = 4_000
MIN_WORDS = 2
MIN_WORDS_OF_FORWARD = 5
HINTS = {
    **dict.fromkeys([".pst", ".ost"], "export it from Outlook as .eml, or convert it with readpst"),
    ".msg": "save it from Outlook as .eml",
    ".olm": "drag the folder out of Outlook, which makes an .mbox",
    **dict.fromkeys([".zip", ".gz", ".tgz", ".tar"], "unpack it first"),
}

# Called with the name of the work, its amount and unit; gives the callback for each step.
Progress = Callable[[str, int, str], AbstractContextManager[Advance]]
# The tasks that a model wrote for the drafts, in order; None where the task by rule stays.
Describe = Callable[[Sequence["Draft"], Progress], list[str | None]]


@dataclass(frozen=True)
class Options:
    # The addresses of the voice's owner; guessed if empty.
    me: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    privacy: Mode = "fake"
    names: bool = False
    seed: int = 0
    describe: Describe | None = None


@dataclass
class ImportReport:
    """Counts of everything that was read, without the text of any email."""

    read: int = 0
    used: int = 0
    replies: int = 0
    threads: int = 0
    described: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    # One line for each unreadable message, and for each odd thing about a message that could be read.
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    me: tuple[str, ...] = ()
    me_guessed: bool = False
    personal: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"left_out": dict(self.left_out.most_common())}


@dataclass(frozen=True)
class Draft:
    """One email and the request for it, personal data already replaced."""

    request: Request
    email: str
    thread: str


def silent(what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
    return nullcontext(lambda _: None)


def read_mail(path: Path, options: Options, progress: Progress = silent) -> tuple[list[dict[str, Any]], ImportReport]:
    """The rows of every usable email at `path`, and the report.

    Raises:
        ConfigError: `path` cannot be read, or is a table without a column of emails.
        DataError: it has no usable email.
    """
    from trainer.text.personal_data import Privacy

    report = ImportReport()
    size = sum(file.stat().st_size for file in mailboxes.mail_files(path) if file.is_file())
    with progress("reading", size, "B") as advance:
        mails, examples = _sorted_out(_found(path, options.columns, advance), report)
    privacy = Privacy(options.privacy, options.names, options.seed)
    rows = [row_of(private(example, privacy)) for example in examples]
    with progress("writing tasks", len(mails), "email") as advance:
        drafts = [_private(draft, privacy) for draft in _drafts(mails, options, report, advance)]
    tasks = options.describe(drafts, progress) if options.describe and drafts else [None] * len(drafts)
    report.described = sum(task is not None for task in tasks)
    rows += [_row(draft, task) for draft, task in zip(drafts, tasks, strict=True)]
    report.used, report.personal = len(rows), dict(privacy.counts)
    report.replies = sum(bool(draft.request.answered) for draft in drafts)
    report.threads = len({draft.thread for draft in drafts})
    if not rows:
        raise _nothing(report, path)
    return rows, report


def _nothing(report: ImportReport, path: Path) -> DataError:
    reasons = [f"{count} {reason}" for reason, count in report.left_out.most_common()]
    hint = "--me ADDRESS says whose emails to learn from" if report.left_out["not by me"] else ""
    message = f"nothing in {path} can be learned from; of {report.read} read these were left out:"
    return DataError(message, [*reasons, *report.problems[:20]], hint)


def _found(path: Path, columns: Mapping[str, str], advance: Advance) -> Iterator[MailItem]:
    if not path.exists():
        raise ConfigError(f"{path} is not there", "give an mbox, a Maildir, a folder of .eml files or a table")
    if path.suffix.lower() in HINTS and path.is_file():
        raise ConfigError(f"{path} is not a mailbox that can be read", HINTS[path.suffix.lower()])
    if path.is_file() and path.suffix.lower() in tables.SUFFIXES:
        return tables.read(path, columns, advance)
    if not mailboxes.mail_files(path):
        raise ConfigError(f"{path} holds no mail", "a folder must be a Maildir, or hold .eml or .mbox files")
    return mailboxes.read(path, advance)


def _sorted_out(found: Iterator[MailItem], report: ImportReport) -> tuple[list[MailItem], list[Example]]:
    """(the mail, each message once; the rows that are examples already); unreadable items are reported."""
    mails: list[MailItem] = []
    examples: list[Example] = []
    seen: set[Any] = set()
    for one in found:
        report.read += 1
        item = chat_examples(one.item) if isinstance(one.item, dict) else one.item
        if isinstance(item, UnreadableMail):
            report.left_out["unreadable"] += 1
            report.problems.append(f"{one.where}: {item}")
            continue
        if isinstance(item, list):
            examples += item
            continue
        key = item.message_id or (item.sender, item.recipients, item.date, item.subject, item.text, item.quoted)
        if key in seen:
            report.left_out["there twice"] += 1
        else:
            seen.add(key)
            mails.append(one)
            report.notes += [f"{one.where}: {note}" for note in item.notes]
    return mails, examples


def _drafts(found: Sequence[MailItem], options: Options, report: ImportReport, advance: Advance) -> Iterator[Draft]:
    mails = [one.item for one in found if isinstance(one.item, Mail)]
    report.me = tuple(address.strip().lower() for address in options.me) or _guess(found)
    report.me_guessed = not options.me
    by_id = {mail.message_id: mail for mail in mails if mail.message_id}
    for mail, thread in zip(mails, thread_keys(mails), strict=True):
        advance(1)
        reason = _reason_against(mail, report.me)
        if not reason:
            answered, answered_from = _answered(mail, by_id, report.me)
            try:
                asked = request(mail, answered, answered_from, str(options.seed))
            except TooManyFacts:
                reason = "more facts than a request gives"
            else:
                yield Draft(asked, email_of(mail, bool(asked.answered)), thread)
        if reason:
            report.left_out[reason] += 1


def _reason_against(mail: Mail, me: tuple[str, ...]) -> str | None:
    """Why an email is not used, None if it is. In a table without senders every email is its owner's."""
    words = len(reply_text.message(mail.text, mail.sender_name or mail.sender).split())
    reasons = (
        (bool(mail.automatic), f"automatic: {mail.automatic}"),
        (bool(mail.sender) and mail.sender not in me, "not by me"),
        (mail.encrypted, "encrypted"),
        (mail.forward and words < MIN_WORDS_OF_FORWARD, "forward without own words"),
        (words < MIN_WORDS, "empty after quotes and signature"),
        (len(mail.text) > MAX_CHARACTERS, "too long"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _guess(found: Sequence[MailItem]) -> tuple[str, ...]:
    """The owner of the mailbox: the main sender of its sent folders, else the sender who is in most messages.

    The owner sent or received nearly every message.
    """
    people = [(one.item, one.sent) for one in found if isinstance(one.item, Mail) and not one.item.automatic]
    senders = Counter(mail.sender for mail, sent in people if sent and mail.sender)
    if not senders:
        present = Counter(
            address for mail, _ in people for address in {mail.sender, *(address for _, address in mail.recipients)}
        )
        senders = Counter({mail.sender: present[mail.sender] for mail, _ in people if mail.sender})
    return tuple(address for address, _ in senders.most_common(1))


def _answered(mail: Mail, by_id: Mapping[str, Mail], me: tuple[str, ...]) -> tuple[str, str]:
    """(the message that an email answers, its sender's name), from the mailbox, else from the quote, else empty.

    A follow-up to the owner's own message is not an answer.
    """
    if not mail.is_reply:
        return "", ""
    original = by_id.get(mail.references[-1]) if mail.references else None
    if original and original.sender in me:
        return "", ""
    if original and original.text:
        return original.text, original.sender_name
    return reply_text.read(mail.quoted, "").text, original.sender_name if original else ""


def _private(draft: Draft, privacy: Privacy) -> Draft:
    """The draft with its personal data replaced, the same in task, message answered, email and facts."""
    asked = draft.request
    spellings = [spelling for fact in asked.facts for spelling in fact]
    texts = [asked.task, asked.answered, asked.answered_from, draft.email, *spellings]
    task, answered, answered_from, email, *replaced = privacy.apply(texts, draft.thread)
    again = iter(replaced)
    facts = tuple(tuple(next(again) for _ in fact) for fact in asked.facts)
    return Draft(Request(task, facts, answered, answered_from), email, draft.thread)


def _row(draft: Draft, described: str | None) -> dict[str, Any]:
    asked = draft.request
    task = Request(described or asked.task, (), asked.answered, asked.answered_from).whole
    return {"task": task, "email": draft.email, "facts": [list(fact) for fact in asked.facts], "thread": draft.thread}
