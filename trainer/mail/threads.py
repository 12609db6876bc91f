"""Which emails belong together: by References and In-Reply-To, else by subject and participants.

A thread's key is a short hash, the same for any order of the mailbox, that reveals nothing of its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trainer.mail.message import Mail, bare_subject

Node = tuple[str, ...]


def thread_keys(mails: Sequence[Mail]) -> list[str]:
    """The key of each email's thread, in order."""
    from scipy.cluster.hierarchy import DisjointSet

    nodes = [_nodes(mail, number) for number, mail in enumerate(mails)]
    sets = DisjointSet(node for several in nodes for node in several)
    for first, *others in nodes:
        for other in others:
            sets.merge(first, other)
    keys: dict[Node, str] = {}
    for thread in sets.subsets():
        # By its least node, so that the order of the emails does not matter.
        keys |= dict.fromkeys(thread, hashlib.sha256("\0".join(min(thread)).encode()).hexdigest()[:12])
    return [keys[first] for first, *_ in nodes]


def _nodes(mail: Mail, number: int) -> list[Node]:
    """Everything that may link an email to others, at least one node."""
    if mail.thread:
        return [("table", mail.thread)]
    nodes: list[Node] = [("id", one) for one in (mail.message_id, *mail.references) if one]
    subject = bare_subject(mail.subject).lower()
    if not mail.references and subject:
        people = sorted({mail.sender, *(address for _, address in mail.recipients)})
        nodes.append(("subject", subject, *people))
    return nodes or [("number", str(number))]
