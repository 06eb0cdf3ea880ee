"""Why mail has not arrived, in plain words on one screen. Pure."""

from collections.abc import Collection, Sequence

from mailsrv.accounts.addresses import InvalidAddress, shown
from mailsrv.accounts.directory import Directory
from mailsrv.cli.editing import plain
from mailsrv.cli.times import ago, at
from mailsrv.queue.report_text import Kind, reason, said, wrapped
from mailsrv.queue.reports import called_for
from mailsrv.queue.values import ALIAS, LIST, LOCAL, Message, Recipient, Result, State
from mailsrv.relay.routes import Routes
from mailsrv.routing.router import Disabled, Unknown, resolve
from mailsrv.settings import Settings

MAX_SHOWN = 5
_WIDTH = 78

_NOTHING = (
    "Nothing waits for or from {address}. What was sent has left this server, or was"
    " never accepted. What became of it stands in the log: mailsrv log trace {address}"
)
_UNKNOWN = (
    "Nobody here has the address {address}: mail to it is refused, and the sender is"
    " told so by the server that sends it. Who has which address: mailsrv account list,"
    " alias list, group list"
)
_DISABLED = "Whoever has the address {address} is disabled: mail to it is refused."
_AWAY = "The server does not run: nothing is sent until it does."


def said_in_words(
    address: str,
    rows: Sequence[tuple[Message, Recipient]],
    settings: Settings,
    now_utc: float,
    sending: Collection[int] | None,
) -> str:
    """Return what is to be said of rows of the queue.

    `sending` are the ids of those that are being sent to; None: the server is down.
    """
    parts = [
        _one(message, recipient, settings, now_utc, sending or ())
        for message, recipient in rows[:MAX_SHOWN]
    ]
    if len(rows) > MAX_SHOWN:
        parts.append(f"... and {len(rows) - MAX_SHOWN} more: mailsrv queue list")
    if not rows:
        parts.append(_wrapped(_NOTHING.format(address=plain(address))))
    if sending is None:
        parts.append(_AWAY)
    return "\n\n".join(parts)


def not_here(address: str, directory: Directory) -> str:
    """Say that mail to an address of ours is refused; empty: it is not."""
    try:
        destination = resolve(directory, address)
    except InvalidAddress:
        return ""
    match destination:
        case Unknown():
            return _wrapped(_UNKNOWN.format(address=plain(address)))
        case Disabled():
            return _wrapped(_DISABLED.format(address=plain(address)))
    return ""


def _one(
    message: Message,
    recipient: Recipient,
    settings: Settings,
    now: float,
    sending: Collection[int],
) -> str:
    sender = plain(shown(message.reverse_path)) or "this server itself (a report)"
    to = plain(shown(recipient.forward_path))
    if recipient.original:
        to += f" (behind {plain(shown(recipient.original))})"
    lines = [
        f"To {to}, from {sender},"
        f" accepted {ago(message.arrived_at_utc, now)} ago ({message.id}):"
    ]
    is_sent_to = recipient.id in sending
    lines.append(_wrapped(_what(message, recipient, settings, now, is_sent_to), "  "))
    answer = recipient.answer
    if answer is not None and recipient.state not in (State.DELIVERED, State.DROPPED):
        who = f"The server {plain(answer.peer)} says" if answer.peer else "In detail"
        lines.append(_wrapped(f"{who}: {said(answer)}", "    "))
        if recipient.state is not State.FAILED:
            lines.append(_wrapped(reason(Kind.DELAYED, answer), "  "))
    if recipient.state is State.WAITING:
        ends_at = at(message.arrived_at_utc + settings.queue.lifetime, now)
        told = "The sender has been told of the delay. " * recipient.warned
        end = "it goes back to the sender" if message.reverse_path else "it is given up"
        lines.append(_wrapped(f"{told}If nothing helps by {ends_at}, {end}.", "  "))
        lines.append(
            f"  You can: mailsrv queue retry {message.id}   (or hold, bounce, drop)"
        )
    return "\n".join(lines)


def _what(
    message: Message,
    recipient: Recipient,
    settings: Settings,
    now: float,
    is_sent_to: bool,
) -> str:
    match recipient.state:
        case State.DELIVERED:
            return "It was delivered; others of the same message still wait."
        case State.FAILED:
            told = called_for(message, Result(recipient, State.FAILED, None, None))
            return "It was refused for good, and " + (
                "the sender was told." if told else "nobody is to be told of that."
            )
        case State.DROPPED:
            return "An administrator has thrown it away."
        case State.HELD:
            return "An administrator holds it: mailsrv queue release sends it."
    place = _place(message, recipient, settings)
    tries = "once" if recipient.attempts == 1 else f"{recipient.attempts} times"
    if is_sent_to:
        before = f"; it was tried {tries} before" * bool(recipient.attempts)
        return f"It is being sent at this moment, to {place}{before}."
    if not recipient.attempts:
        return f"It has not been tried yet. It goes to {place}, and will in a moment."
    next_at = recipient.next_at_utc
    again = ""
    if next_at is not None and next_at > now:
        again = f"; the next time is at {at(next_at, now)}"
    elif next_at is not None:
        again = "; it is its turn again, as soon as there is a free connection"
    return f"It waits. It was tried {tries} at {place}{again}."


def _place(message: Message, recipient: Recipient, settings: Settings) -> str:
    destination = recipient.destination
    if destination == LOCAL:
        return "the mailbox"
    if destination == LIST:
        return "the list"
    if destination == ALIAS:
        return "its members"
    routes = Routes(settings.relay.route)
    target = routes.find(message.reverse_path, destination).target
    if target.path:
        return f"the server at {target.path}"
    if target.host:
        host = f"[{target.host}]" if ":" in target.host else target.host
        return f"the server {host}:{target.port}, which takes mail for it"
    return f"the mail servers of {shown(destination)}"


def _wrapped(text: str, indent: str = "") -> str:
    return wrapped(text, indent, _WIDTH)
