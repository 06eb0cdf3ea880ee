"""Why mail has not arrived, in plain words on one screen. Pure."""

import textwrap
from collections.abc import Sequence

from mailsrv.accounts.addresses import shown
from mailsrv.cli.times import ago, at
from mailsrv.queue.report_text import Kind, reason, said
from mailsrv.queue.values import LIST, LOCAL, Message, Recipient, State
from mailsrv.settings import QueueSettings

MAX_SHOWN = 5
_WIDTH = 78

_NOTHING = (
    "Nothing waits for or from {address}. What was sent has left this server, or was"
    " never accepted. What became of it stands in the log: mailsrv log trace {address}"
)


def said_in_words(
    address: str,
    rows: Sequence[tuple[Message, Recipient]],
    settings: QueueSettings,
    now_utc: float,
) -> str:
    """Return what is to be said of rows of the queue."""
    if not rows:
        return _wrapped(_NOTHING.format(address=address))
    parts = [_one(message, r, settings, now_utc) for message, r in rows[:MAX_SHOWN]]
    if len(rows) > MAX_SHOWN:
        parts.append(f"... and {len(rows) - MAX_SHOWN} more: mailsrv queue list")
    return "\n\n".join(parts)


def _one(
    message: Message, recipient: Recipient, settings: QueueSettings, now: float
) -> str:
    sender = shown(message.reverse_path) or "this server itself (a report)"
    lines = [
        f"To {shown(recipient.forward_path)}, from {sender},"
        f" accepted {ago(message.arrived_at_utc, now)} ago ({message.id}):"
    ]
    lines.append(_wrapped(_what(recipient, now), "  "))
    answer = recipient.answer
    if answer is not None and recipient.state in (State.WAITING, State.HELD):
        who = f"The server {answer.peer} says" if answer.peer else "In detail"
        lines.append(_wrapped(f"{who}: {said(answer)}", "    "))
        lines.append(_wrapped(reason(Kind.DELAYED, answer), "  "))
    if recipient.state is State.WAITING:
        ends_at = message.arrived_at_utc + settings.lifetime
        told = "The sender has been told of the delay. " * recipient.warned
        lines.append(
            _wrapped(
                f"{told}If nothing helps by {at(ends_at, now)}, it goes back to the"
                " sender.",
                "  ",
            )
        )
        lines.append(
            f"  You can: mailsrv queue retry {message.id}   (or hold, bounce, drop)"
        )
    return "\n".join(lines)


def _what(recipient: Recipient, now: float) -> str:
    match recipient.state:
        case State.DELIVERED:
            return "It was delivered; others of the same message still wait."
        case State.FAILED:
            return "It was refused for good, and the sender was told."
        case State.DROPPED:
            return "An administrator has thrown it away."
        case State.HELD:
            return "An administrator holds it: mailsrv queue release sends it."
    if not recipient.attempts:
        return "It has not been tried yet, and will be in a moment."
    place = {LOCAL: "the mailbox", LIST: "the list"}.get(
        recipient.destination, f"the mail servers of {recipient.destination}"
    )
    tries = "once" if recipient.attempts == 1 else f"{recipient.attempts} times"
    next_at = recipient.next_at_utc
    again = "" if next_at is None else f"; the next time is at {at(next_at, now)}"
    return f"It waits. It was tried {tries} at {place}{again}."


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
