"""The fields of a form -> a task in the format that the voices were trained on."""

from __future__ import annotations

from adapters.errors import DataError


def task_from_fields(
    recipient: str, purpose: str, tone: str = "", points: str = "", answered: str = "", sender: str = ""
) -> str:
    """The task as text; `points` has one a line, `answered` is the whole message that the email answers.

    Raises:
        DataError: there is no recipient, or neither a purpose nor a point.
    """
    recipient, purpose, tone, sender = (" ".join(text.split()) for text in (recipient, purpose, tone, sender))
    bullets = [line.strip().lstrip("-*•").strip() for line in points.splitlines()]
    answered = answered.strip().replace('"', "'")
    if not (recipient or answered):
        raise DataError("the email has no recipient", hint="give the name of the person who gets it")
    if not (purpose or any(bullets)):
        raise DataError("the email has nothing to say yet", hint="give its purpose, or at least one point")
    if answered:
        lines = [f'Answer this email please: "{answered}"', f"- to: {recipient}" if recipient else ""]
    else:
        lines = [f"Email to {recipient}"]
    lines.append(f"- about: {purpose}" if purpose else "")
    lines += [f"- {bullet}" for bullet in bullets if bullet]
    lines.append(f"- tone: {tone}" if tone else "")
    lines.append(f"from: {sender}" if sender else "")
    return "\n".join(line for line in lines if line)
